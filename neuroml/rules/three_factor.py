"""Three-factor learning: what a synapse is eligible for is kept in a trace, and a modulator says when it counts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core

TINY = 1e-12


class ThreeFactorState(NamedTuple):
    """State of `three_factor`."""

    trace: Any  # like params, float32: running mean of the gradient
    mean: jax.Array  # (): running mean of the loss
    modulator: jax.Array  # (): of the last update
    count: jax.Array  # () int32: finite losses so far
    strength: jax.Array  # ()
    decay: jax.Array  # ()
    mean_decay: jax.Array  # ()
    largest: jax.Array  # ()

    hyperparameters = ("strength", "decay", "mean_decay", "largest")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the modulator of the last update."""
        return {"modulator": self.modulator}


def three_factor(
    strength: ArrayLike = 0.5,
    *,
    decay: ArrayLike = 0.9,
    mean_decay: ArrayLike = 0.99,
    largest: ArrayLike = 3.0,
    constant: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Mixes the gradient with an eligibility trace of it, which a modulator like surprise lets through.

        trace     = decay * trace + (1 - decay) * gradient
        mean      = mean_decay * mean + (1 - mean_decay) * value               a plain average in the first updates
        modulator = clip(value / mean, 0, largest)
        gradient  = (1 - strength) * gradient + strength * modulator * trace

    With a constant modulator this is a mixture of gradient and momentum: what the third factor adds is that the trace
    counts more when the loss is higher than it was of late. It is an interface to local learning and makes no claim of
    performance.

    Args:
      strength: in [0, 1]; 0 is inert, 1 learns from the trace alone.
      decay: of the trace, in [0, 1); it starts at zero and is not corrected for that.
      mean_decay: of the mean loss, in [0, 1).
      largest: bound of the modulator.
      constant: the content-free control: the modulator is always 1.

    Returns:
      A rule that needs the word `value`, the loss of the step, which should be positive. First in the chain. A loss
      that is not finite leaves the mean as it was, and the modulator is 1.

    Reference:
      Frémaux and Gerstner 2016, "Neuromodulated spike-timing-dependent plasticity, and theory of three-factor learning
      rules", Front. Neural Circuits 9:85; traces in place of gradients: Bellec et al. 2020, "A solution to the
      learning dilemma for recurrent networks of spiking neurons", Nature Comm. 11:3625.

    How ours differs: the first two factors are a gradient by backpropagation, where theirs are local Hebbian terms; one
    modulator for the whole network; the plain gradient may stay beside it.

    >>> tx = three_factor(1.0, decay=0.5, mean_decay=0.5)
    >>> w, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    >>> _, state = tx.update(jnp.ones(1), state, w, value=1.0)                                            # as usual
    >>> step, state = tx.update(jnp.ones(1), state, w, value=3.0)                                         # a surprise
    >>> state.trace.tolist(), float(state.modulator), step.tolist()
    ([0.75], 1.5, [1.125])
    """
    given = {"strength": strength, "decay": decay, "mean_decay": mean_decay, "largest": largest}

    def init(params):
        trace = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)
        hyperparameters = {name: core.leaf(value) for name, value in given.items()}
        return ThreeFactorState(trace, jnp.float32(0), jnp.float32(1), jnp.int32(0), **hyperparameters)

    def three_factor(updates, state, params, *, value, **_):
        del params
        state = core.live(state, **given)
        mean = lambda old, g: state.decay * old + (1 - state.decay) * g.astype(jnp.float32)
        # The mean of a trace and itself is the trace. (A choice behind the sum makes the compiler round otherwise.)
        trace = jax.tree.map(mean, state.trace, averages.where_finite(updates, state.trace))
        state = _modulated(state, jnp.asarray(value, jnp.float32))
        modulator = jnp.ones(()) if constant else state.modulator
        plain = lambda g: jnp.where(state.strength == 1, 0, (1 - state.strength) * g)  # 0 * inf is no number
        mix = lambda g, kept: (plain(g) + state.strength * modulator * kept).astype(g.dtype)
        return jax.tree.map(mix, updates, trace), state._replace(trace=trace, modulator=modulator)

    return core.rule(init, three_factor)


def _modulated(state: ThreeFactorState, value: Float[Array, ""]) -> ThreeFactorState:
    """Returns the state with the mean loss and the modulator of this step."""
    mean, count = averages.after(state.mean, state.count, value, state.mean_decay)
    modulator = jnp.clip(value / jnp.maximum(mean, TINY), 0, state.largest)
    return state._replace(mean=mean, count=count, modulator=jnp.where(jnp.isfinite(value), modulator, 1.0))
