"""A-GEM: a step that would undo what stored examples taught is turned until it does not."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, memory
from neuroml.errors import UsageError

TINY = 1e-30


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Reference:
    """The loss on the past. A tree node without leaves; compares by value, so rules made alike have states alike."""

    loss: Callable[[Any, Any], jax.Array]
    batch_size: int
    store: memory.Memory
    each: int

    def gradient(self, params: Any, stored: memory.MemoryState, key: Any) -> Any:
        """Returns the gradient of the loss on examples of earlier tasks."""
        past, weights = memory.sample_distinct(stored, self.batch_size, key, memory.older(stored))
        # What fills up the shape weighs 0 but may have no gradient, and 0 * NaN is NaN: the first one stands in for it.
        place = jnp.where(weights > 0, jnp.arange(weights.size), 0)
        alone = jax.tree.map(lambda leaf: leaf[place, None], past)  # batches of one: few may be stored, all weigh alike

        def mean(params):
            return weights @ jax.vmap(self.loss, (None, 0))(params, alone)

        return jax.grad(mean)(params)

    def keep(self, stored: memory.MemoryState, data: Any, key: Any) -> memory.MemoryState:
        """Stores as many examples of a task that ends as it is due, drawn at random."""
        core.require("agem with `each`", ("data", "key"), {"data": data, "key": key})
        given = jax.tree.leaves(data)[0].shape[0]
        if given < self.each:
            raise UsageError(f"agem stores each={self.each} examples of a task, and `data` has {given}.")
        drawn = jax.random.permutation(key, given)[: self.each]
        return self.store.add(stored, jax.tree.map(lambda leaf: leaf[drawn], data), key)


class AGEMState(NamedTuple):
    """State of `agem`."""

    memory: memory.MemoryState
    strength: jax.Array  # ()
    turned: jax.Array  # () int32: how many updates were turned
    reference: Reference

    hyperparameters = ("strength",)

    def consolidate(self, params: Any, *, data: Any = None, key: Any = None, **_: Any) -> "AGEMState":
        """Marks all that is stored as past: steps may not undo it from now on."""
        del params
        stored = self.reference.keep(self.memory, data, key) if self.reference.each else self.memory
        return self._replace(memory=memory.tick(stored))

    def report(self) -> dict[str, jax.Array]:
        """Returns how many updates disagreed with the past."""
        return {"turned": self.turned.astype(jnp.float32)}


def agem(
    loss: Callable[[Any, Any], jax.Array],
    example: Any,
    store: memory.Memory,
    *,
    batch_size: int,
    each: int = 0,
    strength: ArrayLike = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Averaged gradient episodic memory: takes out of the gradient what raises the mean loss on the past.

    With g the gradient and r that of the loss on a batch of stored examples of earlier tasks,

        updates = g - strength * (g . r) / (r . r) * r      where g . r < 0
        updates = g                                         elsewhere

    Args:
      loss: `(params, batch) -> scalar`, a mean over the batch; here of single examples.
      example: one example without its batch axis, for the shapes: any tree that `loss` takes in batches.
      store: what to keep: `neuroml.memory.reservoir(200)`, `ring`, `class_balanced`.
      batch_size: how many stored examples make r.
      each: examples of a task that are stored as it ends, drawn from the word `data` of `neuroml.consolidate` by its
        `key`. Default 0: every batch is offered to `store` while it is learnt.
      strength: 0 is inert, 1 the projection.

    Returns:
      A rule that needs the words `batch` and `key` (and, inside `optax.masked`, `all_params`). Put it before the
      optimizer. Before the first consolidation nothing is past, and nothing happens. Inside `optax.MultiSteps` it sees
      and stores the last of each group of batches only.

    Raises:
      UsageError: a number out of range; at a consolidation, fewer examples than `each`.

    Reference:
      Chaudhry et al. 2019, "Efficient lifelong learning with A-GEM", ICLR, equation 11.

    How ours differs: the authors' code and Mammoth's store a fixed share of the capacity as a task ends, which `each`
    does; by default nothing need be known of tasks to come.

    >>> loss = lambda w, batch: jnp.mean(batch @ w)
    >>> tx = agem(loss, jnp.zeros(2), memory.ring(1), batch_size=1)
    >>> w, words = jnp.zeros(2), {"batch": jnp.array([[1.0, 0.0]]), "key": jax.random.key(0)}
    >>> _, state = tx.update(jnp.ones(2), tx.init(w), w, **words)
    >>> state = core.consolidate(state, w)                                     # on the past, the gradient is (1, 0)
    >>> tx.update(jnp.array([-2.0, 3.0]), state, w, **words)[0].tolist()       # would raise the loss there
    [0.0, 3.0]
    """
    if batch_size < 1 or each < 0:
        raise UsageError(f"batch_size={batch_size} must be at least 1, and each={each} at least 0.")
    reference = Reference(loss, batch_size, store, each)

    def init(params):
        del params
        return AGEMState(store.init(example), core.leaf(strength), jnp.zeros((), jnp.int32), reference)

    def agem(updates, state, params, *, batch, key, all_params=None, **_):
        state = core.live(state, strength=strength)
        for_past, for_store = jax.random.split(key)
        past = reference.gradient(core.whole("agem", params, all_params), state.memory, for_past)
        past = core.visible(past, updates)
        along = _dot(updates, past)
        turn = memory.older(state.memory).any() & (along < 0)  # NaN, from a blank memory say, is not less
        share = state.strength * along / jnp.maximum(_dot(past, past), TINY)
        away = lambda u, r: jnp.where(turn, u - share.astype(u.dtype) * r.astype(u.dtype), u)
        kept = state.memory if each else store.add(state.memory, batch, for_store)
        return jax.tree.map(away, updates, past), state._replace(memory=kept, turned=state.turned + turn)

    return core.rule(init, agem)


def _dot(one: Any, other: Any) -> jax.Array:
    """Returns the sum of products of two trees, in float32: bfloat16 would round each array's part of it."""
    wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
    return jnp.asarray(optax.tree.vdot(wide(one), wide(other)))
