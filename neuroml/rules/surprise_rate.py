"""A learning rate that rises with surprise, as the release of BDNF with unexpected activity raises plasticity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core


class SurpriseRateState(NamedTuple):
    """State of `surprise_rate`."""

    fast: jax.Array  # (): mean loss over the last few updates
    slow: jax.Array  # (): mean loss over many
    gain: jax.Array  # (): of the last update
    count: jax.Array  # () int32: finite losses so far
    strength: jax.Array  # ()
    fast_decay: jax.Array  # ()
    slow_decay: jax.Array  # ()
    largest: jax.Array  # ()

    hyperparameters = ("strength", "fast_decay", "slow_decay", "largest")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns by what the last update was multiplied."""
        return {"gain": self.gain}


def surprise_rate(
    strength: ArrayLike = 1.0,
    *,
    fast_decay: ArrayLike = 0.9,
    slow_decay: ArrayLike = 0.99,
    largest: ArrayLike = 3.0,
    constant: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the update by more than 1 while the loss is higher than it was of late.

        fast = fast_decay * fast + (1 - fast_decay) * value;  slow likewise     plain averages in the first updates
        gain = min(1 + strength * max(fast - slow, 0), largest)
        step = gain * step

    Args:
      strength: gain for a rise of the loss by 1, >= 0; 0 is inert.
      fast_decay: of the short mean, in [0, 1); 0.9 looks back about 10 updates.
      slow_decay: of the long mean, in [0, 1); 0.99 looks back about 100 updates.
      largest: bound of the gain, >= 1.
      constant: the content-free control: the surprise is always 1, so the gain is min(1 + strength, largest) at every
        update. For a fair one give as strength the mean gain (`neuroml.core.report`) of a run with surprise, less 1.

    Returns:
      A rule that needs the word `value`, the loss of the step. Last in the chain, so that Adam does not divide the gain
      out again. A loss that is not finite leaves both means as they were.

    Raises:
      UsageError: a number outside its range.

    Reference:
      BDNF and its receptor TrkB as activity-dependent gain of plasticity: Panja and Bramham 2014, "BDNF mechanisms in
      late LTP formation", Neuropharmacology 76:664. A learning rate that follows surprise: Nassar et al. 2010, "An
      approximately Bayesian delta-rule model explains the dynamics of belief updating in a changing environment".

    How ours differs: no model of the world's changes, only two running means of the loss; rises count, falls do not.

    >>> tx = surprise_rate(1.0, fast_decay=0.0, slow_decay=0.5)
    >>> w, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    >>> for loss in (1.0, 1.0, 2.0):
    ...     step, state = tx.update(jnp.ones(1), state, w, value=loss)
    >>> float(state.fast), float(state.slow), step.tolist()
    (2.0, 1.5, [1.5])
    """
    given = {"strength": strength, "fast_decay": fast_decay, "slow_decay": slow_decay, "largest": largest}
    ranges = {"strength": "[0, inf)", "fast_decay": "[0, 1)", "slow_decay": "[0, 1)", "largest": "[1, inf]"}
    core.require_ranges("surprise_rate", given, **ranges)

    def init(params):
        del params
        hyperparameters = {name: core.leaf(value) for name, value in given.items()}
        return SurpriseRateState(jnp.float32(0), jnp.float32(0), jnp.float32(1), jnp.int32(0), **hyperparameters)

    def surprise_rate(updates, state, params, *, value, **_):
        del params
        state = _heard(core.live(state, **given), jnp.asarray(value, jnp.float32))
        surprise = jnp.ones(()) if constant else jnp.maximum(state.fast - state.slow, 0)
        gain = jnp.minimum(1 + state.strength * surprise, state.largest)
        scaled = jax.tree.map(lambda step: (gain * step).astype(step.dtype), updates)
        return scaled, state._replace(gain=gain)

    return core.rule(init, surprise_rate)


def _heard(state: SurpriseRateState, value: Float[Array, ""]) -> SurpriseRateState:
    """Returns the state after one more loss."""
    fast, _ = averages.after(state.fast, state.count, value, state.fast_decay)
    slow, count = averages.after(state.slow, state.count, value, state.slow_decay)
    return state._replace(fast=fast, slow=slow, count=count)
