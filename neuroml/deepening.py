"""Deepening: a whole new layer, made on the host, that at first hands on what it is given: the function stays."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from neuroml import nursery, projection
from neuroml.errors import UsageError, unknown
from neuroml.wiring import by_path

Names = Mapping[str, str]


def deepen(
    tx: optax.GradientTransformation,
    params: Any,
    opt_state: Any,
    deeper: Any,
    new: Names,
    *,
    activation: Callable[[Array], Array] = jax.nn.relu,
    behind: Callable[[Array], Array] | None = None,
    populations: Names | None = None,
) -> tuple[Any, Any]:
    """Returns weights and optimizer state of a network with whole new layers: the same function at first.

    The kernel of a new layer is the identity (of a convolution, at its centre), its bias zero; all other weights and
    all that the optimizer knows of them are those of `params` and `opt_state`. What a projector or `neuroml.growth`
    knows of the inputs of the layer that read them until now, it knows of the new layer, whose inputs they are. Neurons
    whom that layer does not hear, such as those in reserve, get a partner in reserve. To `neuroml.growth` the neurons
    of a new layer are grown up: what they do was learnt before. Call it between steps, outside `jit`; whatever was
    compiled is compiled once more.

    Args:
      tx: for the deeper network; rules that take names are made with its names, in the order of `opt_state`.
      params: the weights.
      opt_state: their state.
      deeper: weights of the deeper network, as it initializes them. Without the new layers its nodes are those of
        `params` in the same order (numbers in names as one counts), under the same names or, as the numbers of
        `nnx.Sequential`, under others.
      new: for each new layer by path, the old one that read its inputs until now; names of `deeper`. Of two new layers
        in a row, both have the same.
      activation: of the new layers.
      behind: activation of the layers before them, whose answers `activation` must leave as they are; default: the
        same. The weights do not tell: a relu behind a tanh changes the function, and only if you say so here is it
        refused.
      populations: for populations that rules know under other names in the deeper network, the new name by the old
        one, such as {"hidden_1": "hidden_2"} where `wiring.chain` counts a new layer in the middle.

    Returns:
      The `(params, opt_state)` of the deeper network.

    Raises:
      UsageError: a layer that `deeper` does not have, weights that differ otherwise, a new layer that cannot hand on
        what it is given, an activation that changes its own answers (tanh; not relu) or those of `behind`, or a state
        of another `tx`.

    Reference:
      Chen, Goodfellow, Shlens 2016, "Net2Net: accelerating learning via knowledge transfer", ICLR, section 2.3.

    How ours differs: optimizer state is carried over, and what consolidation holds of the inputs goes with them.

    >>> layer = lambda kernel: {"kernel": jnp.array(kernel)}
    >>> small = {"a": layer([[1.0, -2.0]]), "head": layer([[3.0], [4.0]])}
    >>> deeper = {"a": layer([[0.0, 0.0]]), "b": layer([[9.0, 9.0], [9.0, 9.0]]), "head": layer([[0.0], [0.0]])}
    >>> tx = optax.sgd(0.1)
    >>> params, state = deepen(tx, small, tx.init(small), deeper, {"b": "head"})
    >>> params["b"]["kernel"].tolist(), params["head"]["kernel"].ravel().tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0])
    """
    _check_names(new, projection.layers(deeper))
    _check_activation(activation, activation if behind is None else behind)
    names = _renamed(params, deeper, new)
    keys = names | dict(populations or {})
    old = {_named(path, names): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    heard = {names[home]: jax.tree.leaves(params)[layer.kernel] for home, layer in projection.layers(params).items()}
    fresh = {f"{home}/{part}": leaf for home in new for part, leaf in _identity(deeper, home, heard[new[home]])}
    grown = _filled(deeper, old | fresh, "the deeper network has no weights at {} of shape {}")
    kept = {_named(path, names, keys): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state)}
    blank = tx.init(grown)
    read = {_named(path): _named(path, {}, new) for path, _ in jax.tree_util.tree_leaves_with_path(blank)}
    moved = {own: kept[reader] for own, reader in read.items() if reader in kept}
    lost = "the state of `tx` has nothing at {} of shape {}: make `tx` as it was, for the deeper network"
    return grown, _aged(_filled(blank, moved | kept, lost), kept)


def _check_names(new: Names, found: Mapping[str, Any]) -> None:
    for home, reader in new.items():
        for name in (home, reader):
            if name not in found:
                raise unknown("layer of the deeper network", name, found)
        if reader in new:
            raise UsageError(
                f"{reader} cannot have read the inputs of {home} until now, for it is new: name an old layer."
            )


def _check_activation(activation: Callable[[Array], Array], behind: Callable[[Array], Array]) -> None:
    answers = behind(jnp.linspace(-3.0, 3.0, 13))
    if not jnp.allclose(activation(answers), answers, atol=1e-6):
        name, before = (getattr(one, "__name__", "this activation") for one in (activation, behind))
        whose = "its own answers" if behind is activation else f"answers of {before}"
        raise UsageError(f"{name} changes {whose}, so a new layer would change the function: take relu behind relu.")


def _renamed(params: Any, deeper: Any, new: Names) -> dict[str, str]:
    """Returns what each node that holds weights is called in the deeper network, node by node in order."""
    mine, theirs = (sorted({_home(path) for path in by_path(tree)}, key=_counted) for tree in (params, deeper))
    theirs = [home for home in theirs if home not in new]
    if len(mine) != len(theirs):
        raise UsageError(
            f"`params` has weights at {', '.join(mine)}, the deeper network, but for {', '.join(new)}, at "
            f"{', '.join(theirs)}: `new` must name all new layers and nothing else."
        )
    return dict(zip(mine, theirs, strict=True))


def _identity(deeper: Any, home: str, heard: Array) -> list[tuple[str, Array]]:
    """Returns the arrays of a new layer by name: a kernel that hands on what the kernel `heard` hears, and zeros."""
    made = projection.layers(deeper)[home]
    leaves = {path.removeprefix(f"{home}/"): leaf for path, leaf in by_path(deeper).items() if _home(path) == home}
    *window, inputs, outputs = made.shape
    if inputs != outputs or any(size % 2 == 0 for size in window):
        raise UsageError(
            f"{home} has a kernel of shape {made.shape} and cannot hand on what it is given: a new layer has as many "
            "outputs as inputs, and a window of odd size."
        )
    rows = heard.reshape(-1, inputs, heard.shape[-1]) if heard.shape[-2] == inputs else jnp.ones((1, inputs, 1))
    diagonal, centre = jnp.diag((rows != 0).any((0, 2))), tuple(size // 2 for size in window)
    hand_on = lambda leaf: jnp.zeros_like(leaf).at[centre].set(diagonal.astype(leaf.dtype))
    return [(name, hand_on(leaf) if leaf.ndim > 1 else jnp.zeros_like(leaf)) for name, leaf in leaves.items()]


def _filled(blank: Any, known: Mapping[str, Any], lost: str) -> Any:
    """Returns `blank` with all arrays that are known by path, every one of which must have its place there."""
    places = by_path(blank)
    for path, leaf in known.items():
        if path not in places or jnp.shape(places[path]) != jnp.shape(leaf):
            raise UsageError(lost.format(path, jnp.shape(leaf)) + ".")
    return jax.tree.structure(blank).unflatten([known.get(path, leaf) for path, leaf in places.items()])


def _aged(state: Any, known: Mapping[str, Any]) -> Any:
    """Returns the state in which neurons of populations that growth has not known before are grown up."""
    grows = lambda node: isinstance(node, nursery.GrowthState)

    def after(path, node):
        if not grows(node):
            return node
        age = lambda name: _named((*path, *map(jax.tree_util.GetAttrKey, ("neurons", name, "age"))))
        return nursery.grown_up(node, [name for name in node.neurons if age(name) not in known])

    return jax.tree_util.tree_map_with_path(after, state, is_leaf=grows)


def _home(path: str) -> str:
    return path.rpartition("/")[0]


def _counted(home: str) -> list[tuple[bool, int, str]]:
    """Returns what sorts names with numbers as one counts: "layers/2" before "layers/10"."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", home)]


def _named(path: Any, nodes: Names | None = None, keys: Names | None = None) -> str:
    """Returns a path as text, with other names for the node that holds an array like a weight, or for a key.

    An array like a weight is at the weight's own path, behind that of what holds it, such as `.mu`. What a rule knows
    of a layer or a population is in a dictionary, under the path of the layer or the population's name as one key.
    """
    text = jax.tree_util.keystr(path, simple=True, separator="/")
    holder, _, array = text.rpartition("/")
    fits = [node for node in nodes or {} if f"/{holder}".endswith(f"/{node}")]
    if fits:
        node = max(fits, key=len)
        return f"{holder.removesuffix(node)}{(nodes or {})[node]}/{array}"
    last = max((place for place, key in enumerate(path) if isinstance(key, jax.tree_util.DictKey)), default=0)
    if not path or getattr(path[last], "key", None) not in (keys or {}):
        return text
    renamed = jax.tree_util.DictKey((keys or {})[path[last].key])
    return jax.tree_util.keystr((*path[:last], renamed, *path[last + 1 :]), simple=True, separator="/")
