"""Homeostatic layers as Flax NNX modules: streaming normalization of inputs, and the concatenated ReLU."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from neuroml import adaptation
from neuroml.adaptation import Adaptation, AdaptationState
from neuroml.errors import UsageError


class Statistic(nnx.Variable):
    """What a layer knows of its inputs: no `nnx.Param`, so that optimizers leave it alone."""


class StreamingNorm(nnx.Module):
    """Sensory adaptation: every input is measured against its own running mean and spread.

        norm(x) = clip((x - mean) / sqrt(variance + epsilon), -largest, largest)

    with `mean` and `variance` as in `neuroml.adaptation.make`. A batch is learnt before it is normalized. There are no
    parameters, and no gradient passes through the statistics. It is made for the inputs of a network, not for between
    its layers.

    `norm(x, update=False)` normalizes and learns nothing. Where a model gives its layers no such word, as
    `nnx.Sequential`, Flax's `model.eval()` and `model.train()` switch `use_running_average`, which does the same.

    Args:
      shape: of one example, or the number of features.
      decay: of mean and variance, in [0, 1); 0.99 looks back about 100 batches.
      epsilon: added to the variance, in squared units of x, >= 0.
      largest: bound of what comes out, > 0.
      shift: in standard deviations, >= 0; an input whose short mean is farther than that from its mean anneals anew.
      short_decay: of the short mean, in [0, 1).
      pooled: the content-free control: all inputs together have one mean and one spread.

    Raises:
      UsageError: a number outside its range; later, examples of another shape, or none.

    Reference:
      As `neuroml.adaptation.make`.

    >>> norm = StreamingNorm(2, decay=0.9)
    >>> for _ in range(100):
    ...     y = norm(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> norm(jnp.array([[3.0, 5.0]]), update=False).round(1).tolist(), nnx.state(norm, nnx.Param)
    ([[1.0, 0.0]], State({}))
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        decay: float = 0.99,
        *,
        epsilon: float = 1e-3,
        largest: float = 3.0,
        shift: float = float("inf"),
        short_decay: float = 0.9,
        pooled: bool = False,
    ):
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        # Hashable, since NNX compares what is no array whenever it compiles.
        self._settings: tuple[tuple[str, Any], ...] = (
            ("decay", float(decay)),
            ("epsilon", float(epsilon)),
            ("largest", float(largest)),
            ("shift", float(shift)),
            ("short_decay", float(short_decay)),
            ("pooled", pooled),
        )
        self.use_running_average = False
        for name, array in self._functions.init(self.shape)._asdict().items():
            setattr(self, name, Statistic(array))

    def __call__(self, x: Float[Array | np.ndarray, "batch ..."], update: bool = True) -> Float[Array, "batch ..."]:
        """Returns normalized inputs, float32, after learning of them."""
        x = jnp.asarray(x)
        if x.shape[1:] != self.shape or not x.shape[0]:
            raise UsageError(f"StreamingNorm of shape {self.shape} needs a batch [n, ...] of it, not {x.shape}.")
        if update and not self.use_running_average:
            state = self._functions.update(self.state, jax.lax.stop_gradient(x))
            for name, array in state._asdict().items():
                getattr(self, name)[...] = array
        return self._functions.apply(self.state, x)

    @property
    def state(self) -> AdaptationState:
        """The statistics, as arrays for the pure functions of `neuroml.adaptation`."""
        return AdaptationState(**{name: getattr(self, name)[...] for name in AdaptationState._fields})

    @property
    def _functions(self) -> Adaptation:
        return adaptation.make(**dict(self._settings))


def crelu(x: Float[Array, "*batch features"]) -> Float[Array, "*batch twice"]:
    """Returns what ReLU lets through, and behind it what ReLU cuts off: twice as many features.

        crelu(x) = concatenate(max(x, 0), max(-x, 0))

    For every x but 0 one of the two has slope 1: a unit cannot die.

    Reference:
      Shang et al. 2016, "Understanding and improving convolutional neural networks via concatenated rectified linear
      units"; against lost plasticity: Abbas et al. 2023, "Loss of plasticity in continual deep reinforcement learning".

    >>> crelu(jnp.array([[1.0, -2.0]])).tolist()
    [[1.0, 0.0, 0.0, 2.0]]
    """
    return jax.nn.relu(jnp.concatenate([x, -x], axis=-1))
