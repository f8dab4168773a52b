"""The methods of the benchmarks that gate, scale or shift what each neuron or synapse learns: local rules, one each."""

from collections.abc import Callable

import optax

from neuroml.method import Method, Settings, Situation, wiring_of
from neuroml.rules.bcm import bcm
from neuroml.rules.intrinsic_plasticity import intrinsic_plasticity
from neuroml.rules.maturity_lock import maturity_lock
from neuroml.rules.surprise_rate import surprise_rate
from neuroml.rules.synaptic_gate import synaptic_gate
from neuroml.rules.synaptic_scaling import synaptic_scaling
from neuroml.rules.three_factor import three_factor


def _own(given: Settings) -> Settings:
    return {name: value for name, value in given.items() if name != "learning_rate"}


def _neurons(make: Callable[..., optax.GradientTransformation], *, last: bool):
    """Returns the recipe of a rule about neurons, which works on the gradient or, `last`, on the optimizer's step."""

    def recipe(at: Situation, given: Settings):
        rule = make(wiring_of(at), **_own(given))
        return optax.chain(at.optimizer, rule) if last else optax.chain(rule, at.optimizer)

    return recipe


def _three_factor(at: Situation, given: Settings):
    return optax.chain(three_factor(**_own(given)), at.optimizer)


def _surprise_rate(at: Situation, given: Settings):
    return optax.chain(at.optimizer, surprise_rate(**_own(given)))


_SHUFFLED = {"shuffled": False}

methods: dict[str, Method] = {
    "bcm": Method(
        "neurons learn more while they answer above a threshold that slides",
        _neurons(bcm, last=True),
        hyperparameters={"strength": 0.5, "decay": 0.99},
        options=_SHUFFLED,
        activity=True,
    ),
    "synaptic_gate": Method(
        "synapses learn as far as both their ends are active",
        _neurons(synaptic_gate, last=False),
        hyperparameters={"strength": 1.0},
        options=_SHUFFLED,
        activity=True,
    ),
    "three_factor": Method(
        "an eligibility trace of the gradient, let through by how large the loss is",
        _three_factor,
        hyperparameters={"strength": 0.5, "decay": 0.9},
        options={"constant": False},
    ),
    "intrinsic_plasticity": Method(
        "biases move to keep each neuron's firing rate",
        _neurons(intrinsic_plasticity, last=True),
        hyperparameters={"target": 0.2, "speed": 1e-3, "decay": 0.99},
        limits={"target": "(0, 1)"},
        options=_SHUFFLED,
        activity=True,
    ),
    "synaptic_scaling": Method(
        "incoming weights scaled to keep each neuron's mean answer",
        _neurons(synaptic_scaling, last=True),
        hyperparameters={"target": 0.3, "speed": 1e-3, "decay": 0.99},
        limits={"target": "(0, inf)"},
        options=_SHUFFLED,
        activity=True,
    ),
    "maturity_lock": Method(
        "neurons with steady answers are held back, until the loss jumps",
        _neurons(maturity_lock, last=True),
        hyperparameters={"strength": 0.9, "rate": 1e-3, "ratio": 2.0, "fast_decay": 0.98, "slow_decay": 0.998},
        options=_SHUFFLED,
        activity=True,
    ),
    "surprise_rate": Method(
        "larger steps while the loss is above its mean",
        _surprise_rate,
        hyperparameters={"strength": 1.0},
        options={"constant": False},
    ),
}
