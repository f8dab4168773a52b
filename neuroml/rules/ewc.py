"""Elastic weight consolidation: pull every weight towards where it was, as hard as it mattered."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, quadratic
from neuroml.errors import UsageError

ANCHORS = ("separate", "latest")


class EWCState(NamedTuple):
    """State of `ewc`. `anchor` and `importance` mirror the weights; before the first consolidation all is zero pull."""

    anchor: Any  # like params: the importance-weighted mean of the anchors so far, or the latest one
    importance: Any  # like params, float32: sum of the Fisher diagonals so far
    offset: jax.Array  # (): what the sum of separate pulls costs even at their common anchor
    separate: jax.Array  # (), bool
    strength: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "decay")
    importances = ("importance",)
    anchors = ("anchor",)

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength / 2 * sum_k sum_i importance_ki * (params_i - anchor_ki)**2` over consolidations k."""
        joined = quadratic.penalty(params, self.anchor, self.importance, self.strength / 2)
        return joined + self.strength / 2 * self.offset

    def consolidate(self, params: Any, *, importance: Any, **_: Any) -> "EWCState":
        """Anchors the weights where they are now, each as hard as `importance` (a tree like the weights) says."""
        here, new = core.remembered(params, self.anchor), core.visible(importance, self.anchor, "importance")
        old = jax.tree.map(lambda f: self.decay * f, self.importance)
        total = jax.tree.map(lambda f, g: f + g.astype(f.dtype), old, new)
        share = jax.tree.map(lambda f, t: jnp.where(self.separate & (t > 0), f / jnp.where(t > 0, t, 1), 0), old, total)
        # Two quadratics add up to one around their weighted mean, plus a constant: f g / (f + g) * distance**2.
        apart = jax.tree.map(
            lambda s, g, a, p: jnp.sum(s * g * (p - a).astype(s.dtype) ** 2), share, new, self.anchor, here
        )
        anchor = jax.tree.map(lambda s, a, p: (p + s * (a - p)).astype(p.dtype), share, self.anchor, here)
        offset = self.decay * self.offset + optax.tree.sum(apart)
        return self._replace(anchor=anchor, importance=total, offset=offset.astype(self.offset.dtype))


def ewc(
    strength: ArrayLike,
    *,
    decay: ArrayLike = 1.0,
    anchors: str = "separate",
    step_size: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Elastic weight consolidation: weights that mattered are held where they were, as by springs.

    With F_k the importance given at consolidation k (a Fisher diagonal, `neuroml.fisher`) and a_k the weights then,
    after K consolidations:

        penalty(params) = strength / 2 * \sum_k decay^(K - k) \sum_i F_ki (params_i - a_ki)^2

    Args:
      strength: how hard the springs pull; >= 0. It means nothing without the name of the Fisher estimator.
      decay: factor in [0, 1] by which older importances shrink at each consolidation (online EWC's gamma).
      anchors: "separate" keeps every a_k, as the paper does. "latest" moves all springs to the newest weights, as
        online EWC does.
      step_size: None adds the gradient of the penalty to the gradient of the loss: put the rule *before* the
        optimizer. A number applies the pull implicitly to the finished step, which is stable at any strength: put
        the rule *last* in the chain and give the optimizer's learning rate.

    Returns:
      A rule. `neuroml.consolidate(opt_state, params, importance=...)` sets the springs.

    Reference:
      Kirkpatrick et al. 2017, PNAS 114:3521; separate anchors against one: Huszar 2018, PNAS 115:E2496; online EWC
      with decay: Schwarz et al. 2018, ICML.

    How ours differs: separate anchors take the memory of one. A sum of quadratics is one quadratic around the weighted
    mean of their anchors plus a constant, so `anchor` holds that mean and `offset` the constant, and the gradient is
    that of the paper to rounding. The newest importance counts whole; Schwarz's loss shrinks it by the decay too, a
    factor on the strength. The implicit form is ours.

    >>> import neuroml
    >>> params = {"w": jnp.array([1.0, 1.0])}
    >>> tx = optax.chain(neuroml.ewc(strength=2.0), optax.sgd(0.1))
    >>> opt_state = neuroml.consolidate(tx.init(params), params, importance={"w": jnp.array([1.0, 0.0])})
    >>> moved, no_gradient = {"w": jnp.array([2.0, 2.0])}, {"w": jnp.zeros(2)}
    >>> steps, opt_state = tx.update(no_gradient, opt_state, moved)
    >>> steps["w"].tolist()  # only the weight that mattered is pulled back: -0.1 * 2 * 1 * (2 - 1)
    [-0.20000000298023224, -0.0]
    """
    if anchors not in ANCHORS:
        raise UsageError(f"anchors={anchors!r} is not one of {ANCHORS}.")

    def init(params):
        return EWCState(
            anchor=core.remembered(params, params),
            importance=quadratic.like_params(params),
            offset=core.leaf(0.0),
            separate=core.leaf(anchors == "separate", bool),
            strength=core.leaf(strength),
            decay=core.leaf(decay),
        )

    def ewc(updates, state, params, **_):
        state = core.live(state, strength=strength, decay=decay)
        spring = (params, state.anchor, state.importance, state.strength / 2)
        if step_size is None:
            return quadratic.pull(updates, *spring), state
        return quadratic.pull_implicitly(updates, *spring, core.leaf(step_size)), state

    return core.rule(init, ewc)
