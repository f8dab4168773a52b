"""The methods of the benchmarks that repair what was destroyed, and their controls."""

import optax

from neuroml.condensate_methods import CONSOLIDATION_OPTIONS, PROJECTOR, consolidates, may_consolidate, projector_rule
from neuroml.method import Method, Settings, Situation, wiring_of
from neuroml.renewing import renewal
from neuroml.rules.nanotube import nanotube
from neuroml.rules.redo import redo
from neuroml.rules.schwann import schwann


def _random_rebirth(at: Situation, given: Settings):
    names, fresh = wiring_of(at), lambda key: at.task.network.init(key)[0]
    rule = redo(names, fresh, threshold=given["threshold"], every=int(given["every"]), heals=given["heals"])
    return renewal(may_consolidate(at, given), rule, names, newborns=given["newborns"])


def _nanotube(at: Situation, given: Settings):
    names = wiring_of(at)
    own = {name: given[name] for name in ("threshold", "noise", "compensation", "choose", "heals")}
    rule = nanotube(names, every=int(given["every"]), **own)
    return renewal(may_consolidate(at, given), rule, names, newborns=given["newborns"])


def _schwann(at: Situation, given: Settings):
    protected = projector_rule(given) if given["consolidates"] else None
    own = {name: given[name] for name in ("threshold", "rate", "gain", "rise", "recovery")}
    mixed = bool(given["injury_shuffled"])
    return optax.chain(at.optimizer, schwann(wiring_of(at), protected=protected, shuffled=mixed, **own))


methods: dict[str, Method] = {
    "none": Method(
        "the optimizer alone: nothing is repaired",
        may_consolidate,
        hyperparameters=PROJECTOR,
        options=CONSOLIDATION_OPTIONS,
        boundaries=consolidates,
        activity=True,
    ),
    "random_rebirth": Method(
        "silent or destroyed neurons begin anew, soon",
        _random_rebirth,
        hyperparameters={"threshold": 0.01, **PROJECTOR},
        options={"every": 20, "heals": "silent", "newborns": "free", **CONSOLIDATION_OPTIONS},
        boundaries=consolidates,
        activity=True,
        young={"heals": "silent", "newborns": "free"},
    ),
    "schwann": Method(
        "hurt neurons turn back to where they started, loosen and learn faster, then mature",
        _schwann,
        hyperparameters={"threshold": 0.01, "rate": 0.1, "gain": 2.0, "rise": 0.1, "recovery": 0.01, **PROJECTOR},
        options={"injury_shuffled": False, **CONSOLIDATION_OPTIONS},
        boundaries=consolidates,
        activity=True,
    ),
    "nanotube": Method(
        "useful neurons hand what they have to silent ones",
        _nanotube,
        hyperparameters={"threshold": 0.01, "noise": 0.1, "compensation": 0.0, **PROJECTOR},
        options={"every": 20, "choose": "utility", "heals": "silent", "newborns": "free", **CONSOLIDATION_OPTIONS},
        boundaries=consolidates,
        activity=True,
        young={"heals": "silent", "compensation": 0.0, "newborns": "free"},
    ),
}
