"""Wiring: neurons are named axes.

A `wiring` mirrors the parameters, with a tuple of names in place of each array, one name for each axis:

    {"layers": {0: {"kernel": ("input", "hidden_0"), "bias": ("hidden_0",)}},
     "head": {"kernel": ("hidden_0", "output"), "bias": ("output",)}}

Axes that share a name belong to the same neurons, a *population*; an axis named None belongs to none. So one
vector with a number for each neuron can be spread over all weights that enter or leave these neurons,
whatever the layers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from neuroml.errors import UsageError, unknown


def populations(wiring: Any, params: Any) -> dict[str, int]:
    """Returns the number of neurons of each population, after checking that the wiring fits the parameters.

    Args:
      wiring: a tree like `params` with a tuple of names for each array.
      params: a tree of arrays.

    Returns:
      `{name: size}`, in the order in which the names appear.

    Raises:
      UsageError: when the trees differ, an array has more or fewer axes than names, or two axes of different
        size have the same name.

    >>> wiring = {"kernel": ("input", "output"), "bias": ("output",)}
    >>> populations(wiring, {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
    {'output': 2, 'input': 3}
    """
    first_seen: dict[str, tuple[str, int]] = {}
    for path, names, leaf in _matched(wiring, params):
        for name, size in zip(names, jnp.shape(leaf), strict=True):
            if name is None:
                continue
            where, expected = first_seen.setdefault(name, (path, size))
            if size != expected:
                raise UsageError(
                    f"population {name!r} has {expected} neurons in {where} but {size} in {path}: "
                    "axes of different size need different names."
                )
    return {name: size for name, (_, size) in first_seen.items()}


def spread(
    values: Mapping[str, Shaped[Array, "_"]],
    wiring: Any,
    params: Any,
    combine: Callable[[Array, Array], Array] = jnp.multiply,
    initial: ArrayLike = 1.0,
) -> Any:
    """Spreads one number per neuron over every weight that enters or leaves the neuron.

    A weight between neurons i and j gets `combine(combine(initial, values[i]), values[j])`; a population that
    is not among `values` is passed over. Masks: `combine=jnp.logical_and, initial=True`.

    Args:
      values: for some populations, an array `[size]`.
      wiring: a tree like `params` with a tuple of names for each array.
      params: a tree of arrays, of which only the shapes are used.
      combine: a binary function with broadcasting.
      initial: where each weight starts from.

    Returns:
      A tree of arrays with the shapes of `params`.

    Raises:
      UsageError: when nobody carries a population's name, its size differs, or the wiring does not fit
        `params`.

    >>> wiring = {"kernel": ("input", "output"), "bias": ("output",)}
    >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    >>> spread({"output": jnp.array([1.0, 0.5])}, wiring, params)["kernel"]
    Array([[1. , 0.5],
           [1. , 0.5]], dtype=float32)
    """
    sizes = populations(wiring, params)
    for name, value in values.items():
        if name not in sizes:
            raise unknown("population", name, sizes)
        if value.shape != (sizes[name],):
            raise UsageError(f"population {name!r} has {sizes[name]} neurons, but its values have shape {value.shape}.")
    dtype = jnp.result_type(initial, *values.values())

    def over_leaf(names, leaf):
        result = jnp.full(jnp.shape(leaf), initial, dtype)
        for axis, name in enumerate(names):
            if name in values:
                others = [other for other in range(result.ndim) if other != axis]
                result = combine(result, jnp.expand_dims(values[name], others))
        return result

    leaves = [over_leaf(names, leaf) for _, names, leaf in _matched(wiring, params)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def chain(
    params: Any, order: Sequence[str], *, unnamed: Sequence[str] = (), norms: Mapping[str, str] | None = None
) -> Any:
    """Returns the wiring of layers that follow one another.

    The neurons between the layers are called "input", "hidden_0", "hidden_1", ..., "output". The two last
    axes of a kernel are inputs and outputs; the axes before them, the extent of a convolution, belong to no
    population.

    Args:
      params: nested dictionaries in which each layer holds a `kernel` and may hold a `bias`.
      order: the paths of the layers from input to output, such as `["layers/0", "layers/1", "head"]`.
      unnamed: paths whose arrays belong to no population.
      norms: for each normalization by path, the layer whose neurons it normalizes: its vectors are theirs. One that is
        `unnamed` instead is invisible to rules that cannot do with it, such as `neuroml.growth`.

    Returns:
      The wiring, for `populations` and `spread`.

    Raises:
      UsageError: when a layer is unknown or given twice, an array is left over, or a layer has another number of
        inputs than the one before it has outputs. So it is after flattening an image: leave its convolutions to
        `unnamed`, or average each channel over the image.

    >>> params = {"a": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "b": {"kernel": jnp.ones((3, 2))}}
    >>> chain(params, ["a", "b"])
    {'a': {'bias': ('hidden_0',), 'kernel': ('input', 'hidden_0')}, 'b': {'kernel': ('hidden_0', 'output')}}
    """
    if twice := sorted({layer for layer in order if list(order).count(layer) > 1}):
        raise UsageError(f"{', '.join(twice)} would stand twice in one chain: give each layer of `order` once.")
    shapes = {path: jnp.shape(leaf) for path, leaf in by_path(params).items()}
    between = ["input", *(f"hidden_{index}" for index in range(len(order) - 1)), "output"]
    names: dict[str, tuple[str | None, ...]] = {}
    layers = [path.removesuffix("/kernel") for path in shapes if path.endswith("/kernel")]
    for layer, before, after in zip(order, between, between[1:], strict=False):
        kernel = f"{layer}/kernel"
        if kernel not in shapes:
            raise unknown("layer", layer, layers)
        names[kernel] = (*(None,) * (len(shapes[kernel]) - 2), before, after)
        if f"{layer}/bias" in shapes:
            names[f"{layer}/bias"] = (after,)
    _check_joints([(layer, shapes[f"{layer}/kernel"]) for layer in order])
    made = dict(zip(order, between[1:], strict=False))
    for norm, layer in (norms or {}).items():
        if layer not in made:
            raise unknown("layer", layer, made)
        names |= {path: (made[layer],) for path in shapes if path.startswith(f"{norm}/")}
    for path, shape in shapes.items():
        if any(path == root or path.startswith(f"{root}/") for root in unnamed):
            names[path] = (None,) * len(shape)
    if missing := [path for path in shapes if path not in names]:
        raise UsageError(
            f"{', '.join(missing)} would be left without names: add the layer to `order`, or its path to `unnamed`."
        )
    return jax.tree.unflatten(jax.tree.structure(params), [names[path] for path in shapes])


def _check_joints(layers: Sequence[tuple[str, Sequence[int]]]) -> None:
    for (before, given), (after, taken) in zip(layers, layers[1:], strict=False):
        if given[-1] != taken[-2]:
            flattened = len(given) > 2 and len(taken) == 2
            hint = " An image is flattened between them: see `unnamed`." if flattened else ""
            raise UsageError(
                f"{before} has {given[-1]} outputs but {after} has {taken[-2]} inputs: they do not follow "
                f"one another.{hint}"
            )


def _matched(wiring: Any, params: Any) -> list[tuple[str, tuple[str | None, ...], Any]]:
    """Returns `(path, names, array)` for each array of `params`."""
    names, leaves = by_path(wiring, is_leaf=is_names), by_path(params)
    if missing := [path for path in leaves if path not in names]:
        raise UsageError(f"the wiring has no names for {', '.join(missing)}: it must mirror the parameters.")
    if extra := [path for path in names if path not in leaves]:
        raise UsageError(f"the wiring names {', '.join(extra)}, which the parameters do not have.")
    for path, leaf in leaves.items():
        if not is_names(names[path]) or len(names[path]) != jnp.ndim(leaf):
            raise UsageError(
                f"{path} has shape {jnp.shape(leaf)} but is wired as {names[path]!r}: give a tuple with one "
                "name, or None, for each axis."
            )
    return [(path, names[path], leaf) for path, leaf in leaves.items()]


def by_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Returns the leaves of a tree by path, such as "layers/0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def is_names(node: Any) -> bool:
    """Says whether a node of a wiring names the axes of an array: the `is_leaf` of `jax.tree.map` over a wiring.

    >>> is_names(("input", None)), is_names({"bias": ("output",)})
    (True, False)
    """
    return isinstance(node, tuple) and all(name is None or isinstance(name, str) for name in node)
