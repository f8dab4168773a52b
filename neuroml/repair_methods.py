"""The methods of the benchmarks that repair what was destroyed, and their controls."""

import optax

from neuroml.condensate_methods import PROJECTOR, PROJECTOR_OPTIONS, projector_rule
from neuroml.method import Method, Settings, Situation, wiring_of
from neuroml.renewing import renewal
from neuroml.rules.nanotube import nanotube
from neuroml.rules.redo import redo
from neuroml.rules.schwann import schwann


def _held(at: Situation, given: Settings) -> optax.GradientTransformation:
    """Returns the optimizer, behind it the condensates where the method consolidates."""
    return optax.chain(at.optimizer, projector_rule(given)) if given["consolidates"] else at.optimizer


def _random_rebirth(at: Situation, given: Settings):
    names, fresh = wiring_of(at), lambda key: at.task.network.init(key)[0]
    rule = redo(names, fresh, threshold=given["threshold"], every=int(given["every"]))
    return renewal(_held(at, given), rule, names)


def _nanotube(at: Situation, given: Settings):
    names = wiring_of(at)
    own = {name: given[name] for name in ("threshold", "noise", "choose")}
    return renewal(_held(at, given), nanotube(names, every=int(given["every"]), **own), names)


def _schwann(at: Situation, given: Settings):
    protected = projector_rule(given) if given["consolidates"] else None
    own = {name: given[name] for name in ("threshold", "rate", "gain", "rise", "recovery")}
    mixed = bool(given["injury_shuffled"])
    return optax.chain(at.optimizer, schwann(wiring_of(at), protected=protected, shuffled=mixed, **own))


def _consolidates(given: Settings) -> bool:
    return bool(given["consolidates"])


_OPTIONS = {"consolidates": False, **PROJECTOR_OPTIONS}

methods: dict[str, Method] = {
    "none": Method(
        "the optimizer alone: nothing is repaired",
        _held,
        hyperparameters=PROJECTOR,
        options=_OPTIONS,
        boundaries=_consolidates,
        activity=True,
    ),
    "random_rebirth": Method(
        "silent neurons begin anew, soon",
        _random_rebirth,
        hyperparameters={"threshold": 0.01, **PROJECTOR},
        options={"every": 20, **_OPTIONS},
        boundaries=_consolidates,
        activity=True,
    ),
    "schwann": Method(
        "hurt neurons turn back to where they started, loosen and learn faster, then mature",
        _schwann,
        hyperparameters={"threshold": 0.01, "rate": 0.1, "gain": 2.0, "rise": 0.1, "recovery": 0.01, **PROJECTOR},
        options={"injury_shuffled": False, **_OPTIONS},
        boundaries=_consolidates,
        activity=True,
    ),
    "nanotube": Method(
        "useful neurons hand what they have to silent ones",
        _nanotube,
        hyperparameters={"threshold": 0.01, "noise": 0.1, **PROJECTOR},
        options={"every": 20, "choose": "utility", **_OPTIONS},
        boundaries=_consolidates,
        activity=True,
    ),
}
