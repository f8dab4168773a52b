"""Dark experience replay (DER++): rehearse stored examples, and what the network answered to them."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, memory
from neuroml.errors import UsageError


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Distillation:
    """The two replayed losses. A tree node without leaves; compares by value, so rules made alike have states alike."""

    predict: Callable[[Any, Any], jax.Array]
    loss: Callable[[Any, Any], jax.Array]
    batch_size: int

    def to_answers(self, params: Any, stored: memory.MemoryState, key: Any) -> jax.Array:
        """Returns the mean squared distance from the stored answers to the present ones."""
        examples, answers = memory.sample(stored, self.batch_size, key)
        return jnp.mean((self.predict(params, examples).astype(answers.dtype) - answers) ** 2)

    def to_labels(self, params: Any, stored: memory.MemoryState, key: Any) -> jax.Array:
        """Returns the loss on replayed examples."""
        examples, _ = memory.sample(stored, self.batch_size, key)
        return self.loss(params, examples)


class DERPPState(NamedTuple):
    """State of `derpp`."""

    memory: memory.MemoryState  # of pairs (example, what the network answered when it came)
    strength: jax.Array  # ()
    distillation: jax.Array  # ()
    replay: Distillation

    hyperparameters = ("strength", "distillation")

    def penalty(self, params: Any, *, key: Any, **_: Any) -> jax.Array:
        """Returns the weighted sum of both losses on the examples that `update` replays with the same key."""
        for_answers, for_labels, _ = jax.random.split(key, 3)
        distilled = self.distillation * self.replay.to_answers(params, self.memory, for_answers)
        rehearsed = self.strength * self.replay.to_labels(params, self.memory, for_labels)
        return jnp.where(memory.stored(self.memory).any(), distilled + rehearsed, 0.0)

    def consolidate(self, params: Any, **_: Any) -> "DERPPState":
        """Marks all that is stored as past, for whoever reads the memory; what is replayed stays the same."""
        del params
        return self._replace(memory=memory.tick(self.memory))


def derpp(
    predict: Callable[[Any, Any], jax.Array],
    loss: Callable[[Any, Any], jax.Array],
    example: Any,
    store: memory.Memory,
    *,
    outputs: int,
    batch_size: int,
    distillation: ArrayLike = 0.5,
    strength: ArrayLike = 0.5,
) -> optax.GradientTransformationExtraArgs:
    r"""Dark experience replay (DER++): old examples are replayed with the network's own answers of the time.

    With (x', z') and (x'', y'') drawn independently from what is stored, z' the outputs when x' was learnt,

        updates = gradient + distillation * d mean((predict(params, x') - z')^2) / d params
                           + strength * d loss(params, (x'', y'')) / d params

    Args:
      predict: `(params, batch) -> [n, outputs]`.
      loss: `(params, batch) -> scalar`, a mean over the batch.
      example: one example without its batch axis, for the shapes: any tree that `predict` and `loss` take in batches.
      store: what to keep: `neuroml.memory.reservoir(200)`, `ring`, `class_balanced`. It is offered pairs
        `(batch, outputs)`, so the label function of `class_balanced` is one of the pair: `lambda pair: pair[0].y`.
      outputs: width of the network's answer.
      batch_size: how many examples each of the two losses replays at each step.
      distillation: weight of the answers (the paper's alpha); >= 0. With 0 this is `neuroml.er`, its draws aside.
      strength: weight of the labels (the paper's beta); >= 0. With 0 this is the paper's DER.

    Returns:
      A rule that needs the words `batch`, `key` and `outputs`, the network's outputs on the batch before the step
      (and, inside `optax.masked`, `all_params`). Put it before the optimizer. Nothing is replayed before something is
      stored. Inside `optax.MultiSteps` it sees and stores the last of each group of batches only.

    Reference:
      Buzzega et al. 2020, "Dark Experience for General Continual Learning", NeurIPS, equation 6 (DER: equation 5).

    How ours differs: examples are drawn with replacement. The distance is a mean over outputs as in the authors' code,
    where the paper writes a squared norm: its alpha is our `distillation / outputs`.

    >>> import neuroml
    >>> predict = lambda w, x: (w * x)[:, None]
    >>> loss = lambda w, x: jnp.mean(w * x)
    >>> tx = neuroml.derpp(predict, loss, jnp.float32(0), memory.ring(1), outputs=1, batch_size=2, distillation=1.0)
    >>> x, key = jnp.array([3.0]), jax.random.key(0)
    >>> w = jnp.float32(1)
    >>> _, state = tx.update(jnp.float32(0), tx.init(w), w, batch=x, outputs=predict(w, x), key=key)
    >>> w = jnp.float32(2)                                      # to the same example it now answers 6 instead of 3
    >>> added, _ = tx.update(jnp.float32(0), state, w, batch=x, outputs=predict(w, x), key=key)
    >>> float(added)                                            # 2 (6 - 3) * 3 + 0.5 * 3
    19.5
    """
    for name, value in {"batch_size": batch_size, "outputs": outputs}.items():
        if value < 1:
            raise UsageError(f"{name}={value} must be at least 1.")
    replay = Distillation(predict, loss, batch_size)
    width = outputs

    def init(params):
        del params
        stored = store.init((example, jnp.zeros(width)))
        return DERPPState(stored, core.leaf(strength), core.leaf(distillation), replay)

    def derpp(updates, state, params, *, batch, key, outputs, all_params=None, **_):
        state = core.live(state, strength=strength, distillation=distillation)
        replayed = lambda weights: state.penalty(weights, key=key)
        some = memory.stored(state.memory).any()
        rehearsed = memory.rehearse(updates, replayed, core.whole("derpp", params, all_params), some)
        kept = store.add(state.memory, (batch, outputs), jax.random.split(key, 3)[2])
        return rehearsed, state._replace(memory=kept)

    return core.rule(init, derpp)
