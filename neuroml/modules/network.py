"""A network: pure functions over plain dictionaries, made of a Flax NNX or a Flax Linen module."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
from flax import linen, nnx

from neuroml import activity
from neuroml.errors import UsageError


def _no_capture(*_: Any, **__: Any) -> Any:
    raise UsageError(
        "this Network was made without `capture`, so the inputs of its layers are unknown: make it with "
        "`from_nnx` or `from_linen`, or give `Network(init, apply, capture)` a function of your own."
    )


class Network(NamedTuple):
    """A model as pure functions over nested dictionaries: every JAX transformation works on it.

    `params` are what the optimizer changes. `model_state` is all else that the model keeps between calls:
    running statistics, counters and keys of random numbers. It is `{}` for a model that keeps nothing.

    Attributes:
      init: `(key) -> (params, model_state)`. May be vmapped over keys.
      apply: `(params, model_state, x, **kwargs) -> (outputs, model_state)`, with the model's own keywords.
      capture: as `apply`, and returns `(outputs, model_state, activity)`; see `neuroml.activity`.
      wiring: `(params) -> names of the axes` (`neuroml.wiring`), for rules that judge or replace neurons; None where
        nobody has named them.

    >>> import jax.numpy as jnp
    >>> network = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    >>> params, model_state = network.init(jax.random.key(0))
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (2,), 'kernel': (3, 2)}
    >>> outputs, model_state = network.apply(params, model_state, jnp.ones((5, 3)))
    >>> outputs.shape
    (5, 2)
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]
    capture: Callable[..., tuple[Any, Any, Any]] = _no_capture
    wiring: Callable[[Any], Any] | None = None


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """Makes a network of an NNX module.

    The module is built once without computing anything, to learn its structure. Each call then puts the
    arrays into fresh modules; under `jit` this happens while tracing and costs nothing at run time. Dropout
    draws from the module's own random streams, which live in `model_state` and start from the key that `init`
    is given.

    Modules in an `nnx.List` have the keys 0, 1, 2, ..., as `nnx.to_pure_dict` has it. A checkpoint that was
    restored without a target tree has "0", "1", ... instead; `nnx.restore_int_paths` mends that.

    Args:
      make: `(rngs) -> module`, for instance `lambda rngs: MyModel(64, rngs=rngs)`.

    Returns:
      The `Network`. Variables that the module makes during a call (`sow`) are not part of `model_state`.

    Raises:
      UsageError: when the module holds a bare array, or later, when `params` or `model_state` are those of a model
        with other layers. Arrays of another size pass: a network that grew has some.

    >>> network = from_nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs))
    >>> params, model_state = network.init(jax.random.key(0))
    >>> sorted(params), sorted(model_state)
    (['bias', 'scale'], ['mean', 'var'])
    """

    def split_shapes() -> Any:
        return nnx.split(_without_bare_arrays(make(nnx.Rngs(0))), nnx.Param, ...)

    graph, params_shapes, state_shapes = jax.eval_shape(split_shapes)
    known_state = nnx.to_pure_dict(state_shapes)

    def build(params, model_state):
        return nnx.merge(graph, _fill(params_shapes, params), _fill(state_shapes, model_state))

    def state_of(model):
        return _restrict(_pure(model)[1], known_state)

    def init(key):
        return _pure(make(nnx.Rngs(key)))

    def apply(params, model_state, x, **kwargs):
        model: Any = build(params, model_state)
        outputs = model(x, **kwargs)
        return outputs, state_of(model)

    def capture(params, model_state, x, **kwargs):
        model = build(params, model_state)
        outputs, inputs = activity.capture_nnx(model, x, **kwargs)
        return outputs, state_of(model), inputs

    return Network(init, apply, capture)


def from_linen(module: linen.Module, example: Any, **init_kwargs: Any) -> Network:
    """Makes a network of a Linen module.

    The collection "params" becomes `params`; every other collection ("batch_stats", ...) becomes
    `model_state`, and each call returns it as the module left it; of what the module sows into it, what was sown in
    this call. Random numbers are given per call, as always in Linen: `network.apply(params, model_state, x, train=True,
    rngs={"dropout": key})`.

    Args:
      module: the Linen module.
      example: an input from which it learns its shapes; the values do not matter.
      **init_kwargs: keywords for the module's `__call__` during `init`, such as `train=False`.

    Returns:
      The `Network`.

    >>> network = from_linen(linen.Dense(2), jax.numpy.ones((1, 3)))
    >>> params, model_state = network.init(jax.random.key(0))
    >>> network.apply(params, model_state, jax.numpy.ones((5, 3)))[0].shape
    (5, 2)
    """

    def init(key):
        model_state = dict(module.init(key, example, **init_kwargs))
        return model_state.pop("params", {}), model_state

    def apply(params, model_state, x, **kwargs):
        variables = {"params": params, **model_state}
        outputs, changed = module.apply(variables, x, mutable=list(model_state), **kwargs)
        return outputs, _newest({**model_state, **changed}, model_state)

    def capture(params, model_state, x, **kwargs):
        variables = {"params": params, **model_state}
        call = activity.capture_linen(module, variables, x, mutable=list(model_state), **kwargs)
        (outputs, changed), inputs = call
        return outputs, _newest({**model_state, **changed}, model_state), inputs

    return Network(init, apply, capture)


def standardized(network: Network, mean: float, deviation: float) -> Network:
    """Returns the network behind inputs that are moved and scaled by two constants: `(x - mean) / deviation`.

    Args:
      network: any network.
      mean: of an input, over all of its features; 0 with a deviation of 1 is inert.
      deviation: > 0.

    Raises:
      UsageError: they are no numbers, or the deviation is not above 0.

    >>> network = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    >>> params, _ = network.init(jax.random.key(0))
    >>> x = jax.numpy.full((1, 3), 0.4)
    >>> outputs, _ = standardized(network, 0.4, 0.3).apply(params, {}, x)
    >>> outputs.tolist()                                            # an input of zero: the bias
    [[0.0, 0.0]]
    """
    if not (math.isfinite(mean) and 0 < deviation < math.inf):
        raise UsageError(f"mean={mean} and deviation={deviation} must be numbers, the deviation above 0.")
    if (mean, deviation) == (0, 1):
        return network
    behind = lambda call: lambda params, state, x, **given: call(params, state, (x - mean) / deviation, **given)
    return network._replace(apply=behind(network.apply), capture=behind(network.capture))


def _pure(model: nnx.Module) -> tuple[dict, dict]:
    _, params, rest = nnx.split(model, nnx.Param, ...)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


def _fill(shapes: Any, values: Any) -> Any:
    """Returns a state like `shapes` that holds `values`, in Variables of the present trace level."""
    state = jax.tree.map(lambda leaf: leaf, shapes)  # a copy: the next line writes in place
    try:
        nnx.replace_by_pure_dict(state, values)
    except ValueError as error:
        raise UsageError(f"these arrays belong to another model: {error}.") from error
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    missing = [jax.tree_util.keystr(path) for path, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    if missing:
        raise UsageError(f"the model needs arrays that are not there: {', '.join(missing)}.")
    return state


def _restrict(tree: Any, like: Any) -> Any:
    """Returns `tree` without what `like` lacks: through a scan the model state must keep its structure."""
    return {key: _restrict(tree[key], like[key]) for key in like} if isinstance(like, Mapping) else tree


def _newest(tree: Any, before: Any) -> Any:
    """Returns `tree` with as much of what was sown as `before` has: `sow` adds to a tuple at each call, for ever."""
    if isinstance(tree, Mapping):
        known = before if isinstance(before, Mapping) else {}
        return {key: _newest(value, known.get(key)) for key, value in tree.items()}
    grown = isinstance(tree, tuple) and isinstance(before, tuple) and len(tree) > len(before)
    return tree[len(tree) - len(before) :] if grown else tree


def _without_bare_arrays(model: nnx.Module) -> nnx.Module:
    """Returns `model`; NNX takes a bare array for a constant while tracing, and would leak it."""
    for path, module in nnx.iter_modules(model):
        known = nnx.to_pure_dict(nnx.state(module))
        for name, value in vars(module).items():
            if isinstance(value, jax.core.Tracer) and name not in known:
                where = "/".join(map(str, (*path, name)))
                raise UsageError(f"{where} is a bare array: make it an `nnx.Variable`, or wrap it in `nnx.data`.")
    return model
