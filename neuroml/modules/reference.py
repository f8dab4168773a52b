"""The reference networks of the benchmarks: a multilayer perceptron and a small convolutional network."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from neuroml.errors import UsageError, unknown
from neuroml.modules.network import Network, from_nnx

INITIALIZATIONS = ("lecun", "torch", "glorot")


class MLP(nnx.Module):
    """A multilayer perceptron with ReLU; it flattens its input.

    Its parameters are `{"layers": {0: {"kernel", "bias"}, 1: ...}, "head": {"kernel", "bias"}}`.
    """

    def __init__(
        self,
        inputs: int | tuple[int, ...],
        hidden: Sequence[int],
        outputs: int,
        *,
        initialization: str = "lecun",
        rngs: nnx.Rngs,
    ):
        sizes = [inputs if isinstance(inputs, int) else math.prod(inputs), *hidden]
        self.layers = _dense_layers(sizes, initialization, rngs)
        self.head = _dense(sizes[-1], outputs, initialization, rngs)

    def __call__(self, x: Float[Array | np.ndarray, "batch *features"]) -> Float[Array, "batch outputs"]:
        """Returns one score for each output."""
        x = jnp.asarray(x).reshape(x.shape[0], -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x)


class CNN(nnx.Module):
    """Blocks of a 3x3 convolution, 2x2 max pooling and ReLU, then dense layers.

    There is no batch normalization: its running statistics mix the tasks, and no rule protects them. Pooling
    comes before ReLU, which gives the same values and leaves ReLU a quarter of the work.

    Its parameters are those of `MLP`, with the convolutions under "convolutions".
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (32, 32, 3),
        channels: Sequence[int] = (32, 64, 128),
        hidden: Sequence[int] = (256,),
        outputs: int = 10,
        *,
        initialization: str = "lecun",
        rngs: nnx.Rngs,
    ):
        height, width, colours = shape
        factor = 2 ** len(channels)
        if height % factor or width % factor:
            raise UsageError(
                f"images of {height}x{width} cannot be halved {len(channels)} times, once for each of "
                f"channels={tuple(channels)}: pad them to multiples of {factor}, or give fewer channels."
            )
        pairs = itertools.pairwise([colours, *channels])
        self.convolutions = nnx.List([_convolution(*pair, initialization, rngs) for pair in pairs])
        sizes = [height // factor * (width // factor) * [colours, *channels][-1], *hidden]
        self.layers = _dense_layers(sizes, initialization, rngs)
        self.head = _dense(sizes[-1], outputs, initialization, rngs)

    def __call__(self, x: Float[Array | np.ndarray, "batch height width colours"]) -> Float[Array, "batch outputs"]:
        """Returns one score for each output."""
        x = jnp.asarray(x)
        for convolution in self.convolutions:
            x = nnx.relu(max_pool(convolution(x)))
        x = x.reshape(x.shape[0], -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x)


def mlp(
    inputs: int | tuple[int, ...], hidden: Sequence[int], outputs: int, *, initialization: str = "lecun"
) -> Network:
    """Makes a multilayer perceptron with ReLU.

    Initializations, for a layer with `fan_in` inputs and `fan_out` outputs:

    * "lecun", Flax's default: kernel ~ truncated normal with variance 1 / fan_in; bias 0.
    * "torch", PyTorch's default, which van de Ven's code uses: kernel and bias ~ uniform(-b, b), b = 1 /
      sqrt(fan_in).
    * "glorot", which Mammoth's MLP uses: kernel ~ uniform(-b, b), b = sqrt(6 / (fan_in + fan_out)); bias 0.

    Args:
      inputs: the number of inputs, or the shape of one example, such as `(28, 28, 1)`; it is flattened.
      hidden: the number of neurons of each hidden layer.
      outputs: the number of classes.
      initialization: "lecun", "torch" or "glorot".

    Returns:
      The `Network`, with `params = {"layers": {0: {"kernel", "bias"}, ...}, "head": {"kernel", "bias"}}`.

    Raises:
      UsageError: when the initialization is unknown.

    >>> params, _ = mlp((28, 28, 1), [400, 400], 10).init(jax.random.key(0))
    >>> params["layers"][1]["kernel"].shape, params["head"]["kernel"].shape
    ((400, 400), (400, 10))
    """
    return from_nnx(lambda rngs: MLP(inputs, hidden, outputs, initialization=initialization, rngs=rngs))


def cnn(
    shape: tuple[int, int, int] = (32, 32, 3),
    channels: Sequence[int] = (32, 64, 128),
    hidden: Sequence[int] = (256,),
    outputs: int = 10,
    *,
    initialization: str = "lecun",
) -> Network:
    """Makes a convolutional network without normalization.

    Blocks of a 3x3 convolution, 2x2 max pooling and ReLU each halve the image; dense layers follow.

    Args:
      shape: `(height, width, colours)` of one image; height and width must be multiples of `2 **
        len(channels)`.
      channels: the number of channels of each convolution.
      hidden: the number of neurons of each dense hidden layer.
      outputs: the number of classes.
      initialization: as for `mlp`; `fan_in` of a convolution is 9 times its input channels. (Mammoth
        initializes only dense layers with "glorot"; ours does so with all.)

    Returns:
      The `Network`, with `params = {"convolutions": {0: ...}, "layers": {0: ...}, "head": ...}`.

    Raises:
      UsageError: when the image cannot be halved so often, or the initialization is unknown.

    >>> params, _ = cnn((8, 8, 3), channels=(4, 8), hidden=(16,)).init(jax.random.key(0))
    >>> params["convolutions"][1]["kernel"].shape, params["layers"][0]["kernel"].shape
    ((3, 3, 4, 8), (32, 16))
    """
    return from_nnx(lambda rngs: CNN(shape, channels, hidden, outputs, initialization=initialization, rngs=rngs))


def max_pool(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    """Returns the maximum of each 2x2 square; height and width must be even.

    It reshapes instead of sliding a window: on CPU the gradient is several times faster, and on GPU it can
    run with deterministic operations. The gradient is split evenly among equal maxima; a sliding window gives
    it to one.

    >>> max_pool(jax.numpy.arange(16.0).reshape(1, 4, 4, 1)).ravel()
    Array([ 5.,  7., 13., 15.], dtype=float32)
    """
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise UsageError(f"images of {height}x{width} cannot be halved: pad them to an even height and width.")
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _dense_layers(sizes: Sequence[int], initialization: str, rngs: nnx.Rngs) -> Any:
    return nnx.List([_dense(*pair, initialization, rngs) for pair in itertools.pairwise(sizes)])


def _dense(inputs: int, outputs: int, initialization: str, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, **_initializers(initialization, inputs), rngs=rngs)


def _convolution(inputs: int, outputs: int, initialization: str, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (3, 3), **_initializers(initialization, 9 * inputs), rngs=rngs)


def _initializers(initialization: str, fan_in: int) -> dict[str, Any]:
    if initialization == "lecun":
        return {}
    if initialization == "glorot":
        return {"kernel_init": jax.nn.initializers.glorot_uniform()}
    if initialization == "torch":
        bound = 1 / math.sqrt(fan_in)

        def uniform(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return {"kernel_init": uniform, "bias_init": uniform}
    raise unknown("initialization", initialization, INITIALIZATIONS)
