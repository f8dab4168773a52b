"""Presynaptic and postsynaptic gates: a synapse learns where the neurons at both of its ends are active."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, projection, units
from neuroml.errors import UsageError

TINY = 1e-12


class SynapticGateState(NamedTuple):
    """State of `synaptic_gate`."""

    strength: jax.Array  # ()

    hyperparameters = ("strength",)


def synaptic_gate(
    wiring: Any, strength: ArrayLike = 1.0, *, shuffled: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the gradient of each synapse by how active its two ends are.

        pre_i       = tanh(mean |x_i| / mean of that over the layer's inputs)
        post_j      = tanh(mean |h_j| / mean of that over the population); 1 for outputs, and wherever no layer reads
        gradient_ij = (1 - strength + strength * pre_i * post_j) * gradient_ij

    A neuron of average activity has a gate of 0.76, a silent one 0. Means are over the batch, and over the places of an
    image. Biases are not gated. A neuron whose mean is not finite has a gate of 1, and those of others leave it out.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      strength: in [0, 1]; 0 is inert, 1 gates fully.
      shuffled: the content-free control: each neuron gets the gate of another one of its layer, always the same.

    Returns:
      A rule that needs the word `activity`. First in the chain, or last: an optimizer such as Adam, which divides by
      the size of the gradient, takes much of a gate before it back.

    Raises:
      UsageError: no population between two layers, a layer without names, or an activity that lacks a layer or has
        another width.

    Reference:
      The activity-dependent gates of Hebbian learning, as Gerstner et al. 2018, "Eligibility traces and plasticity on
      behavioral time scales", Front. Neural Circuits 12:53, has them: f(x_i) * g(h_j).

    How ours differs: the gates do not learn by themselves; they weigh a gradient, which already holds x_i once.

    >>> params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = synaptic_gate(names)
    >>> activity = {"a": jnp.array([[100.0, 0.0]]), "b": jnp.array([[0.0, 100.0]])}
    >>> step, _ = tx.update(params, tx.init(params), params, activity=activity)
    >>> [[f"{x:.2f}" for x in step[home]["kernel"].ravel()] for home in "ab"]
    [['0.00', '0.93', '0.00', '0.00'], ['0.00', '0.96']]
    """

    def init(params):
        units.begin("synaptic_gate", wiring, params, lambda size: size)  # raises where nothing fits
        return SynapticGateState(core.leaf(strength))

    def synaptic_gate(updates, state, params, *, activity, **_):
        state = core.live(state, strength=strength)
        found = units.find(wiring, params)
        gate = lambda size: units.in_order(_relative(size), shuffled)
        answers = {name: gate(jnp.abs(rows).mean(0)) for name, rows in units.outputs(found, activity).items()}
        post = {home: answers[name] for name, population in found.items() for home in population.makers}
        leaves, structure = jax.tree.flatten(updates)
        for home, layer in projection.layers(updates).items():
            pre = gate(_sizes(home, layer, projection.by_home(activity)))
            both = pre[:, None] * post.get(home, jnp.ones(layer.shape[-1]))
            share = 1 + state.strength * (both - 1)  # exactly 1 where the strength is 0
            leaves[layer.kernel] = (share * leaves[layer.kernel]).astype(leaves[layer.kernel].dtype)
        return structure.unflatten(leaves), state

    return core.rule(init, synaptic_gate)


def _relative(size: Float[Array, " size"]) -> Float[Array, " size"]:
    """Returns sizes relative to their mean, squashed into [0, 1]; 1 for one that is not finite."""
    relative = jnp.tanh(size / jnp.maximum(averages.of_finite(size), TINY))
    return jnp.where(jnp.isfinite(size), relative, 1)


def _sizes(home: str, layer: projection.Layer, given: Mapping[str, Any]) -> Float[Array, " inputs"]:
    """Returns the mean magnitude of each input of a layer; of each channel, if it is a convolution."""
    if home not in given:
        raise UsageError(f"`activity` has no inputs of layer {home!r}, but of: {', '.join(given) or 'none'}.")
    rows = jnp.asarray(given[home], jnp.float32)
    if rows.shape[-1] != layer.shape[-2]:
        raise UsageError(
            f"the kernel of layer {home!r} has shape {layer.shape}, so its inputs have {layer.shape[-2]} entries; "
            f"`activity` there has {rows.shape[-1]}. Grouped convolutions are not supported."
        )
    return jnp.abs(rows).reshape(-1, rows.shape[-1]).mean(0)
