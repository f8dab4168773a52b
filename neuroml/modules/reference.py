"""The reference networks of the benchmarks: a multilayer perceptron and a small convolutional network."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from neuroml.errors import UsageError, unknown
from neuroml.modules.network import Network, from_nnx
from neuroml.wiring import chain

INITIALIZATIONS = ("lecun", "torch", "glorot", "smooth")
ACTIVATIONS = ("relu", "crelu")

# Of the receptive fields of "smooth", in shares of the image's side: correlation length, smallest and largest radius.
_SMOOTHNESS, _RADII = 0.054, (0.09, 0.21)
_SMOOTH_GAIN = 2.0  # length of the first layer's weight vectors, and of the others' beside He's


class MLP(nnx.Module):
    """A multilayer perceptron with ReLU; it flattens its input.

    Its parameters are `{"layers": {0: {"kernel", "bias"}, 1: ...}, "head": {"kernel", "bias"}}`, and "norms" like
    "layers" where it has layer norm.
    """

    def __init__(
        self,
        inputs: int | tuple[int, ...],
        hidden: Sequence[int],
        outputs: int,
        *,
        initialization: str = "lecun",
        activation: str = "relu",
        layer_norm: bool = False,
        rngs: nnx.Rngs,
    ):
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        self.activation = activation
        sizes = [inputs if isinstance(inputs, int) else math.prod(inputs), *hidden]
        made = 2 if activation == "crelu" else 1  # answers that a neuron gives to the next layer
        pairs = [(size * (made if at else 1), after) for at, (size, after) in enumerate(itertools.pairwise(sizes))]
        self.layers = nnx.List([_dense(*pair, initialization, rngs) for pair in pairs])
        if layer_norm:
            self.norms = nnx.List([nnx.LayerNorm(size, rngs=rngs) for size in hidden])
        self.layer_norm = layer_norm
        if initialization == "smooth" and hidden:
            self.layers[0] = _receptive_fields(inputs, hidden[0], rngs)
        last = sizes[-1] * (made if hidden else 1)
        self.head = _dense(last, outputs, "torch" if initialization == "smooth" else initialization, rngs)

    def __call__(
        self, x: Float[Array | np.ndarray, "batch *features"], after: Callable[[int, Array], Array] | None = None
    ) -> Float[Array, "batch outputs"]:
        """Returns one score for each output.

        `after(number, answers)` is what hidden layer `number` hands on in the place of its answers, [batch, size].
        """
        x = jnp.asarray(x).reshape(x.shape[0], -1)
        for number, layer in enumerate(self.layers):
            x = self.norms[number](layer(x)) if self.layer_norm else layer(x)
            x = nnx.relu(jnp.concatenate([x, -x], axis=-1) if self.activation == "crelu" else x)
            x = x if after is None else after(number, x)
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
        if initialization == "smooth":
            raise UsageError('initialization="smooth" is for the dense layers of an `mlp`: take another one for a cnn.')
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
    inputs: int | tuple[int, ...],
    hidden: Sequence[int],
    outputs: int,
    *,
    initialization: str = "lecun",
    activation: str = "relu",
    layer_norm: bool = False,
) -> Network:
    """Makes a multilayer perceptron with ReLU.

    Initializations, for a layer with `fan_in` inputs and `fan_out` outputs:

    * "lecun", Flax's default: kernel ~ truncated normal with variance 1 / fan_in; bias 0.
    * "torch", PyTorch's default, which van de Ven's code uses: kernel and bias ~ uniform(-b, b), b = 1 /
      sqrt(fan_in).
    * "glorot", which Mammoth's MLP uses: kernel ~ uniform(-b, b), b = sqrt(6 / (fan_in + fan_out)); bias 0.
    * "smooth", for images: each unit of the first layer sees a random, smooth receptive field: Gaussian noise,
      blurred, under a Gaussian window at a random place, without its mean, scaled to length 2. The other hidden
      kernels ~ normal with variance 4 * 2 / fan_in, their biases 0; the head as "torch". It knows that pixels form an
      image, and nothing of any data.

    Args:
      inputs: the number of inputs, or the shape of one example, such as `(28, 28, 1)`; it is flattened.
      hidden: the number of neurons of each hidden layer.
      outputs: the number of classes.
      initialization: "lecun", "torch", "glorot" or "smooth".
      activation: "relu"; or "crelu", which also hands on what ReLU cuts off, as twice as many inputs of the next layer
        (Shang et al. 2016; against lost plasticity: Abbas et al. 2023). Its neurons have no wiring.
      layer_norm: normalizes what each hidden layer gives before the activation (Ba et al. 2016).

    Returns:
      The `Network`, with `params = {"layers": {0: {"kernel", "bias"}, ...}, "head": {"kernel", "bias"}}`.

    Raises:
      UsageError: when the initialization or activation is unknown, or "smooth" is asked for inputs that are no image.

    >>> params, _ = mlp((28, 28, 1), [400, 400], 10).init(jax.random.key(0))
    >>> params["layers"][1]["kernel"].shape, params["head"]["kernel"].shape
    ((400, 400), (400, 10))
    """
    settings = {"initialization": initialization, "activation": activation, "layer_norm": layer_norm}
    network = from_nnx(lambda rngs: MLP(inputs, hidden, outputs, **settings, rngs=rngs))
    dense = [f"layers/{number}" for number in range(len(hidden))]
    norms = {f"norms/{number}": layer for number, layer in enumerate(dense)}
    name = lambda params: chain(params, [*dense, "head"], norms=norms, unnamed=["dendrites"])  # `neuroml.dendrites`
    return network if activation == "crelu" else network._replace(wiring=name)


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
      initialization: as for `mlp`, but for "smooth"; `fan_in` of a convolution is 9 times its input channels. (Mammoth
        initializes only dense layers with "glorot"; ours does so with all.)

    Returns:
      The `Network`, with `params = {"convolutions": {0: ...}, "layers": {0: ...}, "head": ...}`.

    Raises:
      UsageError: when the image cannot be halved so often, or the initialization is unknown or "smooth".

    >>> params, _ = cnn((8, 8, 3), channels=(4, 8), hidden=(16,)).init(jax.random.key(0))
    >>> params["convolutions"][1]["kernel"].shape, params["layers"][0]["kernel"].shape
    ((3, 3, 4, 8), (32, 16))
    """
    network = from_nnx(lambda rngs: CNN(shape, channels, hidden, outputs, initialization=initialization, rngs=rngs))
    dense = [f"layers/{number}" for number in range(len(hidden))]
    # The image is flattened behind the convolutions, so their channels are no axis of the next kernel.
    return network._replace(wiring=lambda params: chain(params, [*dense, "head"], unnamed=["convolutions"]))


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


def _receptive_fields(shape: int | tuple[int, ...], units: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a dense layer whose units see smooth random filters of an image."""
    if isinstance(shape, int) or len(shape) != 3:
        raise UsageError(f'initialization="smooth" needs inputs of shape (height, width, channels), not {shape}.')

    def fields(key, size, dtype):
        return _SMOOTH_GAIN * _smooth_filters(key, size[1], shape).astype(dtype)

    return nnx.Linear(math.prod(shape), units, kernel_init=fields, rngs=rngs)


def _smooth_filters(key: Array, units: int, shape: tuple[int, ...]) -> Float[Array, "pixels units"]:
    """Returns blurred noise under Gaussian windows at random places, without mean, of length 1."""
    height, width, channels = shape
    noise, place, radius = jax.random.split(key, 3)
    side = max(height, width)
    blur = lambda n: jnp.exp(-((jnp.arange(n)[:, None] - jnp.arange(n)) ** 2) / (2 * (_SMOOTHNESS * side) ** 2))
    field = jax.random.normal(noise, (units, height, width, channels))
    field = jnp.einsum("ij,kl,ujlc->uikc", blur(height), blur(width), field)
    centre = jax.random.uniform(place, (units, 2)) * jnp.array([height, width])
    radius = side * jax.random.uniform(radius, (units, 1), minval=_RADII[0], maxval=_RADII[1])
    bump = lambda n, at: jnp.exp(-((jnp.arange(n) - at) ** 2) / (2 * radius**2))
    window = bump(height, centre[:, :1])[:, :, None] * bump(width, centre[:, 1:])[:, None, :]
    window = window[..., None] * jnp.ones(channels)
    field = field * window
    field = field - window * (field.sum((1, 2, 3)) / window.sum((1, 2, 3)))[:, None, None, None]
    field = field / jnp.linalg.norm(field.reshape(units, -1), axis=1)[:, None, None, None]
    return field.reshape(units, -1).T


def _convolution(inputs: int, outputs: int, initialization: str, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (3, 3), **_initializers(initialization, 9 * inputs), rngs=rngs)


def _initializers(initialization: str, fan_in: int) -> dict[str, Any]:
    if initialization == "lecun":
        return {}
    if initialization == "glorot":
        return {"kernel_init": jax.nn.initializers.glorot_uniform()}
    if initialization == "smooth":
        variance = _SMOOTH_GAIN**2 * 2
        return {"kernel_init": jax.nn.initializers.variance_scaling(variance, "fan_in", "normal")}
    if initialization == "torch":
        bound = 1 / math.sqrt(fan_in)

        def uniform(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return {"kernel_init": uniform, "bias_init": uniform}
    raise unknown("initialization", initialization, INITIALIZATIONS)
