"""Weight clipping: no weight may leave the range from which it was drawn by more than a factor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core, projection


class WeightClippingState(NamedTuple):
    """State of `weight_clipping`."""

    factor: jax.Array  # ()

    hyperparameters = ("factor",)


def weight_clipping(factor: ArrayLike = 2.0) -> optax.GradientTransformationExtraArgs:
    r"""Clips the weights and biases of every layer after the step.

        weight = clip(weight + step, -factor / sqrt(fan_in), factor / sqrt(fan_in))

    Args:
      factor: >= 0; infinite is inert.

    Returns:
      A rule. Last in the chain: what is applied is clipped. Arrays that belong to no layer pass through; so do, as yet,
      the kernels of attention whose bias has several axes (`query`, `key`, `value` of Flax). Without biases those are
      taken for convolutions over time, of a fan_in of inputs * heads.

    Raises:
      UsageError: a factor below 0; no layer among the weights.

    Reference:
      Elsayed, Lan, Lyle, Mahmood 2024, "Weight clipping for deep continual and reinforcement learning": the bounds are
      a multiple of PyTorch's uniform initialization, whatever the initialization was. How ours differs: in nothing that
      we know of.

    >>> tx = weight_clipping(2.0)
    >>> params = {"kernel": jnp.zeros((4, 1))}
    >>> step, _ = tx.update({"kernel": 5 * jnp.ones((4, 1))}, tx.init(params), params)
    >>> step["kernel"].ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    core.require_ranges("weight_clipping", {"factor": factor}, factor="[0, inf]")

    def init(params):
        projection.begin("weight_clipping", params, lambda sizes: sizes)
        return WeightClippingState(core.leaf(factor))

    def weight_clipping(updates, state, params, **_):
        state = core.live(state, factor=factor)
        leaves, structure = jax.tree.flatten(updates)
        weights = jax.tree.leaves(params)
        for layer in projection.layers(updates).values():
            bound = state.factor / (layer.inputs - (layer.bias is not None)) ** 0.5
            for place in (layer.kernel, layer.bias):
                if place is not None:
                    leaves[place] = _clipped(weights[place], leaves[place], bound)
        return structure.unflatten(leaves), state

    return core.rule(init, weight_clipping)


def _clipped(weight: jax.Array, step: jax.Array, bound: jax.Array) -> jax.Array:
    after = weight + step
    kept = jnp.clip(after, -bound.astype(after.dtype), bound.astype(after.dtype))
    return jnp.where(kept == after, step, kept - weight)
