"""Discriminants in closed form: classes are the means of their features, judged by one covariance or by none."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import additive, losses
from neuroml.errors import UsageError, unknown
from neuroml.learner import Learner, LearnerState, StepInfo, around, inner_state
from neuroml.streams.stream import Batch

COVARIANCE = ("shared", "identity")


class DiscriminantState(NamedTuple):
    """Beside the weights: sums over all examples so far, and the linear answers that `settle` made of them."""

    inner: Any
    statistics: additive.Additive  # `cross` holds the sum of features of each class
    number: Float[Array, " outputs"]  # examples of each class
    weights: Float[Array, "features outputs"]
    bias: Float[Array, " outputs"]


def discriminant(
    inner: Learner,
    represent: Callable[[Any, Batch], Array],
    width: int,
    outputs: int,
    *,
    covariance: str = "shared",
    shrinkage: ArrayLike = 1e-4,
) -> Learner:
    r"""Makes the learner that answers with the class whose mean is nearest, as a covariance measures distance.

        mean_c   = mean of represent(x) over all x of class c so far
        S        = mean over all x so far of (represent(x) - mean_c)(represent(x) - mean_c)^T
        L        = ((1 - shrinkage) S + shrinkage I)^-1      ("identity": L = I)
        answer_c = mean_c^T L represent(x) - mean_c^T L mean_c / 2;  classes never met are switched off

    "shared" is streaming linear discriminant analysis, "identity" the nearest class mean. Both are functions of sums:
    examples may come in any order, and one by one.

    Args:
      inner: what the features are of, such as `neuroml.recall.fixed`; it is trained as it likes.
      represent: `(params, batch) -> [n, width]`.
      width: number of features.
      outputs: number of classes.
      covariance: "shared" or "identity".
      shrinkage: in (0, 1], keeps the shared covariance invertible: features that never vary make it singular.

    Returns:
      A `Learner`; the loss that its steps report is zero. Examples whose features are not finite are left out.

    Raises:
      UsageError: an unknown covariance, or a shrinkage out of range.

    Reference:
      Hayes and Kanan 2020, "Lifelong machine learning with deep streaming linear discriminant analysis", CVPR
      workshops; nearest class mean: Mensink et al. 2013.

    How ours differs: the covariance is that around the final means, where theirs is around the means as they were when
    an example came, which depends on the order; and it learns from the first example, with no set to begin from.

    >>> from neuroml import features, recall
    >>> shown = Batch(jnp.eye(2).reshape(2, 2, 1, 1), jnp.arange(2), jnp.zeros(2, int), jnp.ones((2, 2), bool))
    >>> example = jax.tree.map(lambda leaf: leaf[0], shown)
    >>> inner, represent = recall.fixed(features.pixels(), example, 1.0), recall.of_features(features.pixels(), 1.0)
    >>> learner = discriminant(inner, represent, 2, 2, covariance="identity")
    >>> state, _ = learner.step(learner.init(jax.random.key(0)), shown, jax.random.key(1))
    >>> learner.predict(learner.settle(state), shown).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    if covariance not in COVARIANCE:
        raise unknown("covariance", covariance, COVARIANCE)
    if covariance == "shared" and isinstance(shrinkage, float | int) and not 0 < shrinkage <= 1:
        raise UsageError(f"shrinkage={shrinkage} must be in (0, 1]: without it a covariance may be singular.")
    padding = additive.even(width) - width

    def init(key):
        state, number, bias = inner.init(key), jnp.zeros(outputs), jnp.zeros(outputs)
        statistics = additive.empty(width + padding, outputs)
        weights = jnp.zeros((width, outputs))
        return LearnerState(state.params, DiscriminantState(state.opt_state, statistics, number, weights, bias))

    def step(state, batch, key):
        own, targets = state.opt_state, jax.nn.one_hot(batch.y, outputs)
        x = jnp.pad(represent(state.params, batch), ((0, 0), (0, padding)))
        fine = jnp.isfinite(x).all(1)  # one number that is not would make all answers NaN for good
        x, targets = (jnp.where(fine[:, None], rows, 0) for rows in (x, targets))
        right = losses.correct(predict(state, batch), batch.y).mean()
        after, _ = inner.step(inner_state(state), batch, key)
        kept = {"statistics": additive.add(own.statistics, x, targets, fine), "number": own.number + targets.sum(0)}
        own = own._replace(inner=after.opt_state, **kept)
        return LearnerState(after.params, own), StepInfo(jnp.zeros(()), right)

    def settle(state):
        own = state.opt_state
        means = own.statistics.cross[:width] / jnp.maximum(own.number, 1)  # [width, outputs]
        weights = means
        if covariance == "shared":
            gram = additive.unpack(own.statistics.gram)[:width, :width]
            scatter = (gram - (means * own.number) @ means.T) / jnp.maximum(own.statistics.count, 1)
            factor = jax.scipy.linalg.cho_factor((1 - shrinkage) * scatter + shrinkage * jnp.eye(width))
            weights = jax.scipy.linalg.cho_solve(factor, means)
        return state._replace(opt_state=own._replace(weights=weights, bias=-(means * weights).sum(0) / 2))

    def predict(state, batch):
        own = state.opt_state
        answers = represent(state.params, batch) @ own.weights + own.bias
        return losses.mask_outputs(answers, batch.active & (own.number > 0))

    return around(inner, init, step, predict=predict, settle=settle)
