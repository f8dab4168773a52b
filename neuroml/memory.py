"""Episodic memories of fixed size: which examples of a stream to keep, and which to replay.

A `Memory` is a policy of what to keep, two pure functions over a `MemoryState`, so that a rule can hold the state and
jit, vmap and scan apply. `sample` reads any of them, and `rehearse` learns from what was read.

    init(example) -> state            an empty memory for examples like this one (any pytree, no batch axis)
    add(state, batch, key) -> state   offers a batch (leading axis n)
    sample(state, n, key) -> batch    n examples, uniform over what is stored, with replacement

An example with a number that is not finite is neither kept nor counted: it would be replayed again and again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from neuroml import core
from neuroml.errors import UsageError

EMPTY = -1
NO_GROUP = -1  # of an example that is not kept


class MemoryState(NamedTuple):
    """What a memory holds."""

    items: Any  # each leaf [capacity, ...]
    stamp: jax.Array  # [capacity] int32: `clock` when the slot was written, -1 while it is empty
    clock: jax.Array  # () int32: moved on by `tick`, so that what is older can be told apart
    seen: jax.Array  # [groups] int32: how many examples of each group were offered


class Memory(NamedTuple):
    """A policy of what to keep: see the module's first lines."""

    init: Callable[[Any], MemoryState]
    add: Callable[[MemoryState, Any, Any], MemoryState]


def reservoir(capacity: int) -> Memory:
    """Keeps a uniform sample of everything offered: each example stays with probability capacity / seen.

    Reference: Vitter 1985, algorithm R. How ours differs: a batch is offered at once; of two examples that fall on the
    same slot the later one stays, as if they had come one by one.

    >>> memory = reservoir(4)
    >>> state = memory.init(jnp.int32(0))
    >>> state = memory.add(state, jnp.arange(100), jax.random.key(0))
    >>> state.seen.tolist(), state.items.shape
    ([100], (4,))
    """
    return class_balanced(capacity, classes=1, label=lambda batch: jnp.zeros(_length(batch), jnp.int32))


def class_balanced(capacity: int, classes: int, label: Callable[[Any], Int[Array, " n"]]) -> Memory:
    """Keeps a uniform sample of every class, `capacity // classes` examples each, in slots of its own.

    Args:
      capacity: examples in all; a multiple of `classes`.
      classes: how many classes there will be.
      label: gives the class of each example of a batch, in 0..classes-1; examples of any other class are not kept.
    """
    if capacity < 1 or classes < 1 or capacity % classes:
        raise UsageError(f"capacity={capacity} must be a positive multiple of classes={classes}.")
    quota = capacity // classes

    def slots(seen, batch, key):
        group = jnp.where(finite(batch), label(batch).astype(jnp.int32), NO_GROUP)
        rank, seen = _ranks(seen, group)
        drawn = jnp.where(rank < quota, rank, jax.random.randint(key, rank.shape, 0, rank + 1))
        keep = (drawn < quota) & (group >= 0) & (group < classes)
        return jnp.where(keep, group * quota + drawn, capacity), seen

    return _memory(capacity, classes, slots)


def ring(capacity: int) -> Memory:
    """Keeps the newest `capacity` examples; the key given to `add` is not used.

    >>> memory = ring(3)
    >>> memory.add(memory.init(jnp.int32(0)), jnp.arange(5), jax.random.key(0)).items.tolist()
    [3, 4, 2]
    """
    if capacity < 1:
        raise UsageError(f"capacity={capacity} must be at least 1.")

    def slots(seen, batch, key):
        del key
        fine = finite(batch)
        rank, seen = _ranks(seen, jnp.where(fine, 0, NO_GROUP))
        return jnp.where(fine, rank % capacity, capacity), seen

    return _memory(capacity, 1, slots)


def greedy_balanced(capacity: int, classes: int, label: Callable[[Any], Int[Array, " n"]]) -> Memory:
    """Keeps as many of every class met so far, `capacity / classes met`; all slots are in use from the first class on.

    An example whose class has less than its share is kept; when there is no room, one of the largest class, drawn at
    random, makes place. Unlike `class_balanced` nothing is held free for classes to come, and within a class what came
    first stays. Examples come one by one, which takes longer than the other policies.

    Args:
      capacity: examples in all.
      classes: how many classes there may be.
      label: gives the class of each example of a batch, in 0..classes-1; examples of any other class are not kept.

    Reference: Prabhu et al. 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning",
    algorithm 1.

    >>> memory = greedy_balanced(4, classes=2, label=lambda batch: batch)
    >>> state = memory.add(memory.init(jnp.int32(0)), jnp.array([0, 0, 0, 0, 0, 1, 1, 1]), jax.random.key(0))
    >>> sorted(state.items.tolist())
    [0, 0, 1, 1]
    """
    if capacity < 1 or classes < 1:
        raise UsageError(f"capacity={capacity} and classes={classes} must be at least 1.")

    def place(state, group, key):
        """Returns the slot for an example of a class, `capacity` where it is not kept, and what was offered so far."""
        seen = state.seen + jax.nn.one_hot(group, classes, dtype=jnp.int32)
        full = stored(state)
        member = full[:, None] & (label(state.items)[:, None] == jnp.arange(classes))
        held = member.sum(0)
        wanted = (held[group] * (seen > 0).sum() < capacity) & (group >= 0) & (group < classes)
        leaving = jax.random.categorical(key, jnp.where(member[:, jnp.argmax(held)], 0.0, -jnp.inf))
        slot = jnp.where(full.all(), leaving, jnp.argmin(full))
        return jnp.where(wanted, slot, capacity), seen

    def add_one(state, given):
        example, group, key = given
        slot, seen = place(state, group, key)
        return write(state._replace(seen=seen), slot, example), None

    def add(state, batch, key):
        group = jnp.where(finite(batch), label(batch).astype(jnp.int32), NO_GROUP)
        return jax.lax.scan(add_one, state, (batch, group, jax.random.split(key, _length(batch))))[0]

    return Memory(lambda example: _blank(example, capacity, classes), add)


def sample(state: MemoryState, n: int, key: PRNGKeyArray, among: Array | None = None) -> Any:
    """Draws n examples, uniform over the slots `among` (bool [capacity]; default: all that are stored)."""
    count = jnp.cumsum(stored(state) if among is None else among)
    ticket = jax.random.randint(key, (n,), 0, jnp.maximum(count[-1], 1))
    slot = jnp.minimum(jnp.searchsorted(count, ticket + 1), count.size - 1)
    return jax.tree.map(lambda kept: kept[slot], state.items)


def sample_distinct(
    state: MemoryState, n: int, key: PRNGKeyArray, among: Array | None = None
) -> tuple[Any, Float[Array, " drawn"]]:
    """Draws n examples without replacement, or all where fewer are stored, and says how much each weighs.

    Args are those of `sample`. Returns min(n, capacity) examples and weights that sum to 1: equal for those that were
    drawn, 0 for what fills up the shape (all 0 from an empty memory).

    >>> memory = ring(4)
    >>> state = memory.add(memory.init(jnp.int32(0)), jnp.array([5, 6]), jax.random.key(0))
    >>> drawn, weights = sample_distinct(state, 3, jax.random.key(1))
    >>> sorted(drawn[:2].tolist()), weights.tolist()
    ([5, 6], [0.5, 0.5, 0.0])
    """
    held = stored(state) if among is None else among
    shuffled = jnp.argsort(jnp.where(held, jax.random.uniform(key, held.shape), 2.0))[:n]  # those held come first
    weights = held[shuffled] / jnp.maximum(held[shuffled].sum(), 1)
    return jax.tree.map(lambda kept: kept[shuffled], state.items), weights


def sample_or(state: MemoryState, n: int, key: PRNGKeyArray, batch: Any) -> tuple[Any, Array]:
    """Draws as `sample`, and says whether there was anything to draw.

    From an empty memory it returns n times the first of `batch`: a loss may have no gradient at blank examples.
    """
    some, drawn = stored(state).any(), sample(state, n, key)
    return jax.tree.map(lambda kept, new: jnp.where(some, kept, new[:1]), drawn, batch), some


def rehearse(updates: Any, loss: Callable[[Any], Array], params: Any, some: Array | bool = True) -> Any:
    """Returns `updates` plus the gradient of `loss(params)` on replayed examples; unchanged where `some` is False.

    Args:
      updates: a tree like the weights, or a part of it inside `optax.masked`.
      loss: `(params) -> scalar`, on examples that `sample` drew.
      params: every weight (`neuroml.core.whole`).
      some: bool, whether there was anything to draw.
    """
    gradient = jax.grad(loss)(params)
    # Without anything to replay the loss is that of blank examples: where it has no gradient there, NaN * 0 is NaN.
    add = lambda u, g: u + jnp.where(some, g, 0).astype(u.dtype)
    return jax.tree.map(add, updates, core.visible(gradient, updates))


def tick(state: MemoryState) -> MemoryState:
    """Moves the clock on: everything stored so far counts as older than what comes."""
    return state._replace(clock=state.clock + 1)


def older(state: MemoryState) -> Array:
    """Says of each slot whether it was written before the last `tick`; shape [capacity]."""
    return (state.stamp != EMPTY) & (state.stamp < state.clock)


def stored(state: MemoryState) -> Array:
    """Says of each slot whether it holds an example; shape [capacity]."""
    return state.stamp != EMPTY


def finite(batch: Any) -> Bool[Array, " n"]:
    """Says of each example whether all its numbers are finite."""
    each = lambda leaf: jnp.isfinite(leaf).all(range(1, jnp.ndim(leaf)))
    return jnp.stack([each(leaf) for leaf in jax.tree.leaves(batch)]).all(0)


def _memory(capacity: int, groups: int, slots: Callable) -> Memory:
    def add(state, batch, key):
        slot, seen = slots(state.seen, batch, key)
        return write(state._replace(seen=seen), _last_of_each(slot, capacity), batch)

    return Memory(lambda example: _blank(example, capacity, groups), add)


def _blank(example: Any, capacity: int, groups: int) -> MemoryState:
    blank = lambda leaf: jnp.zeros((capacity, *jnp.shape(leaf)), jnp.result_type(leaf))
    stamp, clock, seen = jnp.full(capacity, EMPTY, jnp.int32), jnp.int32(0), jnp.zeros(groups, jnp.int32)
    return MemoryState(jax.tree.map(blank, example), stamp, clock, seen)


def write(state: MemoryState, slot: Array, new: Any) -> MemoryState:
    """Puts one example into a slot, or several into as many slots; a slot beyond the last one takes nothing."""
    put = lambda kept, new: kept.at[slot].set(new.astype(kept.dtype), mode="drop")
    stamp = state.stamp.at[slot].set(state.clock, mode="drop")
    return state._replace(items=jax.tree.map(put, state.items, new), stamp=stamp)


def _ranks(seen: Array, group: Array) -> tuple[Array, Array]:
    """Returns how many of its group came before each example, and the new totals."""
    member = jax.nn.one_hot(group, seen.size, dtype=jnp.int32)  # [n, groups]
    before = seen + jnp.cumsum(member, axis=0) - member
    return jnp.take_along_axis(before, group[:, None], axis=1)[:, 0], seen + member.sum(0)


def _last_of_each(slot: Array, nowhere: int) -> Array:
    """Sends all but the last example of each slot nowhere: a scatter with repeated indices has no defined order."""
    order = jnp.arange(slot.size)
    last = jnp.full(nowhere + 1, -1).at[slot].max(order)
    return jnp.where(last[slot] == order, slot, nowhere)


def _length(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]
