"""Resizing: more capacity on the host, with all that was learnt and all that the optimizer knows kept where it was."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neuroml import growing, projection
from neuroml.errors import UsageError, unknown
from neuroml.wiring import populations


def resize(
    tx: optax.GradientTransformation,
    params: Any,
    opt_state: Any,
    wiring: Any,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Any, Any]:
    """Returns weights and optimizer state with room for more neurons: the same function, and the same steps from here.

    New neurons are in reserve (`neuroml.reserve`), behind those that are there. The state is that of `tx` for the
    larger weights, with the old one copied into it: moments, anchors, importance, masks, and what projectors and
    `neuroml.growth` know of the layers' inputs, whose rows and columns are put where the inputs now are. It is
    called between steps, outside `jit`; whatever was compiled is compiled once more for the new shapes.

    Args:
      tx: the transformation that made `opt_state`. One that was given a network's size (`fresh` of a rule that replaces
        neurons) must be made anew for the larger network, in the same order.
      params: the weights.
      opt_state: the state of `tx`.
      wiring: names of the axes of the weights (`neuroml.wiring`).
      sizes: the new size of some populations between layers, by name; default: all of them twice as large.

    Returns:
      The larger `(params, opt_state)`. A model object of the old size must be made anew to hold them.

    Raises:
      UsageError: an unknown population, one that cannot grow, a size below the present one, another `tx`, or a state
        that would become smaller (a rule with a byte limit) or of wasserstein `l2_init`.

    >>> import neuroml
    >>> params = {"a": {"kernel": jnp.ones((1, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = neuroml.renewal(optax.adam(1e-3), neuroml.growth(names), names)
    >>> params, state = resize(tx, params, tx.init(params), names)
    >>> params["a"]["kernel"].tolist(), state.rule.neurons["hidden"].alive.tolist()
    ([[1.0, 1.0, 0.0, 0.0]], [True, True, False, False])
    """
    _check_resizable(opt_state)
    found = growing.growable("resize", wiring, params)
    now = populations(wiring, params)
    sizes = {name: 2 * now[name] for name in found} if sizes is None else sizes
    for name, size in sizes.items():
        if name not in found:
            raise unknown("population", name, found)
        if size < now[name]:
            raise UsageError(f"population {name!r} has {now[name]} neurons and cannot be made smaller, to {size}.")

    def wider(leaf, names):
        room = [(0, sizes.get(name, width) - width) for name, width in zip(names, jnp.shape(leaf), strict=True)]
        return jnp.pad(leaf, room)

    larger = jax.tree.map(wider, params, wiring)
    return larger, _moved(opt_state, tx.init(larger), _rows(params, larger))


def _check_resizable(state: Any) -> None:
    """Refuses a rule that says why it cannot go on in a larger network."""
    refuses = lambda node: hasattr(type(node), "unresizable")
    for node in jax.tree.leaves(state, is_leaf=refuses):
        if refuses(node):
            raise UsageError(f"resize cannot carry on {node.unresizable}")


def _rows(params: Any, larger: Any) -> dict[str, tuple[int, int, np.ndarray]]:
    """Returns for each layer how many inputs its matrix had and has, and where the old ones are among the new."""
    rows = {}
    for (home, old), new in zip(projection.layers(params).items(), projection.layers(larger).values(), strict=True):
        bias = old.bias is not None
        places = np.arange(new.inputs - bias).reshape(new.shape[:-1])[..., : old.shape[-2]].reshape(-1)
        rows[home] = old.inputs, new.inputs, np.append(places, new.inputs - 1) if bias else places
    return rows


def _moved(state: Any, blank: Any, rows: Mapping[str, tuple[int, int, np.ndarray]]) -> Any:
    """Returns `blank` with every array of `state` copied into it."""
    if jax.tree.structure(state) != jax.tree.structure(blank):
        raise UsageError("`tx` must be the transformation that made `opt_state`: its state has another structure.")
    leaves = zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(blank), strict=True)
    return jax.tree.structure(blank).unflatten([_copied(path, old, new, rows) for (path, old), new in leaves])


def _copied(path: Any, old: Any, new: Any, rows: Mapping[str, tuple[int, int, np.ndarray]]) -> Any:
    before, after = jnp.shape(old), jnp.shape(new)
    if before == after:
        return old
    if len(before) != len(after) or any(now < was for was, now in zip(before, after, strict=True)):
        where = jax.tree_util.keystr(path)
        raise UsageError(
            f"the state at {where} has shape {before}, and {after} for the larger weights: it cannot become smaller. "
            "Was `tx` made with other settings, or with a limit in bytes? Raise the limit."
        )
    if _is_list_of_directions(path):
        new = jnp.zeros_like(new)  # an old direction has nothing along new inputs, and what is free holds nothing
    return new.at[np.ix_(*_places(path, before, after, rows))].set(jnp.asarray(old).astype(new.dtype))


def _places(path: Any, before: tuple[int, ...], after: tuple[int, ...], rows: Mapping[str, Any]) -> list[np.ndarray]:
    """Returns where the entries of an old array are in the new one, for each axis."""
    inputs = _inputs(path, rows) if len(before) == 2 else None
    index = [np.arange(size) for size in before]
    if inputs is not None:
        was, now, places = inputs
        for axis in range(1 if _is_list_of_directions(path) else 2):
            index[axis] = places if (before[axis], after[axis]) == (was, now) else index[axis]
    return index


def _inputs(path: Any, rows: Mapping[str, Any]) -> Any:
    """Returns what `rows` says of the layer whose inputs an array is about, None for an array of the layer itself.

    What a rule knows of a layer's inputs is in a dictionary by layer; below it are arrays or fields, no dictionary.
    """
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return rows.get(str(keys[-1])) if keys else None


def _is_list_of_directions(path: Any) -> bool:
    """Says whether the columns of an array are numbered by use, as `basis` has them, and not by the layer's inputs."""
    return any(isinstance(key, jax.tree_util.GetAttrKey) and key.name == "basis" for key in path[-1:])
