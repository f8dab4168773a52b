"""ER-ACE: experience replay in which new examples compete among the classes of their own batch only."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, losses, memory
from neuroml.errors import UsageError


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Asymmetry:
    """The two losses. A tree node without leaves; compares by value, so rules made alike have states alike."""

    predict: Callable[[Any, Any], jax.Array]
    loss: Callable[[Any, Any], jax.Array]
    label: Callable[[Any], jax.Array]
    batch_size: int

    def among(self, classes: jax.Array, params: Any, examples: Any) -> jax.Array:
        """Returns the mean cross-entropy with a softmax over `classes` ([outputs] bool) alone."""
        answers = losses.mask_outputs(self.predict(params, examples), classes)
        return losses.cross_entropy(answers, self.label(examples))

    def replayed(self, seen: jax.Array, params: Any, batch: Any, stored: memory.MemoryState, key: Any) -> jax.Array:
        """Returns the loss on drawn examples among the classes seen; zero where nothing is stored."""
        examples, some = memory.sample_or(stored, self.batch_size, key, batch)
        return jnp.where(some, self.among(seen, params, examples), 0.0)


class ERACEState(NamedTuple):
    """State of `er_ace`."""

    memory: memory.MemoryState
    seen: jax.Array  # [outputs] bool: classes met so far
    strength: jax.Array  # ()
    asymmetry: Asymmetry

    hyperparameters = ("strength",)

    def penalty(self, params: Any, *, batch: Any, key: Any, **_: Any) -> jax.Array:
        """Returns what the loss on the batch is exchanged for, less that loss, times `strength`."""
        here = self.present(batch)
        new = self.asymmetry.among(here, params, batch)
        old = self.asymmetry.replayed(self.seen | here, params, batch, self.memory, jax.random.split(key)[0])
        return self.strength * (new + old - self.asymmetry.loss(params, batch))

    def present(self, batch: Any) -> jax.Array:
        """Says of each class whether it is in the batch; shape [outputs]."""
        return losses.classes_in(self.asymmetry.label(batch), self.seen.size)

    def consolidate(self, params: Any, **_: Any) -> "ERACEState":
        """Marks all that is stored as past, for whoever reads the memory; what is replayed stays the same."""
        del params
        return self._replace(memory=memory.tick(self.memory))


def er_ace(
    predict: Callable[[Any, Any], jax.Array],
    loss: Callable[[Any, Any], jax.Array],
    label: Callable[[Any], jax.Array],
    example: Any,
    store: memory.Memory,
    *,
    outputs: int,
    batch_size: int,
    strength: ArrayLike = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""ER-ACE: new examples compete among the classes of their batch only, replayed ones among all classes met.

    With CE(x, y; C) the mean of -log of the softmax over the outputs in C, at y,

        exchanged = CE(new examples; classes in the batch) + CE(replayed examples; classes met so far)
        updates   = gradient + strength * d (exchanged - loss(params, batch)) / d params

    So with `strength` 1 the gradient of `loss` is exchanged. New classes then do not push down the outputs of old ones,
    and what stands for the old ones does not move abruptly where a task begins.

    Args:
      predict: `(params, batch) -> [n, outputs]`.
      loss: `(params, batch) -> scalar`, the mean cross-entropy whose gradient the rule is given.
      label: `(batch) -> [n]` int, in 0..outputs-1.
      example: one example without its batch axis, for the shapes.
      store: what to keep: `neuroml.memory.reservoir(200)`, `ring`, `class_balanced`, `greedy_balanced`.
      outputs: number of classes.
      batch_size: how many examples are replayed at each step.
      strength: how much of the loss is exchanged; in [0, 1].

    Returns:
      A rule that needs the words `batch` and `key` (and, inside `optax.masked`, `all_params`). Put it before the
      optimizer. Before anything is stored, only the new examples count.

    Raises:
      UsageError: `outputs` or `batch_size` below 1.

    Reference:
      Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change in Online Continual Learning", ICLR,
      equation 4 and section 4.1.

    How ours differs: replayed examples are drawn with replacement, and also from the current task.

    >>> import neuroml
    >>> predict = lambda w, x: jnp.stack([w * x, 0 * x], axis=1)
    >>> label = lambda x: jnp.zeros(x.shape, int)
    >>> loss = lambda w, x: losses.cross_entropy(predict(w, x), label(x))
    >>> rule = er_ace(predict, loss, label, jnp.float32(0), memory.ring(4), outputs=2, batch_size=1)
    >>> w, x = jnp.float32(0), jnp.array([1.0])
    >>> plain = jax.grad(loss)(w, x)
    >>> exchanged, _ = rule.update(plain, rule.init(w), w, batch=x, key=jax.random.key(0))
    >>> float(plain), float(exchanged)                    # alone in its batch, a class has nothing to compete with
    (-0.5, 0.0)
    """
    for name, value in {"batch_size": batch_size, "outputs": outputs}.items():
        if value < 1:
            raise UsageError(f"{name}={value} must be at least 1.")
    asymmetry = Asymmetry(predict, loss, label, batch_size)

    def init(params):
        del params
        return ERACEState(store.init(example), jnp.zeros(outputs, bool), core.leaf(strength), asymmetry)

    def er_ace(updates, state, params, *, batch, key, all_params=None, **_):
        state = core.live(state, strength=strength)
        exchange = lambda weights: state.penalty(weights, batch=batch, key=key)
        exchanged = memory.rehearse(updates, exchange, core.whole("er_ace", params, all_params))
        kept = store.add(state.memory, batch, jax.random.split(key)[1])
        return exchanged, state._replace(memory=kept, seen=state.seen | state.present(batch))

    return core.rule(init, er_ace)
