"""Activity: the inputs of a model's layers, captured from an unchanged model.

`activity` mirrors the parameters down to the layer: where `params["layers"][0]` holds the `kernel` of a
layer, `activity["layers"][0]` holds what that layer was given, `[batch, ..., in]`. Rules that work on inputs
(projectors, homeostasis, recycling) take it as the context word `activity`.

Captured are `nnx.Linear`, `nnx.Conv`, `linen.Dense`, `linen.Conv` and their subclasses. A layer that was
called several times has its inputs one after the other along the batch; a layer that was not called is left
out; a layer that was called without a batch axis gets one of size 1.

What is captured does not say how a convolution slides: a rule that takes patches of it assumes stride 1, "SAME" and no
dilation unless its `windows` names other strides and padding.
"""

import contextvars
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from neuroml.errors import UsageError, unknown

# Where the capture that is open in this thread keeps the inputs of each layer, and what that is given instead of them
# (None: nothing), by the identity of the layer.
_seen: contextvars.ContextVar[Mapping[int, tuple[Any, Any]]] = contextvars.ContextVar("seen")

# Linen carries the inputs out of the model in a variable collection of this name.
_COLLECTION = "neuroml_activity"


def capture_nnx(model: Any, x: Any, *, replaced: Mapping[str, Any] | None = None, **kwargs: Any) -> tuple[Any, Any]:
    """Calls an NNX module and returns the inputs of its layers beside its outputs.

    The call changes the model's Variables (running statistics, random streams) as `model(x, **kwargs)` does,
    and leaves no trace of the capture. It may stand inside `jit`, `grad` and `vmap`.

    Args:
      model: an `nnx.Module`.
      x: its input.
      replaced: inputs that layers are given instead of their own, by the path of the layer, such as `{"layers/1": h}`,
        for as many examples as `x` has. Under `jit`, what then has no effect is not computed.
      **kwargs: further keywords of the model.

    Returns:
      The outputs, and the activity: nested dictionaries that mirror the parameters. Strides and padding of convolutions
      are not in it; rules are told them by `windows`.

    Raises:
      UsageError: when no layer can be captured, a layer runs inside `nnx.scan`, `nnx.remat` or the like, or `replaced`
        names a layer that cannot be captured.

    >>> from flax import nnx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs))
    >>> outputs, activity = capture_nnx(model, jnp.ones((5, 3)))
    >>> jax.tree.map(jnp.shape, activity)
    {'layers': {0: (5, 3), 2: (5, 4)}}
    >>> capture_nnx(model, jnp.ones((5, 3)), replaced={"layers/2": jnp.zeros((5, 4))})[0].any()
    Array(False, dtype=bool)
    """
    from flax import nnx

    view: Any = nnx.merge(*nnx.split(model))  # other objects around the same Variables: ours to change
    params = nnx.state(view, nnx.Param)
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda node: isinstance(node, nnx.Variable))
    owners = {id(variable): tuple(key.key for key in path[:-1]) for path, variable in leaves}
    inputs: dict[tuple, Any] = {}
    seen: dict[int, tuple[Any, Any]] = {}
    for _, layer in list(nnx.iter_modules(view)):
        if isinstance(layer, nnx.Linear | nnx.Conv) and id(layer.kernel) in owners:
            path = owners[id(layer.kernel)]
            seen[id(layer)] = inputs.setdefault(path, nnx.Variable(())), (replaced or {}).get(_name(path))
            object.__setattr__(layer, "__class__", _recording(type(layer)))
    if not seen:
        raise _nothing_to_capture(model)
    _require_known(replaced, map(_name, inputs))
    token = _seen.set(seen)
    try:
        outputs = view(x, **kwargs)
    finally:
        _seen.reset(token)
    return outputs, _nest({path: parts.get_value() for path, parts in inputs.items()})


def capture_linen(
    module: Any, variables: Mapping[str, Any], x: Any, *, replaced: Mapping[str, Any] | None = None, **kwargs: Any
) -> tuple[Any, Any]:
    """Applies a Linen module and returns the inputs of its layers beside its outputs.

    Args:
      module: a `linen.Module`.
      variables: as for `module.apply`: `{"params": params, ...}`.
      x: its input.
      replaced: as for `capture_nnx`.
      **kwargs: as for `module.apply`, such as `rngs=` or `train=`; with `mutable=["batch_stats"]` the outputs
        are the pair that `module.apply` then returns.

    Returns:
      What `module.apply` returns, and the activity: nested dictionaries that mirror the parameters. Strides and padding
      of convolutions are not in it; rules are told them by `windows`.

    Raises:
      UsageError: when no layer was captured, a layer runs inside `nn.scan` or `nn.vmap`, or `replaced` names a layer
        that was not called.

    >>> from flax import linen
    >>> model = linen.Sequential([linen.Dense(4), linen.relu, linen.Dense(2)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> outputs, activity = capture_linen(model, variables, jnp.ones((5, 3)))
    >>> jax.tree.map(jnp.shape, activity)
    {'layers_0': (5, 3), 'layers_2': (5, 4)}
    """
    from flax import linen, traverse_util
    from flax.core.scope import union_filters

    def interceptor(call, args, call_kwargs, context):
        layer = context.module
        if context.method_name != "__call__" or not isinstance(layer, linen.Dense | linen.Conv):
            return call(*args, **call_kwargs)
        if replaced and _name(layer.path) in replaced:
            args, call_kwargs = _with_first(replaced[_name(layer.path)], args, call_kwargs)
        outputs = call(*args, **call_kwargs)
        inputs = _batched(_first(args, call_kwargs), layer.get_variable("params", "kernel"))
        if not layer.sow(_COLLECTION, "inputs", inputs):
            raise _hidden(type(layer).__name__)
        return outputs

    mutable = kwargs.pop("mutable", False)
    with linen.intercept_methods(interceptor):
        outputs, changed = module.apply(variables, x, mutable=union_filters(mutable, _COLLECTION), **kwargs)
    changed = dict(changed)
    captured: Any = traverse_util.flatten_dict(changed.pop(_COLLECTION, {}))
    if not captured:
        raise _nothing_to_capture(module)
    _require_known(replaced, [_name(path[:-1]) for path in captured])
    activity = _nest({path[:-1]: parts for path, parts in captured.items()})
    return (outputs if mutable is False else (outputs, changed)), activity


def patches(
    x: Num[Array, "batch height width channels"],
    kernel_size: tuple[int, int],
    strides: int | tuple[int, int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Num[Array, "batch rows columns patch"]:
    """Unfolds the input of a convolution into the patches that its kernel meets.

    The convolution is `patches(x, ...) @ kernel.reshape(-1, outputs)`: what holds for the inputs of a dense
    layer holds for these patches.

    Args:
      x: `[batch, height, width, channels]`.
      kernel_size: `(height, width)` of the kernel.
      strides: the step between patches, for both axes or for each.
      padding: "SAME", "SAME_LOWER", "VALID", or `(before, after)` for each axis.

    Returns:
      `[batch, rows, columns, kernel height * kernel width * channels]`, the last axis in the kernel's order.

    Raises:
      UsageError: when the padding is unknown.

    >>> patches(jnp.ones((1, 4, 4, 3)), (3, 3), padding="VALID").shape
    (1, 2, 2, 27)
    """
    steps = (strides, strides) if isinstance(strides, int) else strides
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
            raise unknown("padding", padding, ("SAME", "SAME_LOWER", "VALID"))
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel_size, steps, padding)
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    (height, width), (down, right) = kernel_size, steps
    last_row, last_column = x.shape[1] - height, x.shape[2] - width
    windows = [
        x[:, row : row + last_row + 1 : down, column : column + last_column + 1 : right]
        for row in range(height)
        for column in range(width)
    ]
    return jnp.concatenate(windows, axis=-1)


@functools.cache
def _recording(kind: Any) -> Any:
    """Returns the subclass of `kind` that notes its inputs; one for good, as JAX never forgets a class."""
    from flax.errors import TraceContextError

    class Recording(kind):
        def __call__(self, *args, **kwargs):
            kept, instead = _seen.get({}).get(id(self), (None, None))
            if kept is None:  # another object of the layer
                raise _hidden(kind.__name__)
            if instead is not None:
                args, kwargs = _with_first(instead, args, kwargs)
            inputs = _batched(_first(args, kwargs), self.kernel)
            try:
                kept.set_value((*kept.get_value(), inputs))
            except TraceContextError as error:  # another trace level
                raise _hidden(kind.__name__) from error
            return super().__call__(*args, **kwargs)

    Recording.__name__ = Recording.__qualname__ = kind.__name__
    return Recording


def _first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _with_first(value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns the arguments of a call with another first one."""
    return ((value, *args[1:]), kwargs) if args else ((), {**kwargs, next(iter(kwargs)): value})


def _require_known(replaced: Mapping[str, Any] | None, known: Iterable[str]) -> None:
    for name in set(replaced or {}) - (names := set(known)):
        raise unknown("layer in `replaced`", name, names)


def _batched(inputs: Any, kernel: Any) -> Array:
    """Returns `inputs` with a batch axis: then they have as many axes as the kernel, or more."""
    return inputs[None] if jnp.ndim(inputs) < len(kernel.shape) else jnp.asarray(inputs)


def _nest(inputs: Mapping[tuple, Sequence[Array]]) -> Any:
    """Turns `{("a", 0): [x, y]}` into `{"a": {0: x and y along the batch}}`; the path `()` is the whole."""
    from flax import traverse_util

    joined = {path: _join(path, parts) for path, parts in inputs.items() if parts}
    for path in joined:
        if any(path[:length] in joined for length in range(len(path))):
            raise UsageError(f"layer {_name(path)} is part of another layer, and both need that place.")
    return joined[()] if () in joined else traverse_util.unflatten_dict(joined)


def _join(path: tuple, parts: Sequence[Array]) -> Array:
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise UsageError(f"layer {_name(path)} met inputs of several shapes, {shapes}: they make no batch.")
    return jnp.concatenate(parts)


def _name(path: tuple) -> str:
    return "/".join(map(str, path))


def _hidden(layer: str) -> UsageError:
    return UsageError(
        f"the inputs of a {layer} cannot be captured: it runs inside a transformation within the model "
        "(scan, vmap, remat, jit). Call the layer outside of it."
    )


def _nothing_to_capture(model: Any) -> UsageError:
    return UsageError(
        f"{type(model).__name__} has no layer whose inputs can be captured. Supported are nnx.Linear and "
        "nnx.Conv, linen.Dense and linen.Conv, and their subclasses, with a `kernel` among the parameters."
    )
