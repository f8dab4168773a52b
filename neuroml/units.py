"""Units: the neurons between layers, and what they answer.

A rule that judges or replaces neurons is told the `wiring` of the weights (`neuroml.wiring`): a population is between
layers if some layer makes it and another reads it. What its neurons answer is what the reading layer is given, so it
comes with the word `activity`, from an unchanged model.
"""

import math
import re
from collections.abc import Callable, Mapping
from os.path import commonprefix
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from neuroml import core, projection
from neuroml import wiring as names_of
from neuroml.errors import UsageError


class Units(NamedTuple):
    """The neurons of one population."""

    size: int
    makers: tuple[str, ...]  # layers whose outputs they are
    readers: tuple[str, ...]  # layers that they feed


def find(wiring: Any, params: Any) -> dict[str, Units]:
    """Returns the populations that lie between layers.

    Args:
      wiring: tuples of axis names in the place of the arrays, as `neuroml.wiring` has them.
      params: the weights.

    Raises:
      UsageError: a layer has no names, axes of different size have the same name, or one population is spelt in two
        ways where it is made and where it is read: in case, in punctuation, or by a slip within a word.

    >>> layer = lambda *shape: {"kernel": jnp.zeros(shape)}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> find(names, {"a": layer(2, 3), "b": layer(3, 1)})
    {'hidden': Units(size=3, makers=('a',), readers=('b',))}
    """
    names, made, read, sizes = _names(wiring), {}, {}, {}
    _check_spelling(names)
    for home, layer in projection.layers(params).items():
        if home not in names:
            raise UsageError(f"the wiring has no names for the kernel of layer {home!r}: give a tuple, or None each.")
        before, after = names[home][-2:]
        for name, size, where in ((before, layer.shape[-2], read), (after, layer.shape[-1], made)):
            if sizes.setdefault(name, size) != size and name is not None:
                raise UsageError(f"population {name!r} has {sizes[name]} neurons, but {size} in layer {home!r}.")
            where.setdefault(name, []).append(home)
    between = [name for name in made if name in read and name is not None]
    return {name: Units(sizes[name], tuple(made[name]), tuple(read[name])) for name in between}


def begin(rule: str, wiring: Any, params: Any, blank: Callable[[int], Any]) -> Any:
    """Returns `{population: blank(size)}`: what `rule` knows of the neurons before the first update.

    Raises:
      UsageError: no population lies between two layers that the rule can see.
    """
    if not jax.tree.leaves(params, is_leaf=core.is_hidden):
        return jnp.zeros(())  # not weights but the placeholder of `optax.tree.map_params`
    found = find(wiring, params)
    if not found:
        made, read = _ends(_names(wiring))
        raise UsageError(
            f"{rule} found no population between two layers: the wiring must name an axis of the outputs of one "
            "layer and of the inputs of another alike, and `optax.masked` must hide neither. Only made: "
            f"{', '.join(sorted(made - read)) or 'none'}; only read: {', '.join(sorted(read - made)) or 'none'}."
        )
    return {name: blank(units.size) for name, units in found.items()}


def of_no_layer(wiring: Any, params: Any, found: Mapping[str, Units]) -> dict[str, str]:
    """Returns `{path: population}` of the arrays that belong to neurons and to no layer, such as a normalization's."""
    paths = list(names_of.by_path(params))
    inside = {paths[place] for layer in projection.layers(params).values() for place in layer[:2] if place is not None}
    names = names_of.by_path(wiring, is_leaf=names_of.is_names)
    alone = {path: axes[0] for path, axes in names.items() if len(axes) == 1 and path not in inside}
    return {path: population for path, population in alone.items() if population in found}


def outputs(found: Mapping[str, Units], activity: Any) -> dict[str, Float[Array, "n size"]]:
    """Returns what each population answers: a row an example, or a place of the image where there is one.

    Raises:
      UsageError: `activity` lacks the layer that reads a population, or has inputs of another width there.
    """
    given = projection.by_home(activity)
    rows = {}
    for name, units in found.items():
        reader = units.readers[0]
        if reader not in given:
            raise UsageError(f"`activity` lacks layer {reader!r}, which reads population {name!r}; it has {[*given]}.")
        shape = jnp.shape(given[reader])
        if units.size not in (*shape[-1:], math.prod(shape[1:])):  # the second: an image that the layer reads flat
            raise UsageError(
                f"`activity` of layer {reader!r} has shape {shape}, but population {name!r}, which it reads, has "
                f"{units.size} neurons: give inputs [batch, ..., {units.size}]."
            )
        rows[name] = jnp.reshape(given[reader], (-1, units.size)).astype(jnp.float32)
    return rows


def incoming(found: Mapping[str, Units], tree: Any) -> dict[str, Float[Array, " size"]]:
    """Returns the sum of the magnitudes of each neuron's incoming weights, biases left out."""
    kernels = _kernels(tree)
    total = lambda kernel: jnp.abs(kernel).astype(jnp.float32).sum(range(kernel.ndim - 1))
    return {name: sum((total(kernels[home]) for home in units.makers), jnp.zeros(())) for name, units in found.items()}


def some(chosen: Mapping[str, Bool[Array, " size"]]) -> Bool[Array, ""]:
    """Says whether any neuron of any population is among those chosen: drawing new weights costs more than a step."""
    return jnp.any(jnp.array([which.any() for which in chosen.values()]))


def destroyed(found: Mapping[str, Units], params: Any) -> dict[str, Bool[Array, " size"]]:
    """Returns which neurons hear nothing or are heard by nobody: all incoming or all outgoing weights are zero."""
    entering, leaving = incoming(found, params), outgoing(found, params)
    return {name: (entering[name] == 0) | (leaving[name] == 0) for name in found}


def outgoing(found: Mapping[str, Units], tree: Any) -> dict[str, Float[Array, " size"]]:
    """Returns the sum of the magnitudes of each neuron's outgoing weights."""
    kernels = _kernels(tree)

    def total(kernel):
        return jnp.abs(kernel).astype(jnp.float32).sum((*range(kernel.ndim - 2), kernel.ndim - 1))

    return {name: sum((total(kernels[home]) for home in units.readers), jnp.zeros(())) for name, units in found.items()}


def by_lot(key: PRNGKeyArray, values: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the values of each population dealt anew among its neurons: as many, but content-free."""
    keys = jax.random.split(key, len(values))
    return {name: jax.random.permutation(k, value) for k, (name, value) in zip(keys, values.items(), strict=True)}


def in_order(value: Array, shuffled: bool) -> Array:
    """Returns what each neuron is given: its own, or as the content-free control that of another, always the same.

    >>> in_order(jnp.arange(3), shuffled=True).tolist()
    [2, 0, 1]
    """
    if not shuffled:
        return value
    ring = jax.random.permutation(jax.random.key(0), value.shape[0])  # each hands on to the next
    return value.at[ring].set(jnp.roll(value[ring], 1, axis=0))


def _names(wiring: Any) -> dict[str, tuple[str | None, ...]]:
    """Returns the names of the axes of each kernel, by layer."""
    paths = jax.tree_util.tree_leaves_with_path(wiring, is_leaf=names_of.is_names)
    home = lambda path: jax.tree_util.keystr(path[:-1], simple=True, separator="/")
    return {home(path): names for path, names in paths if names_of.is_names(names) and len(names) > 1}


def _ends(names: Mapping[str, tuple[str | None, ...]]) -> tuple[set[str], set[str]]:
    """Returns the populations that layers make, and those that layers read."""
    made, read = ({name for axes in names.values() if (name := axes[at]) is not None} for at in (-1, -2))
    return made, read


def _check_spelling(names: Mapping[str, tuple[str | None, ...]]) -> None:
    """Refuses a population of one end whose name is that of another but for case, punctuation or a slip.

    Other names of one end are legitimate: inputs, outputs, what is flattened or sampled in between.
    """
    made, read = _ends(names)
    for one in sorted(made):
        for other in sorted(read):
            if not {one, other} <= made & read and one != other and _misspelt(one, other):
                raise UsageError(f"layers make population {one!r}, and layers read {other!r}: spell the two alike.")


def _misspelt(one: str, other: str) -> bool:
    """Says whether two names are one name but for case, punctuation, or a slip in a word of five letters or more.

    A slip is a letter too many or too few, or two that changed places, behind the first letter of a word and before its
    last. A likeness in general would take `encoder` for `decoder`, `afferent` for `efferent` and `gate` for `gated`.

    >>> _misspelt("Hidden-1", "hidden_1"), _misspelt("hiden_1", "hidden_1"), _misspelt("hidden_0", "hidden_1")
    (True, True, False)
    """
    words = [re.findall("[a-z]+|[0-9]+", name.lower()) for name in (one, other)]
    if "".join(words[0]) == "".join(words[1]):
        return True
    if len(words[0]) != len(words[1]):
        return False
    pairs = [pair for pair in zip(*words, strict=True) if pair[0] != pair[1]]
    return all(max(map(len, pair)) > 4 and _slipped(*pair) for pair in pairs)


def _slipped(one: str, other: str) -> bool:
    """Says whether two words differ in a letter too many, or in two that changed places, between first and last."""
    start = len(commonprefix([one, other]))
    one, other = one[start:], other[start:]
    end = len(commonprefix([one[::-1], other[::-1]]))
    one, other = one[: len(one) - end], other[: len(other) - end]
    return min(start, end) > 0 and (len(one + other) == 1 or len(one) == 2 and one == other[::-1])


def _kernels(tree: Any) -> dict[str, Array]:
    leaves = jax.tree.leaves(tree)
    return {home: leaves[layer.kernel] for home, layer in projection.layers(tree).items()}
