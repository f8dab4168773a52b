"""Condensate memory: slots on the outside, a core that answers in closed form, and a shell that answers at once.

    core    additive statistics of features and targets (`neuroml.additive`): never decays, whatever comes later
    shell   fast weights, learnt by the delta rule between consolidations, then absorbed: the core has seen the same
    slots   where in key space something was met (`neuroml.slots`)

`make` binds the static choices and returns pure functions over a `CondensateState`. Two ways to join slots and core:

    maps="shared"   one core; its features are x itself, with the responses of the slots beside it (`embed`)
    maps="own"      a core for each slot: contexts that the key gives away get a map each
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

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
    seen: jax.Array  # (): examples absorbed
    refused: jax.Array  # (): examples refused because a number was not finite


class Condensate(NamedTuple):
    """A condensate memory as pure functions; see `make`."""

    init: Callable[[], CondensateState]
    absorb: Callable[..., CondensateState]  # (state, x, y, keys=None) -> state
    consolidate: Callable[[CondensateState], CondensateState]
    coarsen: Callable[..., CondensateState]  # (state, tension) -> state
    read: Callable[..., Array]  # (state, x, keys=None) -> outputs
    context: Callable[..., Array]  # (state, keys) -> the nearest slot


def make(
    features: int,
    outputs: int,
    *,
    count: int = 1,
    keys: int | None = None,
    maps: str = "shared",
    embed: bool = False,
    ridge: ArrayLike = 0.01,
    radius: ArrayLike = jnp.inf,
    nucleus: int = 1,
    linker: ArrayLike = 1.0,
    mobility: ArrayLike = 1.0,
    shell_rate: ArrayLike = 0.0,
    shell_decay: ArrayLike = 0.99,
) -> Condensate:
    """Makes a condensate memory of `features` inputs and `outputs` targets.

        read(x) = phi(x) @ (weights + shell),   phi(x) = (x, 1), and, with `embed`, the responses of the slots behind
        weights = (G + ridge * diag(G))^-1 sum phi y^T,   G = sum phi phi^T                        core
        shell   = shell_decay * shell + shell_rate * phi^T (y - read(x)) / |phi|^2, a mean over the batch

    Args:
      features: width of x.
      outputs: width of y: one-hot classes, or any targets.
      count: the budget of slots; the memory is bounded by it.
      keys: width of the keys that slots live in; default: x are the keys.
      maps: "shared" or "own".
      embed: feeds the responses of the slots to a shared core: a radial-basis network whose centres nucleate.
      ridge: in units of each feature's own mean square.
      radius, nucleus, mobility: when a slot nucleates and how it moves, as in `slots.absorb`.
      linker: bandwidth of the responses.
      shell_rate: 0 has no shell: the memory answers from the last consolidation only.
      shell_decay: of the shell, per call of `absorb`.

    Returns:
      A `Condensate`. An example with a number that is not finite is refused and counted; it changes nothing.

    Raises:
      UsageError: sizes below 1, an unknown choice, `embed` without a shared map.

    Reference:
      Additive core: Zhuang et al. 2022, "ACIL: Analytic class-incremental learning"; slots as radial basis functions:
      Platt 1991, "A resource-allocating network". How ours differs: statistics instead of a recursive inverse, so that
      order does not matter to rounding and memories merge; one map a context.

    >>> memory = make(features=1, outputs=1, ridge=1e-6)
    >>> state = memory.absorb(memory.init(), jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [5.0]]))
    >>> memory.read(memory.consolidate(state), jnp.array([[3.0]])).round(2).tolist()
    [[7.0]]
    """
    if maps not in MAPS:
        raise unknown("kind of maps", maps, MAPS)
    if embed and maps != "shared":
        raise UsageError('embed=True needs maps="shared": with maps="own" the slots choose the map.')
    width = additive.even(features + 1 + (count if embed else 0))
    stack = count if maps == "own" else 1

    def phi(state: CondensateState, x: Array, keys: Array) -> Array:
        parts = [x.astype(jnp.float32), jnp.ones((x.shape[0], 1))]
        if embed:
            parts.append(slots.responses(state.slots, keys, linker))
        rows = jnp.concatenate(parts, axis=1)
        return jnp.pad(rows, ((0, 0), (0, width - rows.shape[1])))

    def init() -> CondensateState:
        where = slots.empty(count, features if keys is None else keys, outputs)
        weights = jnp.zeros((stack, width, outputs))
        core = additive.empty(width, outputs, (stack,))
        return CondensateState(where, core, weights, weights, jnp.zeros(stack, bool), jnp.zeros(()), jnp.zeros(()))

    def absorb(state: CondensateState, x: Array, y: Array, keys: Array | None = None) -> CondensateState:
        keys = x if keys is None else keys
        _check(x, y, features, outputs)
        sound = jnp.isfinite(x).all(1) & jnp.isfinite(y).all(1) & jnp.isfinite(keys).all(1)
        whole = lambda rows: jnp.where(sound[:, None], rows, 0)
        after, joined = _absorb_sound(state, whole(keys), whole(y), sound)
        state = state._replace(slots=after)
        rows, number = phi(state, whole(x), whole(keys)), sound.sum()
        state = _add(
            state, rows, whole(y), sound, joined if maps == "own" else jnp.zeros_like(joined), shell_rate, shell_decay
        )
        return state._replace(seen=state.seen + number, refused=state.refused + sound.size - number)

    def _absorb_sound(state, keys, y, sound):
        take = lambda: slots.absorb(state.slots, keys, y, radius=radius, nucleus=nucleus, mobility=mobility)
        # A group with a refused example leaves the slots alone; its sound examples still join the core.
        skip = lambda: (state.slots, slots.nearest(state.slots, keys))
        return jax.lax.cond(sound.all(), take, skip)

    def read(state: CondensateState, x: Array, keys: Array | None = None) -> Array:
        keys = x if keys is None else keys
        rows, maps_now = phi(state, x, keys), state.weights + state.shell
        if maps == "shared":
            return rows @ maps_now[0]
        where = slots.nearest(state.slots, keys)
        add = lambda out, slot, mine: out + jnp.where(mine[:, None], rows @ maps_now[slot], 0)
        return _each_slot(where, jnp.zeros((x.shape[0], outputs)), add)

    def coarsen(state: CondensateState, tension: ArrayLike) -> CondensateState:
        into = slots.coarsening(state.slots, tension)
        state = state._replace(slots=slots.merge(state.slots, into))
        if maps == "own":
            return _merge_maps(state, into)
        return _merge_responses(state, into, features + 1) if embed else state

    return Condensate(
        init,
        absorb,
        lambda state: _settle(state, ridge),
        coarsen,
        read,
        lambda state, keys: slots.nearest(state.slots, keys),
    )


def _check(x: Array, y: Array, features: int, outputs: int) -> None:
    for name, array, width in (("x", x, features), ("y", y, outputs)):
        if array.ndim != 2 or array.shape[1] != width:
            raise UsageError(f"{name} has shape {array.shape}, not [n, {width}], for which this memory was made.")


def _add(state: CondensateState, rows: Array, y: Array, sound: Array, where: Array, rate: Any, decay: Any):
    """Adds each example to its map, and lets the shell follow."""

    def add(carry, slot, mine):
        core, shell = carry
        weight = (mine & sound).astype(jnp.float32)
        here = jax.tree.map(lambda leaf: leaf[slot], core)
        here = additive.add(here, rows, y, weight)
        core = jax.tree.map(lambda leaf, new: leaf.at[slot].set(new), core, here)
        wrong = (y - rows @ (state.weights[slot] + shell[slot])) * weight[:, None]
        size = jnp.maximum(jnp.sum(rows**2, axis=1, keepdims=True), 1e-12)
        step = (rows / size).T @ wrong / jnp.maximum(weight.sum(), 1)
        return core, shell.at[slot].set(decay * shell[slot] + rate * step)

    core, shell = _each_slot(where, (state.core, state.shell), add)
    changed = state.changed | (core.count > state.core.count)
    return state._replace(core=core, shell=shell, changed=changed)


def _each_slot(where: Array, carry: Any, visit: Callable[[Any, Array, Array], Any]) -> Any:
    """Calls `visit(carry, slot, mine)` once for each distinct slot in `where`: usually one, never all of them."""

    def step(loop):
        carry, todo = loop
        slot = where[jnp.argmax(todo)]
        mine = where == slot
        return visit(carry, slot, mine), todo & ~mine

    return jax.lax.while_loop(lambda loop: loop[1].any(), step, (carry, jnp.ones(where.shape, bool)))[0]


def _settle(state: CondensateState, ridge: ArrayLike) -> CondensateState:
    """Solves the maps that changed, and empties the shell: what it learnt, the core has seen."""

    def one(part):
        core, weights, changed = part
        return jax.lax.cond(changed, lambda: additive.solve(core, ridge), lambda: weights)

    weights = jax.lax.map(one, (state.core, state.weights, state.changed))
    return state._replace(weights=weights, shell=jnp.zeros_like(state.shell), changed=jnp.zeros_like(state.changed))


def _merge_maps(state: CondensateState, into: Array) -> CondensateState:
    total = lambda leaf: jax.ops.segment_sum(leaf, into, leaf.shape[0])
    core = jax.tree.map(total, state.core)
    moved = jax.ops.segment_max((into != jnp.arange(into.size)).astype(jnp.int32), into, into.size) > 0
    return state._replace(core=core, changed=(state.changed | moved) & (core.count > 0))


def _merge_responses(state: CondensateState, into: Array, offset: int) -> CondensateState:
    """Sums the rows and columns of slots that became one, so that the core is that of their summed responses."""
    width = state.core.cross.shape[1]
    index = jnp.arange(width)
    slot = jnp.clip(index - offset, 0, into.size - 1)
    target = jnp.where((index >= offset) & (index - offset < into.size), offset + into[slot], index)
    rows = lambda matrix: jax.ops.segment_sum(matrix, target, width)
    gram = rows(rows(additive.unpack(state.core.gram[0])).T)
    core = additive.Additive(additive.pack(gram)[None], rows(state.core.cross[0])[None], state.core.count)
    return state._replace(core=core, changed=jnp.ones_like(state.changed))
