"""Condensate memory: slots on the outside, a core that answers in closed form, and a shell that answers at once.

    core    additive statistics of features and targets (`neuroml.additive`): never decays, whatever comes later
    shell   fast weights, learnt by the delta rule between consolidations, then absorbed: the core has seen the same
    slots   where in key space something was met (`neuroml.slots`)

`make` binds the static choices and returns pure functions over a `CondensateState`. Two ways to join slots and core:

    maps="shared"   one core; the soft answer of the slots, `mix` of it, is added to the core's
    maps="own"      a core for each slot: contexts that the key gives away get a map each
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from neuroml import additive, slots
from neuroml.errors import UsageError, unknown

MAPS = ("shared", "own")


class CondensateState(NamedTuple):
    """All that a condensate memory holds. M is 1 for a shared map, else the number of slots."""

    slots: slots.Slots
    core: additive.Additive  # stack [M]
    weights: jax.Array  # [M, features, outputs]: the core's answer at the last consolidation
    shell: jax.Array  # [M, features, outputs]: fast weights since then
    changed: jax.Array  # [M] bool: maps that absorbed something since then
    seen: jax.Array  # () int32: examples absorbed
    refused: jax.Array  # () int32: examples refused because a number, or the sum of such squares, might not be finite


class Condensate(NamedTuple):
    """A condensate memory as pure functions; see `make`."""

    init: Callable[[], CondensateState]
    absorb: Callable[..., CondensateState]  # (state, x, y, keys=None) -> state
    consolidate: Callable[[CondensateState], CondensateState]
    coarsen: Callable[..., CondensateState]  # (state, tension) -> state, consolidated
    read: Callable[..., Array]  # (state, x, keys=None) -> outputs
    context: Callable[..., Array]  # (state, keys) -> the nearest slot


def make(
    features: int,
    outputs: int,
    *,
    count: int = 1,
    keys: int | None = None,
    maps: str = "shared",
    mix: ArrayLike = 0.0,
    ridge: ArrayLike = 0.01,
    radius: ArrayLike = jnp.inf,
    nucleus: int = 1,
    linker: ArrayLike = 1.0,
    mobility: ArrayLike = 1.0,
    shell_rate: ArrayLike = 0.0,
    shell_decay: ArrayLike = 0.99,
) -> Condensate:
    """Makes a condensate memory of `features` inputs and `outputs` targets.

        read(x) = phi(x) @ (weights + shell) + mix * slots.read(keys, linker),   phi(x) = (x, 1)
        weights = (G + ridge * diag(G))^-1 sum phi y^T,   G = sum phi phi^T                        core
        shell   = shell_decay * shell + shell_rate * phi^T (y - phi @ (weights + shell)) / |phi|^2, mean over the batch

    Args:
      features: width of x.
      outputs: width of y: one-hot classes, or any targets.
      count: the budget of slots; the memory is bounded by it.
      keys: width of the keys that slots live in; default: x are the keys.
      maps: "shared" or "own".
      mix: how much of the slots' soft answer is added; 0 is inert, and the slots then only count.
      ridge: in units of each feature's own mean square.
      radius, nucleus, mobility: when a slot nucleates and how it moves, as in `slots.absorb`.
      linker: bandwidth of the soft answer.
      shell_rate: 0 has no shell: the memory answers from the last consolidation only.
      shell_decay: of a map's shell, per call of `absorb` in which the map takes part.

    Returns:
      A `Condensate`. An example with a number that is not finite, or so large that sums of squares might not be, is
      refused and counted; it changes nothing. `coarsen` merges slots (`slots.coarsening`) and consolidates: own maps
      exactly, by adding their statistics. `read` can be differentiated in reverse mode with respect to x.

    Raises:
      UsageError: sizes below 1, a ridge or linker that is not above 0, another number out of its range, an unknown
        choice; later, arrays of other widths.

    Reference:
      Additive core: Zhuang et al. 2022, "ACIL: Analytic class-incremental learning"; slots that nucleate: Platt
      1991, "A resource-allocating network". How ours differs: statistics instead of a recursive inverse, so that
      order does not matter to rounding and memories merge; one map a context.

    >>> memory = make(features=1, outputs=1, ridge=1e-6)
    >>> state = memory.absorb(memory.init(), jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [5.0]]))
    >>> memory.read(memory.consolidate(state), jnp.array([[3.0]])).round(2).tolist()
    [[7.0]]
    """
    if isinstance(ridge, float | int) and not ridge > 0:
        raise UsageError(f"ridge={ridge} must be above 0: without it features that are tied have no solution.")
    if isinstance(shell_decay, float | int) and not 0 <= shell_decay <= 1:
        raise UsageError(f"shell_decay={shell_decay} must be from 0 to 1: it is what a call leaves of the shell.")
    slots.check(radius=radius, linker=linker, mobility=mobility)
    if maps not in MAPS:
        raise unknown("kind of maps", maps, MAPS)
    places = features if keys is None else keys
    if min(features, outputs, count, places, nucleus) < 1:
        given = f"features={features}, outputs={outputs}, count={count}, keys={keys}, nucleus={nucleus}"
        raise UsageError(f"{given} must be at least 1.")
    width = additive.even(features + 1)
    stack = count if maps == "own" else 1

    def phi(x: Array, dtype: Any) -> Array:
        ones = jnp.ones((x.shape[0], 1), dtype)
        return jnp.pad(jnp.concatenate([x.astype(dtype), ones], axis=1), ((0, 0), (0, width - features - 1)))

    def placed(x: Array, keys: Array | None) -> Array:
        keys = x if keys is None else keys
        _check(x, x=(x, features), keys=(keys, places))
        return keys

    def init() -> CondensateState:
        weights, number = jnp.zeros((stack, width, outputs)), jnp.int32(0)
        core = additive.empty(width, outputs, (stack,))
        where = slots.empty(count, places, outputs)
        blank = jnp.zeros_like(weights), jnp.zeros(stack, bool)  # no two leaves share a buffer: a loop may donate them
        return CondensateState(where, core, weights, *blank, number, jnp.zeros_like(number))

    def absorb(state: CondensateState, x: Array, y: Array, keys: Array | None = None) -> CondensateState:
        given = x, y, placed(x, keys)
        _check(x, y=(y, outputs))
        sound, (x, y, keys) = _sound(given, state.weights.dtype)
        after, joined = slots.absorb(
            state.slots, keys, y, radius=radius, nucleus=nucleus, mobility=mobility, sound=sound
        )
        seen, refused = state.seen + sound.sum(), state.refused + (~sound).sum()
        state = state._replace(slots=after, seen=seen, refused=refused)
        where = joined if maps == "own" else jnp.zeros_like(joined)
        return _add(state, phi(x, x.dtype), y, sound, where, shell_rate, shell_decay)

    def read(state: CondensateState, x: Array, keys: Array | None = None) -> Array:
        keys = placed(x, keys)
        now = state.weights + state.shell
        rows = phi(x, now.dtype)
        answer = rows @ now[0] if maps == "shared" else _answers(rows, now, slots.nearest(state.slots, keys))
        if isinstance(mix, float | int) and mix == 0:
            return answer  # spares the distances
        return answer + mix * slots.read(state.slots, keys, linker)

    def coarsen(state: CondensateState, tension: ArrayLike) -> CondensateState:
        into = slots.coarsening(state.slots, tension)
        if maps == "own":
            state = _merge_maps(state, into)
        return _settle(state._replace(slots=slots.merge(state.slots, into)), ridge)

    return Condensate(
        init,
        absorb,
        lambda state: _settle(state, ridge),
        coarsen,
        read,
        lambda state, keys: slots.nearest(state.slots, keys),
    )


def _check(like: Array, **given: tuple[Array, int]) -> None:
    for name, (array, width) in given.items():
        if array.ndim != 2 or array.shape[1] != width:
            raise UsageError(f"{name} has shape {array.shape}, not [n, {width}], for which this memory was made.")
        if array.shape[0] != like.shape[0]:
            raise UsageError(f"there are {like.shape[0]} rows of x, and {array.shape[0]} of {name}.")


def _sound(given: tuple[Array, ...], dtype: Any) -> tuple[Array, list[Array]]:
    """Says which examples have only numbers whose squares can be added a million times; others come back as zeros."""
    cast = [rows.astype(dtype) for rows in given]
    largest = jnp.finfo(dtype).max / 1e6
    sound = jnp.stack([(rows * rows <= largest).all(1) for rows in cast]).all(0)
    return sound, [jnp.where(sound[:, None], rows, 0) for rows in cast]


def _add(state: CondensateState, rows: Array, y: Array, sound: Array, where: Array, rate: Any, decay: Any):
    """Adds each example to its map, and lets the shell follow."""

    def add(carry, slot, mine):
        core, shell, changed = carry
        weight = mine.astype(rows.dtype)
        here = additive.add(jax.tree.map(lambda leaf: leaf[slot], core), rows, y, weight)
        core = jax.tree.map(lambda leaf, new: leaf.at[slot].set(new), core, here)
        wrong = (y - rows @ (state.weights[slot] + shell[slot])) * weight[:, None]
        size = jnp.maximum(jnp.sum(rows**2, axis=1, keepdims=True), 1e-12)
        step = (rows / size).T @ wrong / weight.sum()
        return core, shell.at[slot].set(decay * shell[slot] + rate * step), changed.at[slot].set(True)

    core, shell, changed = _each_slot(where, sound, (state.core, state.shell, state.changed), add)
    return state._replace(core=core, shell=shell, changed=changed)


def _each_slot(where: Array, todo: Array, carry: Any, visit: Callable[[Any, Array, Array], Any]) -> Any:
    """Calls `visit(carry, slot, mine)` once for each slot in `where[todo]`: usually one, never all of them."""

    def step(loop):
        carry, todo = loop
        slot = where[jnp.argmax(todo)]
        mine = todo & (where == slot)
        return visit(carry, slot, mine), todo & ~mine

    return jax.lax.while_loop(lambda loop: loop[1].any(), step, (carry, todo))[0]


@jax.custom_vjp
def _answers(rows: Array, maps: Array, where: Array) -> Array:
    """Returns `rows[n] @ maps[where[n]]` for each n. By hand: a loop of unknown length has no gradient of its own."""
    add = lambda out, slot, mine: jnp.where(mine[:, None], rows @ maps[slot], out)
    out = jnp.zeros((rows.shape[0], maps.shape[2]), maps.dtype)
    return _each_slot(where, jnp.ones(where.shape, bool), out, add)


# What is remembered changes by absorbing, not by gradient: its cotangents are zero.
_answers.defvjp(
    lambda rows, maps, where: (_answers(rows, maps, where), (maps, where)),
    lambda kept, out: (_answers(out, kept[0].swapaxes(1, 2), kept[1]), None, None),
)


def _settle(state: CondensateState, ridge: ArrayLike) -> CondensateState:
    """Solves the maps that changed, and empties the shell: what it learnt, the core has seen."""

    def one(part):
        core, weights, changed = part
        return jax.lax.cond(changed, lambda: additive.solve(core, ridge), lambda: weights)

    weights = jax.lax.map(one, (state.core, state.weights, state.changed))
    return state._replace(weights=weights, shell=jnp.zeros_like(state.shell), changed=jnp.zeros_like(state.changed))


def _merge_maps(state: CondensateState, into: Array) -> CondensateState:
    """Adds the statistics of slots that became one; the map of one that is gone solves to zero."""
    core = jax.tree.map(lambda leaf: jax.ops.segment_sum(leaf, into, leaf.shape[0]), state.core)
    moved = into != jnp.arange(into.size)
    return state._replace(core=core, changed=state.changed | moved | jnp.zeros_like(moved).at[into].max(moved))
