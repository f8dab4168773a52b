"""Experience replay: rehearse stored examples beside the new ones."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, memory
from neuroml.errors import UsageError, unknown

REPLAY = ("stored", "past")
WEIGHTING = ("constant", "tasks")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """The replayed loss. A tree node without leaves; compares by value, so rules made alike have states alike."""

    loss: Callable[[Any, Any], jax.Array]
    batch_size: int
    replay: str
    weighting: str

    def among(self, stored: memory.MemoryState) -> jax.Array:
        """Says of each slot whether it may be replayed; shape [capacity]."""
        return memory.older(stored) if self.replay == "past" else memory.stored(stored)

    def __call__(self, params: Any, stored: memory.MemoryState, strength: jax.Array, key: Any) -> jax.Array:
        """Returns the weighted loss on examples drawn with the first half of `key`; zero where there are none."""
        among = self.among(stored)
        weight = strength * (stored.clock if self.weighting == "tasks" else 1)
        replayed = memory.sample(stored, self.batch_size, jax.random.split(key)[0], among)
        return jnp.where(among.any(), weight * self.loss(params, replayed), 0.0)


class ERState(NamedTuple):
    """State of `er`."""

    memory: memory.MemoryState
    strength: jax.Array  # ()
    rehearsal: Rehearsal

    hyperparameters = ("strength",)

    def penalty(self, params: Any, *, key: Any, **_: Any) -> jax.Array:
        """Returns the weighted loss on the examples that `update` replays with the same key."""
        return self.rehearsal(params, self.memory, self.strength, key)

    def consolidate(self, params: Any, **_: Any) -> "ERState":
        """Marks all that is stored as past."""
        del params
        return self._replace(memory=memory.tick(self.memory))


def er(
    loss: Callable[[Any, Any], jax.Array],
    example: Any,
    store: memory.Memory,
    *,
    batch_size: int,
    strength: ArrayLike = 1.0,
    replay: str = "stored",
    weighting: str = "constant",
) -> optax.GradientTransformationExtraArgs:
    r"""Experience replay: the gradient of the loss on remembered examples is added to that of the new ones.

        updates = gradient + strength * d loss(params, replayed) / d params

    Args:
      loss: `(params, batch) -> scalar`, a mean over the batch.
      example: one example without its batch axis, for the shapes: any tree that `loss` takes in batches.
      store: what to keep: `neuroml.memory.reservoir(200)`, `ring`, `class_balanced`.
      batch_size: how many examples are replayed at each step.
      strength: weight of the replayed loss beside the loss of the new examples.
      replay: "stored" replays all that is stored, also of the current task. "past" replays only what was stored
        before the last consolidation, so nothing happens before the first.
      weighting: "constant", or "tasks": the replayed loss weighs as much as the consolidations so far, so that every
        task counts alike.

    Returns:
      A rule that needs the words `batch` and `key` (and, inside `optax.masked`, `all_params`). Put it before the
      optimizer. Inside `optax.MultiSteps` it sees and stores the last of each group of batches only.

    Reference:
      Ratcliff 1990; with a reservoir: Chaudhry et al. 2019, "On Tiny Episodic Memories". "past" and "tasks" together
      are the replay of van de Ven et al. 2022 up to a common factor: they divide both losses by the number of tasks.

    How ours differs: replayed examples are drawn with replacement. Codes that join both batches and take one mean have
    half our gradient (at equal batch sizes): halve the learning rate of SGD to match them.

    >>> import neuroml
    >>> loss = lambda w, x: jnp.mean((w - x) ** 2)
    >>> tx = neuroml.er(loss, jnp.float32(0), memory.ring(8), batch_size=4)
    >>> w = jnp.float32(1.0)
    >>> context = {"batch": jnp.zeros(2), "key": jax.random.key(0)}
    >>> first, state = tx.update(jnp.float32(0), tx.init(w), w, **context)    # nothing stored yet
    >>> second, state = tx.update(jnp.float32(0), state, w, **context)        # d (1 - 0)^2 / dw
    >>> float(first), float(second)
    (0.0, 2.0)
    """
    if replay not in REPLAY:
        raise unknown("choice of what to replay", replay, REPLAY)
    if weighting not in WEIGHTING:
        raise unknown("weighting", weighting, WEIGHTING)
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} must be at least 1.")
    rehearsal = Rehearsal(loss, batch_size, replay, weighting)

    def init(params):
        del params
        return ERState(store.init(example), core.leaf(strength), rehearsal)

    def er(updates, state, params, *, batch, key, all_params=None, **_):
        state = core.live(state, strength=strength)
        some = state.rehearsal.among(state.memory).any()
        replayed = lambda weights: state.penalty(weights, key=key)
        rehearsed = memory.rehearse(updates, replayed, core.whole("er", params, all_params), some)
        return rehearsed, state._replace(memory=store.add(state.memory, batch, jax.random.split(key)[1]))

    return core.rule(init, er)
