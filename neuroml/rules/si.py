"""Synaptic intelligence: credit each weight with the loss that it removed along its path."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, quadratic


class SIState(NamedTuple):
    """State of `si`. The step that a gradient led to is read off the next weights, so any optimizer may follow."""

    anchor: Any  # like params: the weights at the last consolidation
    importance: Any  # like params, float32
    credit: Any  # like params, float32: running sum of -gradient * step since the last consolidation
    last_params: Any  # like params
    last_grads: Any  # like params
    strength: jax.Array  # ()
    damping: jax.Array  # ()
    clip_negative: jax.Array  # (), bool
    ceiling: jax.Array  # ()
    count_penalty: jax.Array  # (), bool

    def settled(self, params: Any) -> Any:
        """Returns the credit including the step from `last_params` to `params`."""
        return quadratic.credited(self.credit, self.last_grads, params, self.last_params)

    @property
    def weighed(self) -> Any:
        """Returns the importance as far as it counts."""
        return jax.tree.map(lambda earned: jnp.minimum(earned, self.ceiling), self.importance)

    hyperparameters = ("strength", "damping", "ceiling")
    importances = ("importance",)
    anchors = ("anchor", "last_params")

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength * sum_i min(importance_i, ceiling) * (params_i - anchor_i)**2`."""
        return quadratic.penalty(params, self.anchor, self.weighed, self.strength)

    def consolidate(self, params: Any, **_: Any) -> "SIState":
        """Turns the credit earned since the last call into importance, and anchors the weights where they are."""
        here = core.remembered(params, self.anchor)

        def gain(old, credit, param, anchor):
            earned = jnp.where(self.clip_negative, jnp.maximum(credit, 0), credit)
            return old + earned / ((param - anchor).astype(old.dtype) ** 2 + self.damping)

        total = jax.tree.map(gain, self.importance, self.settled(here), here, self.anchor)
        nothing = optax.tree.zeros_like(self.credit)
        return self._replace(
            anchor=here,
            importance=total,
            credit=nothing,
            last_params=core.remembered(here, here),
            last_grads=optax.tree.zeros_like(self.last_grads),
        )


def si(
    strength: ArrayLike,
    *,
    damping: ArrayLike = 0.1,
    clip_negative: bool = True,
    ceiling: ArrayLike = jnp.inf,
    count_penalty: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Synaptic intelligence: weights are held in proportion to the loss that their movement removed.

    While learning, every weight earns credit; consolidation turns it into importance:

        credit_i      = \sum_steps -gradient_i * step_i
        importance_i += credit_i / ((params_i - anchor_i)^2 + damping)
        penalty       = strength * \sum_i min(importance_i, ceiling) (params_i - anchor_i)^2

    Args:
      strength: how hard the weights are held (the paper's c); >= 0.
      damping: > 0, keeps the division finite where a weight hardly moved (the paper's xi).
      clip_negative: leaves out negative credit; the paper's equation does not. Without it an importance can be
        negative, and its weight is then pushed away from the anchor.
      ceiling: > 0, as much as an importance counts at most (Avalanche: 0.001); the default is the paper's equation.
      count_penalty: the penalty's own gradient earns credit, too, as in the code of van de Ven, Mammoth and Avalanche:
        a weight that is pulled back to its anchor then earns it for that. The paper counts the loss.

    Returns:
      A rule. Put it first in the chain: the gradient that it sees is then that of the loss alone.
      `neuroml.consolidate(opt_state, params)` needs no other word.

    Reference:
      Zenke, Poole and Ganguli 2017, ICML, equations 3 to 5.

    How ours differs: the step is read off the weights of the next call, so it is the one really taken, whatever
    optimizer follows. The authors' code clips the sum of importances at zero, ours each consolidation's credit. Van de
    Ven's keeps negative credit (`clip_negative=False`) and counts the penalty (`count_penalty`); Mammoth's credit is
    the learning rate times that whole gradient squared, so never negative.

    >>> import neuroml
    >>> params = {"w": jnp.array([1.0])}
    >>> tx = optax.chain(neuroml.si(strength=1.0, damping=1.0), optax.sgd(0.5))
    >>> opt_state = tx.init(params)
    >>> steps, opt_state = tx.update({"w": jnp.array([2.0])}, opt_state, params)
    >>> params = optax.apply_updates(params, steps)                # moved by -1 along a gradient of 2: credit 2
    >>> opt_state = neuroml.consolidate(opt_state, params)
    >>> opt_state[0].importance["w"].tolist()                      # 2 / (1 ** 2 + 1)
    [1.0]
    """

    def init(params):
        return SIState(
            anchor=core.remembered(params, params),
            importance=quadratic.like_params(params),
            credit=quadratic.like_params(params),
            last_params=core.remembered(params, params),
            last_grads=optax.tree.zeros_like(params),
            strength=core.leaf(strength),
            damping=core.leaf(damping),
            clip_negative=core.leaf(clip_negative, bool),
            ceiling=core.leaf(ceiling),
            count_penalty=core.leaf(count_penalty, bool),
        )

    def si(updates, state, params, **_):
        state = core.live(state, strength=strength, damping=damping, ceiling=ceiling)
        pulled = quadratic.pull(updates, params, state.anchor, state.weighed, state.strength)
        earns = lambda loss, whole, old: jnp.where(state.count_penalty, whole, loss).astype(old.dtype)
        kept = jax.tree.map(earns, updates, pulled, state.last_grads)
        return pulled, state._replace(credit=state.settled(params), last_params=params, last_grads=kept)

    return core.rule(init, si)
