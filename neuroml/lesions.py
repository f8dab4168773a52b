"""Lesions: which weights are destroyed with a share of the neurons or synapses, or with chosen neurons."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray

from neuroml import surgery, units
from neuroml.errors import UsageError, unknown

PARTS = ("neurons", "synapses")

Share = ArrayLike | Mapping[str, Any]


def lesion(wiring: Any, params: Any, share: Share, key: PRNGKeyArray, *, part: str = "neurons") -> Any:
    """Draws, or is told, which weights a lesion destroys.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      params: the weights.
      share: of the neurons of each population between two layers, rounded; or of all synapses, on average. Or which
        neurons, by number, of some populations by name: `{"hidden": [0, 7]}`. With a neuron goes what normalizes it.
        Only neurons that have names: channels before a flattened image, as in `neuroml.cnn`, have none and are spared.
      key: chooses them where only their share is given.
      part: "neurons", with all that enters and leaves them; or "synapses", each weight of a kernel by itself.

    Returns:
      A tree like the weights, True where a weight is destroyed.

    Raises:
      UsageError: a share outside [0, 1], an unknown part, no population between two layers, or one or a neuron that is
        not there.

    >>> params = {"a": {"kernel": jnp.ones((1, 4))}, "b": {"kernel": jnp.ones((4, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> hurt = lesion(names, params, 0.5, jax.random.key(0))
    >>> int(hurt["a"]["kernel"].sum()), bool((hurt["a"]["kernel"].ravel() == hurt["b"]["kernel"].ravel()).all())
    (2, True)
    """
    if part not in PARTS:
        raise unknown("part of a network", part, PARTS)
    if not isinstance(share, Mapping | jax.core.Tracer) and not 0 <= np.asarray(share) <= 1:
        raise UsageError(f"share={share} must be between 0 and 1: it is the share of the {part} that is destroyed.")
    units.begin("lesion", wiring, params, jnp.zeros)
    if isinstance(share, Mapping):
        return _lesion_of(share, wiring, params, part)
    if part == "synapses":
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        cut = lambda leaf, key: jax.random.bernoulli(key, share, leaf.shape) & (leaf.ndim > 1)
        return structure.unflatten(map(cut, leaves, keys))
    found = units.find(wiring, params)
    ranks = {name: jax.random.permutation(jax.random.fold_in(key, i), found[name].size) for i, name in enumerate(found)}
    return _parts(wiring, params, {name: rank < jnp.round(share * len(rank)) for name, rank in ranks.items()})


def _lesion_of(chosen: Mapping[str, Any], wiring: Any, params: Any, part: str) -> Any:
    """Returns which weights belong to chosen neurons."""
    if part != "neurons":
        raise UsageError(f"a lesion of chosen neurons destroys neurons, not {part}: leave `part` out.")
    found = units.find(wiring, params)
    for population, neurons in chosen.items():
        check_neurons(found, population, neurons)
    mark = lambda size, which: jnp.zeros(size, bool).at[jnp.asarray(which, int)].set(True)
    return _parts(wiring, params, {name: mark(found[name].size, which) for name, which in chosen.items()})


def _parts(wiring: Any, params: Any, chosen: Mapping[str, Array]) -> Any:
    """Returns which weights enter or leave chosen neurons, or normalize them: one that does makes the dead answer."""
    found = units.find(wiring, params)
    return surgery.touched(found, params, chosen, wiring)


def check_neurons(found: Mapping[str, units.Units], population: str, neurons: Any) -> None:
    """Refuses a population that is not there, and neurons that it does not have."""
    if population not in found:
        raise unknown("population between two layers", population, found)
    size = found[population].size
    if isinstance(neurons, jax.core.Tracer):
        return
    if not np.issubdtype(np.asarray(neurons).dtype, np.integer) and np.size(neurons):
        raise UsageError(f"neurons={neurons} of population {population!r} must be their numbers, from 0 to {size - 1}.")
    for number in np.ravel(neurons):
        if not 0 <= number < size:
            raise UsageError(f"population {population!r} has no neuron {number}: its {size} are 0 to {size - 1}.")
