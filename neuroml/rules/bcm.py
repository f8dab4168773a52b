"""The sliding threshold of Bienenstock, Cooper and Munro, as a gain of each neuron's learning."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, surgery, units

TINY = 1e-12


class BCMState(NamedTuple):
    """State of `bcm`."""

    threshold: dict[str, jax.Array]  # [size]: running mean of the squared answers
    count: dict[str, jax.Array]  # [size] int32: of how many batches that is
    strength: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "decay")
    neurons = ("threshold", "count")


def bcm(
    wiring: Any, strength: ArrayLike = 0.5, *, decay: ArrayLike = 0.99, shuffled: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Lets neurons learn more while they answer above a threshold that slides with their own activity, else less.

        threshold_j = decay * threshold_j + (1 - decay) * mean h_j^2            a plain average in the first updates
        gain_j      = 1 + strength * mean tanh(h_j * (h_j - threshold_j) / threshold_j^2)
        step_j      = gain_j * step_j                                           of its incoming weights and bias

    This is a gain and not a learner: which way a weight goes is the gradient's to say. It does not carry over the two
    properties that BCM is known for, selectivity and a stable fixed point of its own.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      strength: in [0, 1]; 0 is inert. A neuron below its threshold is held back by a quarter of it at most.
      decay: of the thresholds, in [0, 1).
      shuffled: the content-free control: each neuron gets the gain of another one, always the same.

    Returns:
      A rule that needs the word `activity`. Last in the chain, so that no optimizer divides the gain out again. A
      neuron whose answers are not finite keeps its threshold and has gain 1.

    Raises:
      UsageError: a number outside its range, no population between two layers, a layer without names, or an activity
        that lacks one.

    Reference:
      Bienenstock, Cooper, Munro 1982, "Theory for the development of neuron selectivity", J. Neurosci. 2:32; the
      threshold as mean square: Intrator and Cooper 1992, "Objective function formulation of the BCM theory of visual
      cortical plasticity", Neural Networks 5:3.

    How ours differs: the modification function h * (h - threshold) is measured against threshold^2, squashed, averaged
    over the batch, and multiplies a gradient instead of the input. As in BCM an answer is compared with a mean square,
    so the units matter: neurons that answer far below 1 lie above their threshold, those far above 1 below it.

    >>> params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = bcm(names, strength=0.5, decay=0.99)
    >>> activity = {"a": jnp.ones((1, 2)), "b": jnp.array([[1.0, 0.1]])}       # at its threshold; above its threshold
    >>> step, state = tx.update(params, tx.init(params), params, activity=activity)
    >>> step["a"]["kernel"].tolist()
    [[1.0, 1.5], [1.0, 1.5]]
    """
    given = {"strength": strength, "decay": decay}
    core.require_ranges("bcm", given, strength="[0, 1]", decay="[0, 1)")

    def init(params):
        threshold = units.begin("bcm", wiring, params, jnp.zeros)
        return BCMState(
            threshold, averages.begin(threshold), **{name: core.leaf(value) for name, value in given.items()}
        )

    def bcm(updates, state, params, *, activity, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        answers = units.outputs(found, activity)
        power = {name: (rows**2).mean(0) for name, rows in answers.items()}
        threshold, count = averages.after(state.threshold, state.count, power, state.decay)
        gains = {}
        for name, rows in answers.items():
            gain = 1 + state.strength * jnp.where(jnp.isfinite(power[name]), _modification(rows, threshold[name]), 0)
            gains[name] = units.in_order(gain, shuffled)
        return surgery.gate(found, updates, gains), state._replace(threshold=threshold, count=count)

    return core.rule(init, bcm)


def _modification(rows: Float[Array, "n size"], threshold: Float[Array, " size"]) -> Float[Array, " size"]:
    """Returns how far above its threshold each neuron answers, in [-1/4, 1), on average over the batch."""
    return jnp.tanh(rows * (rows - threshold) / (threshold**2 + TINY)).mean(0)
