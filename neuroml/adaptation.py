"""Sensory adaptation: every input is measured against its own running mean and spread.

The first of all homeostatic mechanisms: what comes in keeps its place and its scale, whatever the world does. After a
shift the running mean is wrong for a while; an input whose short mean has left its long one anneals anew.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core

TINY = float(jnp.finfo(jnp.float32).tiny)


class AdaptationState(NamedTuple):
    """What is known of each input."""

    mean: jax.Array  # [...]: as one example
    variance: jax.Array  # [...]
    short: jax.Array  # [...]: mean over the last few updates
    count: jax.Array  # [...]: updates since the start, or since the last shift of this input


class Adaptation(NamedTuple):
    """Streaming normalization as pure functions; see `make`."""

    init: Callable[..., AdaptationState]  # (shape of one example) -> state
    update: Callable[[AdaptationState, Array], AdaptationState]  # (state, x [batch, ...]) -> state
    apply: Callable[[AdaptationState, Array], Array]  # (state, x [batch, ...]) -> normalized x


def make(
    decay: ArrayLike = 0.99,
    *,
    epsilon: ArrayLike = 1e-3,
    largest: ArrayLike = 3.0,
    shift: ArrayLike = jnp.inf,
    short_decay: float = 0.9,
    pooled: bool = False,
) -> Adaptation:
    r"""Makes a streaming normalization of inputs.

        rate      = max(1 - decay, 1 / (count + 2))          a plain average at first, begun by mean 0 and variance 1
        mean     += rate * (x - mean);   variance += rate * ((x - mean_old) (x - mean) - variance)
        apply(x)  = clip((x - mean) / sqrt(variance + epsilon), -largest, largest)

    A batch counts as one update with its mean. An input whose `short` mean is farther from its mean than `shift`
    standard deviations begins a new average: its `count` falls to that of `short_decay`.

    Args:
      decay: of mean and variance, in [0, 1); 0.99 looks back about 100 updates.
      epsilon: added to the variance, in squared units of x, >= 0: inputs that hardly vary stay small.
      largest: bound of what comes out, > 0.
      shift: in standard deviations (with epsilon added to the variance), >= 0; infinite never anneals anew.
      short_decay: of the short mean, in [0, 1).
      pooled: the content-free control: all inputs together have one mean and one spread.

    Returns:
      An `Adaptation`. `update` leaves out inputs that are not finite, or too large to be squared: those entries keep
      their state; with `pooled`, or of a batch of nothing, all of it is left out.

    Raises:
      UsageError: a number outside its range.

    Reference:
      Streaming normalization with annealed rates: Elsayed, Vasan, Mahmood 2024, "Streaming deep reinforcement learning
      finally works", algorithm 6 (there with the plain average for ever). How ours differs: it forgets.

    >>> norm = make(0.9)
    >>> state = norm.init((2,))
    >>> for _ in range(100):
    ...     state = norm.update(state, jnp.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> norm.apply(state, jnp.array([[3.0, 5.0]])).round(1).tolist()
    [[1.0, 0.0]]
    """
    given = {"decay": decay, "short_decay": short_decay, "epsilon": epsilon, "largest": largest, "shift": shift}
    ranges = {"decay": "[0, 1)", "short_decay": "[0, 1)", "epsilon": "[0, inf)", "largest": "(0, inf]"}
    core.require_ranges("streaming normalization", given, **ranges, shift="[0, inf]")

    def average(x):
        return jnp.full(x.shape[1:], x.mean()) if pooled else x.mean(0)

    def init(shape):
        zero = jnp.zeros(shape)
        return AdaptationState(zero, jnp.ones(shape), jnp.zeros_like(zero), jnp.zeros_like(zero))

    def update(state, x):
        shape = state.mean.shape
        # In rows: XLA's CPU backend is far slower to average over images.
        state, x = jax.tree.map(jnp.ravel, state), x.reshape(len(x), state.mean.size).astype(jnp.float32)
        rate = jnp.maximum(1 - decay, 1 / (state.count + 2))
        new = state.mean + rate * (average(x) - state.mean)
        spread = average((x - state.mean) * (x - new))
        variance = jnp.maximum(state.variance + rate * (spread - state.variance), 0)
        short = state.short + jnp.maximum(1 - short_decay, rate) * (average(x) - state.short)
        shifted = jnp.abs(short - new) > shift * jnp.sqrt(variance + epsilon)
        count = jnp.where(shifted, jnp.minimum(state.count, 1 / (1 - short_decay)), state.count) + 1
        after = AdaptationState(jnp.where(shifted, short, new), variance, short, count)
        fine = jnp.isfinite(x).all(0) & jnp.isfinite(new) & jnp.isfinite(variance) & jnp.isfinite(short)
        return jax.tree.map(lambda kept, changed: jnp.where(fine, changed, kept).reshape(shape), state, after)

    limit = jnp.asarray(largest)

    def apply(state, x) -> Float[Array, "batch ..."]:
        normalized = (x.astype(jnp.float32) - state.mean) * jax.lax.rsqrt(jnp.maximum(state.variance + epsilon, TINY))
        return jnp.clip(normalized, -limit, limit)

    return Adaptation(init, update, apply)
