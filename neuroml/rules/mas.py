"""Memory aware synapses: hold the weights to which the network's answer is sensitive."""

from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

from neuroml import core, quadratic


class MASState(NamedTuple):
    """State of `mas`."""

    anchor: Any  # like params: the weights at the last consolidation
    importance: Any  # like params, float32: decayed sum of sensitivities
    strength: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "decay")
    importances = ("importance",)
    anchors = ("anchor",)

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength * sum_i importance_i * (params_i - anchor_i)**2`."""
        return quadratic.penalty(params, self.anchor, self.importance, self.strength)

    def consolidate(self, params: Any, *, importance: Any, **_: Any) -> "MASState":
        """Anchors the weights where they are now; `importance` comes from `neuroml.sensitivity`."""
        new = core.visible(importance, self.anchor, "importance")
        total = jax.tree.map(lambda f, g: self.decay * f + g.astype(f.dtype), self.importance, new)
        return self._replace(anchor=core.remembered(params, self.anchor), importance=total)


def mas(
    strength: ArrayLike, *, decay: ArrayLike = 1.0, step_size: ArrayLike | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Memory aware synapses: weights to which the outputs are sensitive are held where they were.

        penalty(params) = strength * \sum_i importance_i (params_i - anchor_i)^2
        importance      = decay * importance + mean_x |d ||f(x)||_2^2 / d params|

    Args:
      strength: how hard the weights are held; >= 0.
      decay: factor in [0, 1] by which older importances shrink at each consolidation.
      step_size: as in `neuroml.ewc`: None for the explicit form (rule first in the chain), the learning rate for
        the implicit one (rule last).

    Returns:
      A rule. `neuroml.consolidate(opt_state, params, importance=neuroml.sensitivity(...))` anchors the weights; no
      labels are needed.

    Reference:
      Aljundi et al. 2018, ECCV, equations 2 to 4.

    How ours differs: importances of successive tasks are summed (decay=1), the paper's "cumulative" form.

    >>> import jax.numpy as jnp, neuroml
    >>> params = {"w": jnp.ones(2)}
    >>> tx = neuroml.mas(strength=1.0)
    >>> state = neuroml.consolidate(tx.init(params), params, importance={"w": jnp.array([3.0, 0.0])})
    >>> float(neuroml.penalty(state, {"w": jnp.zeros(2)}))
    3.0
    """

    def init(params):
        return MASState(
            anchor=core.remembered(params, params),
            importance=quadratic.like_params(params),
            strength=core.leaf(strength),
            decay=core.leaf(decay),
        )

    def mas(updates, state, params, **_):
        state = core.live(state, strength=strength, decay=decay)
        spring = (params, state.anchor, state.importance, state.strength)
        if step_size is None:
            return quadratic.pull(updates, *spring), state
        return quadratic.pull_implicitly(updates, *spring, core.leaf(step_size)), state

    return core.rule(init, mas)
