"""Growing: neurons in reserve, and the weights with which they come to life.

Capacity is allocated, and most of it sleeps: a neuron *in reserve* has incoming weights, bias and outgoing weights of
exactly zero. It answers nothing, is heard by nobody and has no gradient, so shapes stay as they are when it is born.
The weights themselves say who is alive: there is no second mask that could disagree with them.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from neuroml import projection, surgery, units
from neuroml.errors import UsageError, unknown
from neuroml.wiring import is_names, spread


def reserve(params: Any, wiring: Any, alive: int | float | Mapping[str, int]) -> Any:
    """Returns the weights with only some neurons of each population alive, and the others in reserve.

    Args:
      params: the weights, allocated at full capacity.
      wiring: names of the axes of the weights (`neuroml.wiring`).
      alive: how many neurons live in each population between layers: an integer; a share in (0, 1] as a float, 1.0
        being all; or a number for some populations by name. The first ones live.

    Returns:
      A tree like `params`, in which every weight that enters or leaves a neuron in reserve, and its bias, is zero.

    Raises:
      UsageError: no population between two layers, one that cannot grow, or a number that it does not have.

    >>> params = {"a": {"kernel": jnp.ones((1, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> reserve(params, names, alive=2)["a"]["kernel"].tolist()
    [[1.0, 1.0, 0.0]]
    """
    found = growable("reserve", wiring, params)
    if isinstance(alive, Mapping):
        for name in alive:
            if name not in found:
                raise unknown("population", name, found)
    counts = alive if isinstance(alive, Mapping) else dict.fromkeys(found, alive)
    asleep = {name: jnp.arange(found[name].size) >= _count(name, found[name].size, n) for name, n in counts.items()}
    return jax.tree.map(lambda leaf, off: jnp.where(off, 0, leaf), params, surgery.touched(found, params, asleep))


def growable(who: str, wiring: Any, params: Any) -> dict[str, units.Units]:
    """Returns the populations between layers, after checking that a birth in them can leave the function as it is.

    Raises:
      UsageError: there is none; one feeds itself, by shared or recurrent weights; a layer has heads; or other arrays
        than the kernels and biases of its layers belong to it, such as a normalization's.
    """
    units.begin(who, wiring, params, lambda size: None)
    found = units.find(wiring, params)
    for path, names in jax.tree_util.tree_leaves_with_path(wiring, is_leaf=is_names):
        home = jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        for name in set(names or ()) & set(found):
            part = found[name]
            if len(names) == 3:
                raise UsageError(
                    f"{who} cannot grow population {name!r}: the axes of layer {home!r} are {names}, three as those of "
                    "attention heads, where new neurons would change the function, or of a convolution over time. Name "
                    "them None."
                )
            if home in part.makers and home in part.readers:
                raise UsageError(
                    f"{who} cannot grow population {name!r}: layer {home!r} makes it and reads it (shared or recurrent "
                    "weights), so new neurons would change the function. Give its axes two names, or None."
                )
            if (home not in part.makers or names[-1] != name) and (home not in part.readers or names[-2] != name):
                where = jax.tree_util.keystr(path, simple=True, separator="/")
                raise UsageError(
                    f"{who} cannot grow population {name!r}: {where} belongs to it and is no kernel or bias of its "
                    "layers (a normalization over neurons?), so new neurons would change the function."
                )
    return found


def living(found: Mapping[str, units.Units], params: Any) -> dict[str, Bool[Array, " size"]]:
    """Returns which neurons are alive: those with any incoming or outgoing weight other than zero."""
    entering, leaving = units.incoming(found, params), units.outgoing(found, params)
    return {name: (entering[name] != 0) | (leaving[name] != 0) for name in found}


def draw(key: PRNGKeyArray, params: Any) -> Any:
    """Returns fresh weights: kernels ~ truncated normal of variance 1 / (inputs that are alive), all else zero.

    It is Flax's default initialization of a network as large as the living part of this one.
    """
    leaves, structure = jax.tree.flatten(params)
    fresh = [jnp.zeros_like(leaf) for leaf in leaves]
    for number, layer in enumerate(projection.layers(params).values()):
        kernel = leaves[layer.kernel]
        heard = (kernel != 0).any(-1).sum()  # an input in reserve enters nothing
        normal = jax.random.truncated_normal(jax.random.fold_in(key, number), -2, 2, kernel.shape) / 0.87962566
        fresh[layer.kernel] = (normal / jnp.sqrt(jnp.maximum(heard, 1))).astype(kernel.dtype)
    return structure.unflatten(fresh)


def towards(
    fresh: Any, free: Mapping[str, Array], found: Mapping[str, units.Units], dead: Mapping[str, Bool[Array, " size"]]
) -> Any:
    r"""Returns fresh weights whose neurons listen to free directions of their inputs.

        w_j  =  |w_j| * (free @ w_j) / |free @ w_j|          w_j: incoming weights and bias of neuron j

    without the weights from neurons in reserve, in both.

    Args:
      fresh: weights of a new network.
      free: for some layers, the projector `[inputs, inputs]` onto what nothing occupies.
      found: the populations.
      dead: neurons that are in reserve.
    """
    off = surgery.touched(found, fresh, dead)
    quiet = lambda tree: jax.tree.map(lambda leaf, gone: jnp.where(gone, jnp.zeros_like(leaf), leaf), tree, off)
    drawn = projection.matrices(quiet(fresh))
    turned = {home: free[home] @ matrix if home in free else matrix for home, matrix in drawn.items()}
    turned = projection.matrices(quiet(projection.replace(fresh, turned)))
    long = lambda matrix: jnp.linalg.norm(matrix.astype(jnp.float32), axis=0)
    scaled = {home: turned[home] * (long(drawn[home]) / jnp.maximum(long(turned[home]), 1e-12)) for home in free}
    return projection.replace(fresh, projection.matrices(fresh) | scaled)


def twins(fresh: Any, found: Mapping[str, units.Units], born: Mapping[str, Bool[Array, " size"]]) -> Any:
    """Returns fresh weights in which neurons born together are pairs: the same weights in, opposite weights out.

    What the two hand on cancels, so that the function stays, and yet their weights begin as a network's do. Outgoing
    weights of a neuron left over are zero; who is not born hands on what it did: others may be born behind it.

    >>> layer = lambda kernel: {"kernel": jnp.array(kernel)}
    >>> fresh = {"a": layer([[1.0, 2.0, 3.0]]), "b": layer([[4.0], [5.0], [6.0]])}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> pairs = twins(fresh, units.find(names, fresh), {"hidden": jnp.array([True, False, True])})
    >>> pairs["a"]["kernel"].tolist(), pairs["b"]["kernel"].ravel().tolist()
    ([[1.0, 2.0, 1.0]], [4.0, 5.0, -4.0])
    """
    firsts, signs = {}, {}
    for name, which in born.items():
        rank, places = jnp.cumsum(which) - 1, jnp.argsort(~which, stable=True)
        second, paired = which & (rank % 2 == 1), which & ((rank ^ 1) < which.sum())
        firsts[name] = jnp.where(second, places[jnp.maximum(rank - 1, 0)], jnp.arange(which.size))
        signs[name] = jnp.where(which, jnp.where(paired, jnp.where(second, -1.0, 1.0), 0.0), 1.0)
    return surgery.dampen(found, surgery.transplant(found, fresh, firsts), signs)


def spare_young(opt_state: Any, wiring: Any, importance: Any) -> Any:
    """Returns importance that leaves out young neurons: what they know is not settled, and is not consolidated yet.

    This frees the young; it does not hold what is old. A neuron born in a later task answers earlier inputs, too,
    through outgoing weights whose importance is zero, so that with rules that weigh each weight, such as `neuroml.ewc`
    or `neuroml.si`, what was consolidated is not held: `neuroml.renewal(..., newborns="held")` holds them as firmly as
    their elders. `neuroml.imagining` fills this gap for the projector.

    Args:
      opt_state: any Optax state with `neuroml.growth` inside.
      wiring: names of the axes of the weights.
      importance: how much each weight mattered, a tree like the weights.

    Returns:
      The importance, times the maturity in [0, 1] of the younger one of the two neurons that the weight joins. As it
      is where nothing grows.

    >>> import neuroml
    >>> params = {"a": {"kernel": jnp.ones((1, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> state = neuroml.growth(names).init(params)
    >>> spare_young(state, names, params)["a"]["kernel"].tolist()                          # nobody is young
    [[1.0, 1.0]]
    """
    grows = lambda node: callable(getattr(type(node), "maturities", None))
    for node in filter(grows, jax.tree.leaves(opt_state, is_leaf=grows)):
        shares = spread(node.maturities(), wiring, importance, combine=jnp.minimum)
        importance = jax.tree.map(lambda leaf, share: (leaf * share).astype(leaf.dtype), importance, shares)
    return importance


def _count(name: str, size: int, alive: int | float) -> int:
    share = isinstance(alive, float) and 0 < alive <= 1  # 1.0 is the whole of a share, and 1 is one neuron
    count = math.ceil(alive * size) if share else int(alive)
    if not 1 <= count <= size or not (share or alive == count):
        raise UsageError(f"alive={alive}: population {name!r} needs a share in (0, 1], or a number from 1 to {size}.")
    return count
