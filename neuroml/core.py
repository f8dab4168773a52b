"""The one idea: a *rule* is an Optax transformation whose state knows how to consolidate.

A rule is made by `rule(init, update)` and holds its state in a NamedTuple that may define two verbs:

    consolidate(self, params, **context) -> Self      what was learnt becomes lasting
    penalty(self, params, **context) -> scalar        the scalar whose gradient `update` adds

and, for logs, `report(self) -> {name: scalar}`. What it holds in trees like the weights are moments to
`neuroml.renewal`, zero for a new weight, but for what it declares otherwise:

    anchors = (names)               fields that hold weights as they once were: there the new weight
    untouched = (names)             fields that are not about single weights of this network: they stay
    fresh(self) -> {name: scalar}   fields in which a new weight begins with that number
    importances = (names)           fields that say how much a weight mattered: `renewal(..., newborns="held")`
    neurons = (names)               fields {population: arrays [size]} about single neurons: zero for a new one
    hold(self, rows) -> Self        a projector's: these rows of the layers' matrices get no steps; for the same
    unresizable = "name: why not"   it cannot go on in a larger network, and `neuroml.resize` says so

The functions `consolidate`, `penalty`, `report` and `describe` below find every such state wherever Optax nested it
(`chain`, `named_chain`, `masked`, `partition`, `MultiSteps`, `inject_hyperparams`) and inside an `nnx.Optimizer`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from neuroml import _nnx
from neuroml.errors import MissingWordError, UsageError

# What each context word means, for the error that names a missing one.
WORDS = {
    "params": "the weights: `tx.update(grads, opt_state, params, ...)`",
    "all_params": "every weight, also those that `optax.masked` hides: `tx.update(..., all_params=params)`",
    "batch": "this step's examples: `tx.update(..., batch=batch)`",
    "outputs": "the network's outputs on the batch: `tx.update(..., outputs=outputs)`",
    "key": "a fresh random key: `tx.update(..., key=key)`",
    "task": "the index of the current task: `tx.update(..., task=task)`",
    "value": "the loss of this step: `tx.update(..., value=loss)`",
    "activity": "the inputs of the layers, as `neuroml.activity` captures them: `tx.update(..., activity=activity)`",
    "importance": "how much each weight mattered, a tree like the weights: "
    "`neuroml.consolidate(opt_state, params, importance=neuroml.fisher(...))`",
    "data": "examples of what was learnt: `neuroml.consolidate(opt_state, params, data=examples)`",
    "grow_by": "how many neurons to add: `neuroml.consolidate(opt_state, params, grow_by=n)`",
}


def rule(init: Callable, update: Callable) -> optax.GradientTransformationExtraArgs:
    """Makes a rule of two pure functions, and checks at each call that it is given what it needs.

    Args:
      init: `(params) -> state`.
      update: `(updates, state, params, *, words..., **_) -> (updates, state)`. Keyword-only arguments without a
        default are the context words that the rule needs; all other words are swallowed.

    Returns:
      An Optax transformation. Its `update` raises `MissingWordError` when `params` or a needed word is missing.

    >>> def update(updates, state, params, *, key, **_):
    ...     return updates, state
    >>> noise = rule(lambda params: (), update)
    >>> noise.update({"w": 1.0}, (), {"w": 1.0})
    Traceback (most recent call last):
    ...
    neuroml.errors.MissingWordError: update needs `key`: a fresh random key: `tx.update(..., key=key)`.
    """
    needed = _needed_words(update)

    def checked(updates, state, params=None, **context):
        require(update.__qualname__.split(".")[0], ("params", *needed), {"params": params, **context})
        return update(updates, state, params, **context)

    return optax.GradientTransformationExtraArgs(init, checked)


def consolidate(opt_state: Any, params: Any, **context: Any) -> Any:
    """Lets every rule inside `opt_state` turn what it learnt since the last call into lasting memory.

    Args:
      opt_state: any Optax state, or an `nnx.Optimizer` (then `params` is the model, and the optimizer is changed
        in place, as NNX does).
      params: the weights as they are now.
      **context: what the rules inside need, for instance `importance=` for `neuroml.ewc`.

    Returns:
      The state with every rule consolidated; same structure, shapes and dtypes. A state without rules is
      returned as it is, so that a baseline runs in the same loop.

    Raises:
      MissingWordError: a rule needs a word that is not given.

    >>> import neuroml, optax
    >>> params = {"w": jnp.zeros(2)}
    >>> tx = optax.chain(neuroml.ewc(strength=10.0), optax.sgd(0.1))
    >>> opt_state = consolidate(tx.init(params), params, importance={"w": jnp.ones(2)})
    >>> float(penalty(opt_state, {"w": jnp.ones(2)}))
    10.0
    """
    if _nnx.is_optimizer(opt_state):
        return _nnx.change(opt_state, params, consolidate, context)
    call = lambda node: _call(node, "consolidate", params, context) if _has(node, "consolidate") else node
    return jax.tree.map(call, opt_state, is_leaf=lambda node: _has(node, "consolidate"))


def penalty(opt_state: Any, params: Any, **context: Any) -> jax.Array:
    """Returns the scalar that the rules inside `opt_state` are descending, for logs or to add to a loss.

    Args:
      opt_state: any Optax state, or an `nnx.Optimizer` (then `params` is the model).
      params: the weights, whole.
      **context: what the rules inside need, for instance `key=` for `neuroml.er`.

    Returns:
      The sum over all rules; zero where there is none.
    """
    if _nnx.is_optimizer(opt_state):
        return _nnx.read(opt_state, params, penalty, context)
    found = jax.tree.leaves(opt_state, is_leaf=lambda node: _has(node, "penalty"))
    return sum(
        (_call(node, "penalty", params, context) for node in found if _has(node, "penalty")), start=jnp.zeros(())
    )


def report(opt_state: Any) -> dict[str, jax.Array]:
    """Returns what the rules inside `opt_state` say of themselves, for logs: {name: scalar}, empty where none does."""
    if _nnx.is_optimizer(opt_state):
        opt_state = _nnx.pure_state(opt_state)
    found = jax.tree.leaves(opt_state, is_leaf=lambda node: _has(node, "report"))
    return {name: value for node in found if _has(node, "report") for name, value in node.report().items()}


def describe(opt_state: Any) -> str:
    """Returns one line for each rule inside `opt_state`: where it is, its hyperparameters and its bytes.

    >>> import neuroml, optax
    >>> tx = optax.chain(neuroml.ewc(strength=10.0), optax.sgd(0.1))
    >>> print(describe(tx.init({"w": jnp.zeros(2)})))
    [0] EWCState: strength=10, decay=1, 29 bytes
    """
    if _nnx.is_optimizer(opt_state):
        opt_state = _nnx.pure_state(opt_state)
    found = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=is_rule)
    lines = [_line(path, node) for path, node in found if is_rule(node)]
    return "\n".join(lines) if lines else "no rules: a plain optimizer"


def live(state: Any, **hyperparameters: Any) -> Any:
    """Returns `state` with those hyperparameters that were given to the rule as JAX arrays.

    A hyperparameter given as a Python number is the first value of its leaf, and the leaf may be changed later. One
    given as an array (a tracer in a sweep, a value that `optax.inject_hyperparams` schedules) is itself alive: the
    value bound to the rule at this call counts.
    """
    given = {name: value for name, value in hyperparameters.items() if isinstance(value, jax.Array)}
    return state._replace(**{name: value.astype(getattr(state, name).dtype) for name, value in given.items()})


def require_ranges(who: str, given: Mapping[str, Any], **ranges: str) -> None:
    """Refuses numbers in `given` outside their ranges; NaN lies in none.

    Python's, NumPy's and JAX's scalars are checked. A tracer, as in a sweep, and an array of several numbers pass.

    Raises:
      UsageError: a number lies outside its range.

    >>> require_ranges("upgd", {"noise": 0.1, "decay": 1.0}, noise="[0, inf)", decay="[0, 1)")
    Traceback (most recent call last):
    ...
    neuroml.errors.UsageError: upgd needs a `decay` in [0, 1), but decay=1.0.
    """
    for name, bounds in ranges.items():
        value = given[name]
        if isinstance(value, jax.core.Tracer) or np.ndim(value):
            continue
        with np.errstate(over="ignore"):  # as the float32 that a state carries: 1 - 1e-9 is 1 there
            number = float(np.asarray(value).astype(np.float32))  # JAX's own comparison would be traced within a trace
        low, high = map(float, bounds[1:-1].split(","))
        above = low < number if bounds[0] == "(" else low <= number
        below = number < high if bounds[-1] == ")" else number <= high
        if not (above and below):
            raise UsageError(f"{who} needs a `{name}` in {bounds}, but {name}={value}.")


def leaf(value: Any, dtype: Any = jnp.float32) -> jax.Array:
    """Returns a hyperparameter as the array that the state carries."""
    return jnp.asarray(value, dtype)


def is_rule(node: Any) -> bool:
    """Says whether `node` is the state of one of our rules."""
    return hasattr(type(node), "hyperparameters") or any(_has(node, verb) for verb in ("consolidate", "penalty"))


def is_hidden(node: Any) -> bool:
    """Says whether `node` stands for a weight that `optax.masked` hid."""
    return isinstance(node, optax.MaskedNode)


def visible(tree: Any, like: Any, name: str = "params") -> Any:
    """Returns `tree` without the leaves that `optax.masked` hid from `like`; both must match otherwise.

    Raises:
      UsageError: `tree` (called `name` in the message) differs from `like` in structure or in a shape.
    """
    try:
        seen = jax.tree.map(lambda hid, given: hid if is_hidden(hid) else given, like, tree, is_leaf=is_hidden)
    except (ValueError, TypeError):
        raise _unlike(tree, like, name) from None
    if jax.tree.structure(seen) != jax.tree.structure(like):
        raise _unlike(tree, like, name)
    for (path, wanted), given in zip(jax.tree_util.tree_leaves_with_path(like), jax.tree.leaves(seen), strict=True):
        if jnp.shape(wanted) != jnp.shape(given):
            where = f"`{name}` at {jax.tree_util.keystr(path)}"
            raise UsageError(f"{where} has shape {jnp.shape(given)}; the weights there have {jnp.shape(wanted)}.")
    return seen


def _unlike(tree: Any, like: Any, name: str) -> UsageError:
    """Returns the error that says where the structure of `tree` differs from that of the weights."""
    wanted = dict(jax.tree_util.tree_leaves_with_path(like, is_leaf=is_hidden))
    given = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_hidden)]
    hidden = [path for path, leaf in wanted.items() if is_hidden(leaf)]
    missing = [path for path in wanted if not any(path == there[: len(path)] for there in given)]
    extra = [path for path in given if path not in wanted and not any(path[: len(h)] == h for h in hidden)]
    places = lambda paths: ", ".join(jax.tree_util.keystr(path) or "its root" for path in paths)
    parts = [f"nothing at {places(missing)}"] * bool(missing) + [f"too much at {places(extra)}"] * bool(extra)
    where = f"; it has {' and '.join(parts)}" if parts else ""
    return UsageError(f"`{name}` must be a tree like the weights that the rule was made for{where}.")


def remembered(params: Any, like: Any) -> Any:
    """Returns a copy of what `visible` shows of `params`, so that a loop may donate the weights and the state."""
    return jax.tree.map(jnp.copy, visible(params, like))


def whole(name: str, params: Any, all_params: Any = None) -> Any:
    """Returns every weight, for a rule that runs the network; inside `optax.masked` they come as `all_params`."""
    if all_params is not None:
        return all_params
    if any(is_hidden(node) for node in jax.tree.leaves(params, is_leaf=is_hidden)):
        raise MissingWordError(f"{name} runs the network and needs `all_params`: {WORDS['all_params']}.")
    return params


def _has(node: Any, verb: str) -> bool:
    return callable(getattr(type(node), verb, None))


def _needed_words(function: Callable) -> tuple[str, ...]:
    arguments = inspect.signature(function).parameters.values()
    return tuple(a.name for a in arguments if a.kind is a.KEYWORD_ONLY and a.default is a.empty)


def require(who: str, words: tuple[str, ...], context: dict[str, Any]) -> None:
    """Raises `MissingWordError` for the first of `words` that `context` does not hold."""
    for word in words:
        if context.get(word) is None:
            raise MissingWordError(f"{who} needs `{word}`: {WORDS.get(word, 'see its documentation')}.")


def _call(node: Any, verb: str, params: Any, context: dict[str, Any]) -> Any:
    method = getattr(node, verb)
    require(f"{type(node).__name__}.{verb}", _needed_words(method), context)
    return method(params, **context)


def _line(path: Any, node: Any) -> str:
    names = getattr(type(node), "hyperparameters", ())
    settings = "".join(f"{name}={_number(getattr(node, name))}, " for name in names)
    size = sum(array.nbytes for array in jax.tree.leaves(node))
    return f"{jax.tree_util.keystr(path) or '.'} {type(node).__name__}: {settings}{size} bytes"


def _number(value: jax.Array) -> str:
    return f"{float(value):g}" if not value.ndim else f"{value.size} values"
