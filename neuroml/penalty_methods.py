"""The methods of the benchmarks whose loss has a term about what hidden neurons answer: set points by gradient."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array

from neuroml import core, regularizers, units
from neuroml.method import Method, Settings, Situation, wiring_of


def _penalized(measure: Callable[[Any, Settings], Array]):
    """Returns the recipe of a loss with `strength` times a measure of the answers of hidden neurons."""

    def recipe(at: Situation, given: Settings):
        names = wiring_of(at)

        def penalty(params, batch):
            answers = units.outputs(units.find(names, params), at.task.capture(params, batch)[1])
            return given["strength"] * measure(answers, given)

        def update(updates, state, params, *, batch, **_):
            return optax.tree.add(updates, jax.grad(penalty)(params, batch)), state

        return optax.chain(core.rule(lambda params: optax.EmptyState(), update), at.optimizer)

    return recipe


def _activity_rate(answers: Any, given: Settings) -> Array:
    return regularizers.activity_rate(answers, given["target"], pooled=bool(given["pooled"]))


def _sparsity(answers: Any, given: Settings) -> Array:
    del given
    return regularizers.sparsity(answers)


def _effective_rank(answers: Any, given: Settings) -> Array:
    del given
    return regularizers.effective_rank(answers)


methods: dict[str, Method] = {
    "activity_rate": Method(
        "a loss that grows as mean answers of hidden neurons leave a target",
        _penalized(_activity_rate),
        hyperparameters={"strength": 0.1, "target": 0.3},
        options={"pooled": False},
        limits={"target": "(0, inf)"},
        young={"pooled": False},
    ),
    "sparsity": Method(
        "a loss that grows as answers spread over more hidden neurons",
        _penalized(_sparsity),
        hyperparameters={"strength": 0.01},
    ),
    "effective_rank": Method(
        "a loss that falls as answers use more directions; a batch of one has but one",
        _penalized(_effective_rank),
        hyperparameters={"strength": 1e-3},
    ),
}
