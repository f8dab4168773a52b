"""Growable layers as Flax NNX modules: a capacity, of which some units are alive, and a birth that nobody notices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from neuroml.errors import UsageError

# Flax's defaults; made once, since NNX compares what is no array whenever it compiles.
_KERNEL_INIT, _BIAS_INIT = jax.nn.initializers.lecun_normal(), jax.nn.initializers.zeros


class _Growable:
    """What the growable layers share. The last axis of the kernel is that of the units, its other axes enter one."""

    kernel: Any
    bias: Any
    _initializers: tuple[Callable, Callable]  # of kernel and bias
    _image: bool = False  # whether a dense reader may be given the units once for each place

    def __call__(self, inputs: Any, **options: Any) -> Array:
        """Returns the units' answers, those in reserve at 0."""
        layer: Any = super()  # the stock layer that stands behind this class
        return jnp.where(self.alive, layer.__call__(inputs, **options), 0)

    @property
    def alive(self) -> Bool[Array, " capacity"]:
        """Which units are alive: those with any incoming weight other than zero."""
        kernel = self.kernel[...]
        return (kernel != 0).any(tuple(range(kernel.ndim - 1)))

    @property
    def room(self) -> int:
        """How many units are in reserve."""
        return int((~self.alive).sum())

    def grow(self, count: int, *readers: nnx.Linear | nnx.Conv, rngs: nnx.Rngs) -> None:
        """Wakes `count` units: fresh incoming weights and bias, and outgoing weights of zero in every reader.

        Whatever the network answered it answers still, if what stands in between makes 0 of 0, as relu and tanh do.
        After a sigmoid, which makes 1/2 of it, readers hear units in reserve until these are born. To be called between
        steps, not inside `jit`, where the rule `neuroml.growth` does the like; an optimizer's moments of these weights
        are zero already.

        Args:
          count: how many, >= 0.
          *readers: all the layers that the units feed, and that read nothing else. After `GrowableConv`, one that reads
            the flattened image is fine.
          rngs: random numbers for the weights.

        Raises:
          UsageError: no reader, one with another number of inputs, or fewer units in reserve than `count`.
        """
        capacity = self.kernel.shape[-1]
        if not readers or count < 0:
            raise UsageError(f"grow needs a count >= 0 and the layers that read the units; given {count}, {readers}.")
        if isinstance(self.kernel[...], jax.core.Tracer):
            raise UsageError("grow runs between steps, not inside `jit`; inside, use the rule `neuroml.growth`.")
        if count > self.room:
            raise UsageError(
                f"{count} units cannot be born: {self.room} of {capacity} are in reserve. `neuroml.resize` makes room."
            )
        born = ~self.alive & (jnp.cumsum(~self.alive) <= count)
        places = [self._places(reader.kernel.shape) for reader in readers]
        for reader, times in zip(readers, places, strict=True):
            rows = jnp.tile(born, times)  # a flattened image has the channels last
            reader.kernel[...] = jnp.where(rows[:, None], 0, reader.kernel[...])
        self._fill(born, rngs)

    def _places(self, shape: tuple[int, ...]) -> int:
        """Returns how often the units stand among the inputs of a reader with a kernel of this shape."""
        width, capacity = shape[-2], self.kernel.shape[-1]
        flat = self._image and len(shape) == 2
        if width % capacity or not (flat or width == capacity):
            raise UsageError(
                f"a reader has {width} inputs; the units to be born are of {capacity}. To read other inputs too, give "
                "these a layer of their own and add the two answers."
            )
        return width // capacity

    def _fill(self, units: Bool[Array, " capacity"], rngs: nnx.Rngs) -> None:
        """Gives these units fresh weights."""
        kernel_init, bias_init = self._initializers
        fresh = kernel_init(rngs.params(), self.kernel.shape, self.kernel.dtype)
        self.kernel[...] = jnp.where(units, fresh, self.kernel[...])
        if self.bias is not None:
            fresh = bias_init(rngs.params(), self.bias.shape, self.bias.dtype)
            self.bias[...] = jnp.where(units, fresh, self.bias[...])

    def _begin(self, alive: int, kernel_init: Callable, bias_init: Callable) -> None:
        """Leaves only the first `alive` units alive."""
        self._initializers = kernel_init, bias_init
        capacity = self.kernel.shape[-1]
        if not 1 <= alive <= capacity:
            raise UsageError(f"alive={alive} must be at least 1 and at most the capacity, {capacity}.")
        kept = jnp.arange(capacity) < alive
        self.kernel[...] = jnp.where(kept, self.kernel[...], 0)
        if self.bias is not None:
            self.bias[...] = jnp.where(kept, self.bias[...], 0)


class GrowableDense(_Growable, nnx.Linear):
    """A linear layer with a capacity, of which some units are alive. The others answer 0 and learn nothing.

        layer(x)_j = (x @ kernel + bias)_j where unit j is alive, else 0
        layer.grow(count, *readers, rngs=rngs): units are born; the network's function stays as it is

    It is an `nnx.Linear` in everything else: the same parameters under the same names, allocated for the capacity and
    so counted, captured by `neuroml.activity`, and grown by the rule `neuroml.growth` as by hand. A unit is alive when
    it has an incoming weight other than zero: `layer.alive` is read from the weights, so that nothing has to be kept in
    step with them.

    For the rule a unit with outgoing weights is alive, too, and those in a stock reader are not zero: call
    `params = neuroml.reserve(params, wiring, alive=...)` before the rule's `init`, or all count as alive and none is
    ever born. (It cannot tell: one that hears nothing may be a pruned neuron, which is alive.)

    Between the layer and its readers nothing may mix the units (no normalization over them) or put others beside them
    (no concatenation: give what skips the layer a reader of its own, and add the answers); an activation may follow
    that makes 0 of 0, such as relu, tanh or gelu (not a sigmoid, which lets readers hear units in reserve).

    Args:
      inputs: width of x.
      capacity: units that are allocated.
      alive: units that are alive at first, from 1 to `capacity`.
      kernel_init, bias_init: initializers, of the newborn too; default Flax's.
      rngs: random numbers for the weights.
      **options: of `nnx.Linear`, such as `use_bias`.

    Raises:
      UsageError: `alive` out of range; later, a growth for which there is no room.

    Reference:
      Zero outgoing weights at birth: Evci et al. 2022, ICLR, "GradMax: growing neural networks using gradient
      information".

    How ours differs: the incoming weights are drawn from the layer's own initializer, not from the largest gradient.

    >>> rngs = nnx.Rngs(0)
    >>> layer, head = GrowableDense(3, 8, alive=2, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
    >>> before = head(nnx.relu(layer(jnp.ones((1, 3)))))
    >>> layer.grow(4, head, rngs=rngs)
    >>> after = head(nnx.relu(layer(jnp.ones((1, 3)))))
    >>> int(layer.alive.sum()), layer.room, bool(abs(after - before).max() < 1e-6)
    (6, 2, True)
    """

    def __init__(
        self,
        inputs: int,
        capacity: int,
        *,
        alive: int,
        kernel_init: Callable = _KERNEL_INIT,
        bias_init: Callable = _BIAS_INIT,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        super().__init__(inputs, capacity, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs, **options)
        self._begin(alive, kernel_init, bias_init)


class GrowableConv(_Growable, nnx.Conv):
    """A convolution with a capacity of channels, of which some are alive: `GrowableDense` for images.

    By hand it grows before a flattened image, too. The rule `neuroml.growth` cannot grow it there: it needs names for
    the channels, and in a network that flattens the image, as `neuroml.cnn` does, they have none. Average each channel
    over the image instead.

    Args:
      inputs: channels of x.
      capacity: channels that are allocated.
      kernel_size: extent of the kernel.
      alive: channels that are alive at first, from 1 to `capacity`.
      kernel_init, bias_init: initializers, of the newborn too; default Flax's.
      rngs: random numbers for the weights.
      **options: of `nnx.Conv`, such as `strides` or `padding`.

    Raises:
      UsageError: as for `GrowableDense`.

    >>> rngs = nnx.Rngs(0)
    >>> layer, head = GrowableConv(1, 4, (3, 3), alive=1, rngs=rngs), nnx.Linear(8 * 8 * 4, 2, rngs=rngs)
    >>> layer.grow(2, head, rngs=rngs)
    >>> layer(jnp.ones((1, 8, 8, 1))).shape, layer.alive.tolist()
    ((1, 8, 8, 4), [True, True, True, False])
    """

    _image = True

    def __init__(
        self,
        inputs: int,
        capacity: int,
        kernel_size: int | tuple[int, ...],
        *,
        alive: int,
        kernel_init: Callable = _KERNEL_INIT,
        bias_init: Callable = _BIAS_INIT,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        given = {"kernel_init": kernel_init, "bias_init": bias_init, "rngs": rngs, **options}
        super().__init__(inputs, capacity, kernel_size, **given)
        self._begin(alive, kernel_init, bias_init)
