"""L2 Init, regenerative regularization: weights are drawn back to where they started, not to zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from neuroml import core, units
from neuroml.errors import unknown

FORMS = ("euclidean", "wasserstein", "shuffled", "zero")


class L2InitState(NamedTuple):
    """State of `l2_init`, all but the Wasserstein form."""

    initial: Any  # like params
    strength: jax.Array  # ()

    hyperparameters = ("strength",)
    anchors = ("initial",)

    def gap(self, params: Any) -> Any:
        """Returns `params - initial`."""
        return jax.tree.map(jnp.subtract, core.visible(params, self.initial), self.initial)

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength / 2 * sum (params - initial)^2`."""
        return self.strength / 2 * optax.tree.norm(self.gap(params), squared=True)


class WassersteinInitState(NamedTuple):
    """State of `l2_init`, Wasserstein form."""

    initial: Any  # like params, each array sorted
    strength: jax.Array  # ()

    hyperparameters = ("strength",)
    untouched = ("initial",)
    unresizable = (
        'l2_init(form="wasserstein"): it holds the distribution of all weights, which the zeros of new neurons change, '
        'so that old weights would be drawn elsewhere. Use form="euclidean".'
    )

    def gap(self, params: Any) -> Any:
        """Returns, for each weight, its distance from the initial weight of its rank."""
        return jax.tree.map(_sorted_gap, core.visible(params, self.initial), self.initial)

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength / 2 * sum (sorted params - sorted initial)^2`."""
        return self.strength / 2 * optax.tree.norm(self.gap(params), squared=True)


def l2_init(strength: ArrayLike, *, form: str = "euclidean") -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of a spring to the initial weights.

        euclidean:    strength / 2 * \sum_i (params_i - initial_i)^2
        wasserstein:  strength / 2 * \sum_i (params_(i) - initial_(i))^2    both sorted by size, array by array

    The second form lets weights change places: it holds their distribution, not their values. Two more are content-free
    controls of the euclidean one: "shuffled" draws towards the start of another weight of the same array, always the
    same, and "zero" to none, which is plain L2 regularization. (Of a neuron that is replaced both draw the weights to
    their own start.)

    Args:
      strength: >= 0; 0 is inert.
      form: "euclidean", "wasserstein", "shuffled" or "zero".

    Returns:
      A rule. First in the chain: the pull then passes through the optimizer as a loss term would (the paper's form).

    Raises:
      UsageError: a negative strength, an unknown form.

    Reference:
      Kumar, Marklund, Van Roy 2023, "Maintaining plasticity in continual learning via regenerative regularization"
      (euclidean; their strength is half of ours); Lewandowski et al. 2024, "Directions of curvature as an explanation
      for loss of plasticity" (wasserstein).

    >>> tx = l2_init(0.1)
    >>> state = tx.init(jnp.array([1.0, 2.0]))
    >>> step, state = tx.update(jnp.zeros(2), state, jnp.array([2.0, 2.0]))
    >>> jnp.allclose(step, jnp.array([0.1, 0.0])).item(), round(float(state.penalty(jnp.array([2.0, 2.0]))), 3)
    (True, 0.05)
    """
    if form not in FORMS:
        raise unknown("form of L2 Init", form, FORMS)
    core.require_ranges("l2_init", {"strength": strength}, strength="[0, inf)")
    ordered = lambda leaf: jnp.sort(leaf, axis=None).reshape(leaf.shape)
    others = lambda leaf: units.in_order(leaf.reshape(-1), shuffled=True).reshape(leaf.shape)
    starts = {"euclidean": jnp.copy, "wasserstein": ordered, "shuffled": others, "zero": jnp.zeros_like}
    state = WassersteinInitState if form == "wasserstein" else L2InitState

    def init(params):
        return state(jax.tree.map(starts[form], params), core.leaf(strength))

    def l2_init(updates, state, params, **_):
        state = core.live(state, strength=strength)
        add = lambda update, gap: update + (state.strength * gap).astype(update.dtype)
        return jax.tree.map(add, updates, state.gap(params)), state

    return core.rule(init, l2_init)


def _sorted_gap(weights: Array, initial: Array) -> Array:
    """Returns each weight's distance from the initial weight of its rank."""
    rank = jnp.argsort(jnp.argsort(weights, axis=None))
    return weights - initial.reshape(-1)[rank].reshape(weights.shape)
