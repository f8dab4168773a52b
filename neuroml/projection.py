"""Projection of updates: layers as matrices, and the directions of input space that a layer has used.

A layer with kernel [..., in, out] and bias [out] is the matrix [inputs, out] that multiplies `(x, 1)`: a convolution
meets patches, so its inputs are `height * width * in` (+ 1). A step ΔW of that matrix changes the answer to an input x
by `x @ ΔW`: a step whose columns are orthogonal to x leaves that answer as it is. Projectors, OWM and GPM build on it.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Shaped

from neuroml import core
from neuroml.activity import patches
from neuroml.errors import UsageError, unknown

# How the convolutions of a model slide: strides and padding of each layer, by path; "SAME" with stride 1 where none is.
Windows = Mapping[str, tuple[int | tuple[int, int], str | Sequence[tuple[int, int]]]]

# Sum of squares of a batch beyond which it is refused like NaN: what gathers over a stream must not overflow either.
LARGEST = float(jnp.finfo(jnp.float32).max) / 1e6


class Layer(NamedTuple):
    """Where the arrays of one layer are among the leaves of a tree."""

    kernel: int
    bias: int | None
    shape: tuple[int, ...]  # of the kernel

    @property
    def inputs(self) -> int:
        """Rows of the layer's matrix."""
        rows = 1
        for size in self.shape[:-1]:
            rows *= size
        return rows + (self.bias is not None)


def layers(tree: Any) -> dict[str, Layer]:
    """Returns the layers of a tree of arrays by path, such as "layers/0".

    A layer is a node that holds one array of two or more axes, its kernel, and perhaps one vector with as many entries
    as the kernel has outputs, its bias. An array of three axes is a kernel only if it is called `kernel`, as that of a
    convolution over time; the segments of `ActiveDendrites` are none. What is in no layer (a normalization's scale,
    say) is left out, and so are the leaves that `optax.masked` hides.

    >>> list(layers({"norm": {"scale": jnp.ones(3)}, "head": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}))
    ['head']
    """
    homes: dict[str, list[tuple[int, Any, bool]]] = {}
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_variable)]
    for place, (path, leaf) in enumerate(zip(paths, jax.tree.leaves(tree), strict=True)):
        home, name = (jax.tree_util.keystr(part, simple=True, separator="/") for part in (path[:-1], path[-1:]))
        homes.setdefault(home, []).append((place, leaf, name == "kernel"))
    found = {home: _layer(leaves) for home, leaves in homes.items()}
    return {home: layer for home, layer in found.items() if layer is not None}


def begin(rule: str, params: Any, blank: Callable[[dict[str, int]], dict[str, Any]]) -> Any:
    """Returns `blank({layer: inputs})`: what `rule` knows of the layers of the weights before the first update.

    Raises:
      UsageError: there is no layer among the weights.
    """
    found = layers(params)
    if not jax.tree.leaves(params, is_leaf=core.is_hidden):
        return jnp.zeros(())  # not weights but the placeholder of `optax.tree.map_params`: stands for all the layers
    if not found:
        raise UsageError(f"{rule} found no layer: no node of the weights holds one array of two or more axes.")
    return blank({home: layer.inputs for home, layer in found.items()})


def matrices(tree: Any) -> dict[str, Shaped[Array, "inputs outputs"]]:
    """Returns the layers of a tree as matrices, the bias as their last row."""
    leaves = jax.tree.leaves(tree)

    def matrix(layer):
        kernel = leaves[layer.kernel].reshape(math.prod(layer.shape[:-1]), layer.shape[-1])
        return kernel if layer.bias is None else jnp.concatenate([kernel, leaves[layer.bias][None]])

    return {home: matrix(layer) for home, layer in layers(tree).items()}


def replace(tree: Any, by: Mapping[str, Array]) -> Any:
    """Returns the tree with its layers taken from matrices, in the dtypes that it had."""
    leaves, structure = jax.tree.flatten(tree)
    for home, layer in layers(tree).items():
        matrix, rows = by[home], layer.inputs - (layer.bias is not None)
        leaves[layer.kernel] = matrix[:rows].reshape(layer.shape).astype(leaves[layer.kernel].dtype)
        if layer.bias is not None:
            leaves[layer.bias] = matrix[-1].astype(leaves[layer.bias].dtype)
    return structure.unflatten(leaves)


def inputs(tree: Any, activity: Any, windows: Windows | None = None) -> dict[str, Float[Array, "n inputs"]]:
    """Returns what the matrix of each layer multiplies: captured inputs as rows, patches for convolutions, a 1 behind.

    Args:
      tree: the weights or their updates.
      activity: the inputs of the layers, as `neuroml.activity` captures them.
      windows: strides and padding of the convolutions that differ from stride 1 and "SAME". Nothing in the weights or
        the inputs tells: a convolution that slides otherwise and is not named here gets the patches of stride 1.

    Raises:
      UsageError: a layer has no activity, or one of another width; a window is for no layer.
    """
    given, found, windows = by_home(activity), layers(tree), windows or {}
    for home in windows:
        if home not in found:
            raise unknown("layer in `windows`", home, found)
    return {home: _rows(home, layer, given, windows.get(home, (1, "SAME"))) for home, layer in found.items()}


def second_moment(rows: Float[Array, "n inputs"]) -> Float[Array, "inputs inputs"]:
    """Returns the mean of `x xᵀ` over the rows, in float32."""
    rows = rows.astype(jnp.float32)
    return rows.T @ rows / max(rows.shape[0], 1)


def gathered(
    moment: Float[Array, "inputs inputs"],
    batches: Float[Array, ""],
    rows: Float[Array, "n inputs"],
    ok: Bool[Array, ""],
) -> tuple[Float[Array, "inputs inputs"], Float[Array, ""]]:
    """Returns the mean second moment after one more batch, and how many batches that is; as they were unless `ok`."""
    after = moment + (second_moment(rows) - moment) / (batches + 1)
    return jnp.where(ok, after, moment), jnp.where(ok, batches + 1, batches)


def project(
    matrix: Float[Array, "inputs outputs"], basis: Float[Array, "inputs rank"], grip: ArrayLike
) -> Float[Array, "inputs outputs"]:
    r"""Returns `matrix - \sum_i grip_i u_i u_i^T matrix` with the columns u_i of `basis`.

    Args:
      matrix: the step of a layer.
      basis: orthonormal columns, or zeros.
      grip: how firmly each direction is held, or all of them: 0 leaves the matrix as it is, 1 removes the direction.

    >>> project(jnp.ones((2, 1)), jnp.eye(2), jnp.array([1.0, 0.25])).ravel().tolist()
    [0.0, 0.75]
    """
    along = basis.T @ matrix.astype(basis.dtype)
    return matrix - basis @ (jnp.reshape(jnp.asarray(grip), (-1, 1)) * along)


def finite(rows: Mapping[str, Array]) -> Bool[Array, ""]:
    """Says whether there are rows, and second moments are finite numbers, of which a million can be added."""
    if not all(leaf.shape[0] for leaf in rows.values()):
        return jnp.array(False)
    power = [jnp.square(leaf.astype(jnp.float32)).sum() for leaf in rows.values()]
    return jnp.all(jnp.array(power) <= LARGEST)


def _is_variable(node: Any) -> bool:
    """Says whether `node` is an NNX Variable around a weight, as `nnx.Optimizer` hands them to `init`."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(node, nnx.Variable)


def _layer(leaves: list[tuple[int, Any, bool]]) -> Layer | None:
    """Returns the layer of the leaves of a node, given as place, array, and whether that is called `kernel`."""
    kernels = [(place, jnp.shape(leaf), named) for place, leaf, named in leaves if jnp.ndim(leaf) > 1]
    if len(kernels) != 1:
        return None
    place, shape, named = kernels[0]
    if len(shape) == 3 and not named:
        return None
    biases = [at for at, leaf, _ in leaves if jnp.shape(leaf) == shape[-1:]]
    return Layer(place, biases[0] if len(biases) == 1 else None, shape)


def by_home(activity: Any) -> dict[str, Array]:
    """Returns the inputs of the layers by the layers' paths."""
    leaves = jax.tree_util.tree_leaves_with_path(activity, is_leaf=core.is_hidden)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _rows(home: str, layer: Layer, given: Mapping[str, Any], window: tuple) -> Array:
    if home not in given:
        raise UsageError(
            f"`activity` has no inputs of layer {home or 'at the root'!r}, but of: {', '.join(given) or 'none'}. It "
            "mirrors the weights down to the layer; to leave a layer out of the rule, wrap the rule in `optax.masked`."
        )
    x = jnp.asarray(given[home])
    if len(layer.shape) == 4:
        x = patches(x, (layer.shape[0], layer.shape[1]), *window)
    rows = x.reshape(-1, x.shape[-1])
    width = layer.inputs - (layer.bias is not None)
    if rows.shape[1] != width:
        raise UsageError(
            f"the kernel of layer {home!r} has shape {layer.shape}, so its inputs have {width} entries; `activity` "
            f"there has {rows.shape[1]}. Convolutions along other than two axes and grouped ones are not supported: "
            "leave them out with `optax.masked`."
        )
    return rows if layer.bias is None else jnp.concatenate([rows, jnp.ones((rows.shape[0], 1), rows.dtype)], axis=1)
