"""Synaptic scaling: a neuron that answers too little multiplies all its inputs, one that answers too much divides."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, projection, units

TINY = 1e-12


class SynapticScalingState(NamedTuple):
    """State of `synaptic_scaling`."""

    mean: dict[str, jax.Array]  # [size]: running mean of the magnitude of what each neuron answers
    count: dict[str, jax.Array]  # [size] int32: of how many batches that is
    target: jax.Array  # ()
    speed: jax.Array  # ()
    decay: jax.Array  # ()
    largest: jax.Array  # ()

    hyperparameters = ("target", "speed", "decay", "largest")
    neurons = ("mean", "count")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the mean answer of all neurons."""
        return {"mean answer": jnp.concatenate([*self.mean.values()]).mean()}


def synaptic_scaling(
    wiring: Any,
    *,
    target: ArrayLike = 0.3,
    speed: ArrayLike = 0.001,
    decay: ArrayLike = 0.99,
    largest: ArrayLike = 1.1,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales the incoming weights of each neuron towards a set mean answer.

        mean_j   = decay * mean_j + (1 - decay) * mean |h_j|                    a plain average in the first updates
        factor_j = clip((target / mean_j)^speed, 1 / largest, largest)
        w_in_j   = factor_j * (w_in_j + step)

    All weights of a neuron have the same factor, so what tells its inputs apart is kept. Biases are not scaled. A
    neuron that answers nothing in a batch is left alone then: no factor would wake it, and the weights of a dead one
    would grow without end.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      target: mean magnitude of the answers, > 0, in their units. With ReLU it is the mean answer.
      speed: per update, >= 0; 0 is inert, 1 goes for the target in one update, as far as `largest` allows.
      decay: of the running means, in [0, 1).
      largest: bound of the factor of one update, >= 1.
      shuffled: the content-free control: each neuron gets the factor of another one, always the same.

    Returns:
      A rule that needs the word `activity`. Last in the chain. A neuron whose answers are not finite keeps its mean.

    Raises:
      UsageError: a number outside its range; no population between two layers, a layer without names, or an
        activity that lacks one.

    Reference:
      Turrigiano et al. 1998, "Activity-dependent scaling of quantal amplitude in neocortical neurons", Nature 391:892;
      as a rule of rates: van Rossum, Bi, Turrigiano 2000, "Stable Hebbian learning from spike timing-dependent
      plasticity", J. Neurosci. 20:8812.

    How ours differs: the factor is a power of the ratio and not linear in the difference, so that it stays positive and
    does not depend on the units; magnitudes are averaged, so that activations with negative answers have a set-point.

    >>> params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = synaptic_scaling(names, target=2.0, speed=1.0, largest=3.0)
    >>> activity = {"a": jnp.ones((1, 2)), "b": jnp.array([[1.0, 4.0]])}         # one is too quiet, one too loud
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, activity=activity)
    >>> step["a"]["kernel"].tolist(), step["b"]["kernel"].ravel().tolist()
    ([[1.0, -0.5], [1.0, -0.5]], [0.0, 0.0])
    """
    given = {"target": target, "speed": speed, "decay": decay, "largest": largest}
    ranges = {"target": "(0, inf)", "speed": "[0, inf)", "decay": "[0, 1)", "largest": "[1, inf]"}
    core.require_ranges("synaptic_scaling", given, **ranges)

    def init(params):
        mean = units.begin("synaptic_scaling", wiring, params, jnp.zeros)
        return SynapticScalingState(
            mean, averages.begin(mean), **{name: core.leaf(value) for name, value in given.items()}
        )

    def synaptic_scaling(updates, state, params, *, activity, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        sizes = {name: jnp.abs(rows).mean(0) for name, rows in units.outputs(found, activity).items()}
        mean, count = averages.after(state.mean, state.count, sizes, state.decay)
        factor = lambda name: jnp.where(sizes[name] > 0, _factor(state, mean[name]), 1)
        factors = {name: units.in_order(factor(name), shuffled) for name in found}
        return _scaled(found, updates, params, factors), state._replace(mean=mean, count=count)

    return core.rule(init, synaptic_scaling)


def _factor(state: SynapticScalingState, mean: Float[Array, " size"]) -> Float[Array, " size"]:
    """Returns by how much the incoming weights of each neuron are multiplied."""
    ratio = state.target / jnp.maximum(mean, TINY)
    return jnp.clip(ratio**state.speed, 1 / state.largest, state.largest)


def _scaled(found: Mapping[str, units.Units], updates: Any, params: Any, factors: Mapping[str, Array]) -> Any:
    """Returns updates after which the incoming weights are `factor * (weight + step)`."""
    leaves, structure = jax.tree.flatten(updates)
    weights, layers = jax.tree.leaves(params), projection.layers(updates)
    for name, factor in factors.items():
        for home in found[name].makers:
            at = layers[home].kernel
            step = leaves[at]
            leaves[at] = step + ((factor - 1) * (weights[at] + step)).astype(step.dtype)
    return structure.unflatten(leaves)
