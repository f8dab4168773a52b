"""What the verbs need to know of `nnx.Optimizer`. Flax is never imported here: an optimizer means it already was."""

import sys
from collections.abc import Callable
from typing import Any


def is_optimizer(candidate: Any) -> bool:
    """Says whether `candidate` is an `nnx.Optimizer`."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(candidate, nnx.Optimizer)


def pure_state(optimizer: Any) -> Any:
    """Returns the Optax state of `optimizer` with its arrays taken out of their Flax Variables."""
    return sys.modules["flax.nnx"].as_pure(optimizer.opt_state)


def read(optimizer: Any, model: Any, verb: Callable, context: dict[str, Any]) -> Any:
    """Returns `verb(opt_state, params, **context)` on the plain arrays of `optimizer` and `model`."""
    nnx = sys.modules["flax.nnx"]
    params = nnx.as_pure(nnx.state(model, optimizer.wrt))
    return verb(pure_state(optimizer), params, **nnx.as_pure(context))


def change(optimizer: Any, model: Any, verb: Callable, context: dict[str, Any]) -> Any:
    """Replaces the Optax state of `optimizer` by `verb(opt_state, params, **context)`, and returns `optimizer`."""
    nnx = sys.modules["flax.nnx"]
    nnx.update(optimizer.opt_state, nnx.state(read(optimizer, model, verb, context)))
    return optimizer
