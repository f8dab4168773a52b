"""Learning without forgetting: on new examples the network must still say what it said before."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import core, losses
from neuroml.errors import UsageError, unknown

WEIGHTING = ("constant", "tasks")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Teaching:
    """How a network is asked. A tree node without leaves; compares by value, so rules made alike have states alike."""

    predict: Callable[[Any, Any], jax.Array]
    labels: Callable[[Any], jax.Array] | None
    weighting: str

    def soften(self, params: Any, batch: Any, known: Bool[Array, " outputs"], temperature: Array) -> Array:
        """Returns log probabilities [n, outputs] among the known outputs."""
        answers = losses.mask_outputs(self.predict(params, batch).astype(jnp.float32), known)
        return jax.nn.log_softmax(answers / temperature)


class LwFState(NamedTuple):
    """State of `lwf`."""

    teacher: Any  # like params: the weights at the last consolidation
    known: jax.Array  # [outputs] bool: outputs that the teacher has been taught
    seen: jax.Array  # [outputs] bool: outputs that have been taught so far
    lessons: jax.Array  # () int32: consolidations so far
    strength: jax.Array  # ()
    temperature: jax.Array  # ()
    teaching: Teaching

    hyperparameters = ("strength", "temperature")
    untouched = ("teacher",)

    def penalty(self, params: Any, *, batch: Any, **_: Any) -> Float[Array, ""]:
        """Returns the weighted cross-entropy between what the teacher and the network say of the batch."""
        ask = lambda weights: self.teaching.soften(weights, batch, self.known, self.temperature)
        teacher = jnp.exp(jax.lax.stop_gradient(ask(self.teacher)))
        apart = -jnp.sum(teacher * jnp.where(self.known, ask(params), 0), axis=-1).mean()
        weight = self.lessons if self.teaching.weighting == "tasks" else self.lessons > 0
        return self.strength * weight * self.temperature**2 * apart

    def consolidate(self, params: Any, **_: Any) -> "LwFState":
        """Makes the network of now the teacher."""
        teacher, known = core.remembered(params, self.teacher), jnp.copy(self.seen)  # a loop may donate both
        return self._replace(teacher=teacher, known=known, lessons=self.lessons + 1)


def lwf(
    predict: Callable[[Any, Any], jax.Array],
    *,
    outputs: int,
    labels: Callable[[Any], jax.Array] | None = None,
    strength: ArrayLike = 1.0,
    temperature: ArrayLike = 2.0,
    weighting: str = "constant",
) -> optax.GradientTransformationExtraArgs:
    r"""Learning without forgetting: distills the network of the last consolidation, with the new examples as inputs.

    With q and p what the teacher and the network answer to the batch, softmax(logits / temperature) over the known
    outputs,

        penalty = strength * temperature^2 * mean_x( -\sum_o q_o log p_o )
        updates = gradient + d penalty / d params

    Args:
      predict: `(params, batch) -> logits [n, outputs]`.
      outputs: width of the network's answer.
      labels: `(batch) -> [n] int`, the output that each example is taught. If given, only outputs that had been
        taught by the last consolidation are distilled; default: all.
      strength: weight of the distillation beside the loss of the new examples; 0 is inert.
      temperature: > 0; larger ones tell more of the outputs that are not the largest.
      weighting: "constant", or "tasks": the penalty weighs as much as the consolidations so far.

    Returns:
      A rule that needs the word `batch`. Put it before the optimizer. It sees all weights: not inside `optax.masked`.

    Raises:
      UsageError: a number out of range, an unknown weighting, or hidden weights.

    Reference:
      Li and Hoiem 2016, "Learning without forgetting", ECCV; distillation: Hinton et al. 2015. "tasks" gives the
      weights 1/k and 1 - 1/k of van de Ven et al. 2022, up to a common factor.

    How ours differs: one softmax over all known outputs, also where heads belong to tasks (the paper: one a head); no
    warm-up of a new head with the rest held still; temperature^2 as in Hinton, which the paper leaves out.

    >>> predict = lambda w, x: x @ w
    >>> tx = lwf(predict, outputs=2, temperature=1.0)
    >>> w, x = jnp.zeros((1, 2)), jnp.ones((1, 1))
    >>> state = core.consolidate(tx.init(w), w)                                # taught: both outputs alike
    >>> added, _ = tx.update(jnp.zeros((1, 2)), state, jnp.log(jnp.array([[3.0, 1.0]])), batch=x)
    >>> added.round(3).tolist()                                                # p - q
    [[0.25, -0.25]]
    """
    if weighting not in WEIGHTING:
        raise unknown("weighting", weighting, WEIGHTING)
    if outputs < 1 or (isinstance(temperature, float | int) and temperature <= 0):
        raise UsageError(f"outputs={outputs} must be at least 1, and temperature={temperature} above 0.")
    teaching, width = Teaching(predict, labels, weighting), outputs

    def init(params):
        if any(core.is_hidden(leaf) for leaf in jax.tree.leaves(params, is_leaf=core.is_hidden)):
            raise UsageError("lwf asks a copy of the whole network, so `optax.masked` must hide no weight from it.")
        known, seen = (jnp.full(width, labels is None) for _ in range(2))
        given = core.leaf(strength), core.leaf(temperature)
        return LwFState(core.remembered(params, params), known, seen, jnp.zeros((), jnp.int32), *given, teaching)

    def lwf(updates, state, params, *, batch, **_):
        state = core.live(state, strength=strength, temperature=temperature)
        pull = jax.grad(lambda weights: state.penalty(weights, batch=batch))(params)
        add = lambda u, g: u + jnp.where(state.lessons > 0, g, 0).astype(u.dtype)
        seen = state.seen if labels is None else state.seen | losses.classes_in(labels(batch), width)
        return jax.tree.map(add, updates, pull), state._replace(seen=seen)

    return core.rule(init, lwf)
