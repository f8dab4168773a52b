"""Surgery: what is done to the weights of single neurons, each told apart by the names of the axes (`neuroml.units`).

Every function takes the populations that `units.find` returns, and a tree like the weights. Some take the wiring, too:
only then do they see what belongs to neurons and to no layer, such as the vectors of a normalization over them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from neuroml import core, projection, units
from neuroml.errors import UsageError
from neuroml.units import Units
from neuroml.wiring import by_path


def pull(
    found: Mapping[str, Units],
    updates: Any,
    params: Any,
    fresh: Any,
    share: Mapping[str, Float[Array, " size"]],
    *,
    silent: bool = True,
    wiring: Any = None,
) -> Any:
    """Returns updates that move neurons towards a fresh start: the given share of the way, 1 all of it.

    Incoming weights and biases go to those of `fresh`, outgoing weights to zero; what leads from one such neuron to
    another goes to `fresh`, so that the second one hears it. What the updates held for the share that moves is dropped,
    and is not looked at where that is all: it may be infinite or no number.

    Args:
      found: the populations.
      updates: what would be added to the weights.
      params: the weights.
      fresh: weights of a new network.
      share: for some populations, how far each neuron goes.
      silent: outgoing weights go to zero; else to those of `fresh`, too.
      wiring: names of the axes; with them, what belongs to neurons and to no layer goes to that of `fresh`, too.
    """
    leaves, structure = jax.tree.flatten(updates)
    old, new = jax.tree.leaves(params), jax.tree.leaves(fitting(fresh, params))
    # What enters comes last, whatever the neurons are called: between two of them the fresh weight is to stay.
    for place, part, enters in sorted(_places(found, updates, share, wiring), key=lambda one: one[2]):
        part = part.astype(leaves[place].dtype)
        way = (0.0 if silent and not enters else new[place]) - old[place]
        kept = jnp.where(part == 1, 0, leaves[place])  # not by the factor alone: 0 * inf is no number
        leaves[place] = (1 - part) * kept + part * way.astype(part.dtype)
    return structure.unflatten(leaves)


def fitting(fresh: Any, params: Any) -> Any:
    """Returns fresh weights in the structure of the weights, without those that `optax.masked` hides.

    Raises:
      UsageError: they have other shapes than the weights, as in a network that was resized.
    """
    hidden = [core.is_hidden(weight) for weight in jax.tree.leaves(params, is_leaf=core.is_hidden)]
    if any(hidden):
        seen = lambda weight, new: weight if core.is_hidden(weight) else new
        fresh = jax.tree.map(seen, params, fresh, is_leaf=core.is_hidden)
    drawn, structure = jax.tree.leaves(fresh), jax.tree.structure(params)
    given, wanted = ([jnp.shape(leaf) for leaf in leaves] for leaves in (drawn, jax.tree.leaves(params)))
    if given != wanted:
        raise UsageError(
            f"`fresh` draws arrays of shapes {given}, but those of the weights are {wanted}: after `neuroml.resize` "
            "make the rule with a `fresh` of the new size."
        )
    return structure.unflatten(drawn)


def gate(found: Mapping[str, Units], updates: Any, factors: Mapping[str, Float[Array, " size"]]) -> Any:
    """Returns updates with the steps of each neuron's incoming weights and bias multiplied by its factor."""
    leaves, structure = jax.tree.flatten(updates)
    for place, factor, enters in _places(found, updates, factors):
        if enters:
            leaves[place] = (factor * leaves[place]).astype(leaves[place].dtype)
    return structure.unflatten(leaves)


def dampen(found: Mapping[str, Units], params: Any, factors: Mapping[str, Float[Array, " size"]]) -> Any:
    """Returns the weights of the network in which what each neuron hands on is multiplied by its factor."""
    leaves, structure = jax.tree.flatten(params)
    for place, factor, enters in _places(found, params, factors):
        if not enters:
            leaves[place] = (factor * leaves[place]).astype(leaves[place].dtype)
    return structure.unflatten(leaves)


def extended(found: Mapping[str, Units], updates: Any, fresh: Any, share: Mapping[str, Float[Array, " size"]]) -> Any:
    """Returns updates with a share, for each neuron, of the outgoing weights of `fresh` added."""
    leaves, structure = jax.tree.flatten(updates)
    new = jax.tree.leaves(fitting(fresh, updates))
    for place, part, enters in _places(found, updates, share):
        if not enters:
            leaves[place] = leaves[place] + (part * new[place]).astype(leaves[place].dtype)
    return structure.unflatten(leaves)


def as_elders(found: Mapping[str, Units], tree: Any, born: Mapping[str, Array], elders: Mapping[str, Array]) -> Any:
    """Returns the tree with the outgoing part of each neuron that was born the mean of those of its elders.

    Layers that the tree lacks, hidden by `optax.masked`, are left out.

    >>> from neuroml import units
    >>> layer = lambda kernel: {"kernel": jnp.array(kernel)}
    >>> params = {"a": layer([[1.0, 1.0, 1.0]]), "b": layer([[2.0], [4.0], [0.0]])}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> new, found = jnp.array([False, False, True]), units.find(names, params)
    >>> as_elders(found, params, {"hidden": new}, {"hidden": ~new})["b"]["kernel"].ravel().tolist()
    [2.0, 4.0, 3.0]
    """
    leaves, structure = jax.tree.flatten(tree)
    layers = projection.layers(tree)
    for name, part in found.items():
        new, old = born[name][:, None], elders[name][:, None]
        for layer in (layers[home] for home in part.readers if home in layers):
            leaf = leaves[layer.kernel]
            mean = jnp.where(old, leaf, 0).sum(-2, keepdims=True) / jnp.maximum(old.sum(), 1)
            leaves[layer.kernel] = jnp.where(new, mean, leaf).astype(leaf.dtype)
    return structure.unflatten(leaves)


def transplant(found: Mapping[str, Units], tree: Any, donors: Mapping[str, Array], wiring: Any = None) -> Any:
    """Returns the tree with what enters and leaves each neuron taken from its donor, which may be itself.

    Args:
      found: the populations.
      tree: weights, or arrays like them.
      donors: for some populations [size], whose arrays each neuron gets.
      wiring: names of the axes; with them, what belongs to neurons and to no layer is the donor's, too.
    """
    leaves, structure = jax.tree.flatten(tree)
    for place, donor, enters in _places(found, tree, donors, wiring):
        leaves[place] = leaves[place][..., donor] if enters else leaves[place][..., donor[:, 0], :]
    return structure.unflatten(leaves)


def shared(
    found: Mapping[str, Units],
    tree: Any,
    donors: Mapping[str, Array],
    drive: Mapping[str, Float[Array, " size"]] | None = None,
    wiring: Any = None,
) -> Any:
    """Returns the tree with each neuron its donor's copy, and outgoing weights divided among all that have them.

    Args:
      found: the populations.
      tree: weights, or arrays like them.
      donors: for some populations [size], whose arrays each neuron gets.
      drive: what a donor and its copies hand on together, in parts of what it did. With 1, the default, the network's
        function stays.
      wiring: as `transplant` has it.

    >>> from neuroml import units
    >>> layer = lambda kernel: {"kernel": jnp.array(kernel)}
    >>> params = {"a": layer([[1.0, 0.0]]), "b": layer([[4.0], [0.0]])}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> shared(units.find(names, params), params, {"hidden": jnp.array([0, 0])})["b"]["kernel"].ravel().tolist()
    [2.0, 2.0]
    """
    parts = {}
    for name, donor in donors.items():
        total = drive[name] if drive else jnp.ones(len(donor))
        parts[name] = (total / jnp.maximum(jnp.bincount(donor, length=len(donor)), 1))[donor]
    return dampen(found, transplant(found, tree, donors, wiring), parts)


def shaken(found: Mapping[str, Units], tree: Any, amounts: Mapping[str, Array], noise: Array, key: PRNGKeyArray) -> Any:
    """Returns the tree with normal noise on incoming weights, of `noise` times each neuron's amount of their spread."""
    leaves, structure = jax.tree.flatten(tree)
    for place, amount, enters in _places(found, tree, amounts):
        leaf = leaves[place]
        if enters and leaf.ndim > 1:
            shake = jax.random.normal(jax.random.fold_in(key, place), leaf.shape, leaf.dtype)
            spread = noise.astype(leaf.dtype) * leaf.std(range(leaf.ndim - 1))
            leaves[place] = leaf + amount.astype(leaf.dtype) * spread * shake
    return structure.unflatten(leaves)


def touched(
    found: Mapping[str, Units], params: Any, chosen: Mapping[str, Bool[Array, " size"]], wiring: Any = None
) -> Any:
    """Returns a tree like the weights: which of them enter, leave or, with `wiring`, else belong to a chosen neuron."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), bool), params))
    for place, part, _ in _places(found, params, chosen, wiring):
        leaves[place] = leaves[place] | part
    return structure.unflatten(leaves)


def entering(found: Mapping[str, Units], params: Any, chosen: Mapping[str, Bool[Array, " size"]]) -> Any:
    """Returns a tree like the weights that says which of them, biases among them, enter a chosen neuron."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), bool), params))
    for place, part, enters in _places(found, params, chosen):
        leaves[place] = leaves[place] | part if enters else leaves[place]
    return structure.unflatten(leaves)


def leaving(found: Mapping[str, Units], params: Any, chosen: Mapping[str, Bool[Array, " size"]]) -> Any:
    """Returns a tree like the weights that says which of them leave a chosen neuron."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), bool), params))
    for place, part, enters in _places(found, params, chosen):
        leaves[place] = leaves[place] if enters else leaves[place] | part
    return structure.unflatten(leaves)


def between(found: Mapping[str, Units], params: Any, values: Mapping[str, Float[Array, " size"]]) -> Any:
    """Returns a tree like the weights: the smallest value among the neurons that each joins.

    Layers that make no population, such as a head, have 0, and arrays of no layer 1.

    >>> from neuroml import units
    >>> layer = lambda *shape: {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1:])}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> params = {"a": layer(1, 2), "b": layer(2, 1)}
    >>> tree = between(units.find(names, params), params, {"hidden": jnp.array([0.25, 0.5])})
    >>> tree["a"]["kernel"].tolist(), tree["b"]["kernel"].tolist(), tree["b"]["bias"].tolist()
    ([[0.25, 0.5]], [[0.0], [0.0]], [0.0])
    """
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf)), params))
    for place, value, _ in _places(found, params, values):
        leaves[place] = jnp.minimum(leaves[place], value)
    making = {home for part in found.values() for home in part.makers}
    for home, layer in projection.layers(params).items():
        for place in (p for p in layer[:2] if p is not None and home not in making):
            leaves[place] = jnp.zeros_like(leaves[place])
    return structure.unflatten(leaves)


def _places(
    found: Mapping[str, Units], tree: Any, values: Mapping[str, Array], wiring: Any = None
) -> Iterator[tuple[int, Array, bool]]:
    """Yields each array at a population as its place among the leaves, the values to broadcast, and if it enters."""
    layers = projection.layers(tree)
    for name, value in values.items():
        for home in found[name].makers:
            yield from ((place, value, True) for place in layers[home][:2] if place is not None)
        for home in found[name].readers:
            yield layers[home].kernel, value[:, None], False
    alone = {} if wiring is None else units.of_no_layer(wiring, tree, found)
    owners = [alone.get(path, "") for path in by_path(tree)]
    yield from ((place, values[owner], True) for place, owner in enumerate(owners) if owner in values)
