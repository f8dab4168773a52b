"""The methods of the benchmarks that grow, and the fixed networks that they are held against."""

from typing import Any

from neuroml import growing
from neuroml.condensate_methods import CONSOLIDATION_OPTIONS, PROJECTOR, consolidates, may_consolidate
from neuroml.learner import Learner, make_learner
from neuroml.method import Method, Settings, Situation, wiring_of
from neuroml.renewing import renewal
from neuroml.rules.growth import growth


def _growing(at: Situation, given: Settings) -> Learner:
    """A network of which a share is alive at first; the rest is in reserve, and born where it is needed."""
    names, network = wiring_of(at), at.task.network

    def init(key: Any) -> Any:
        params, state = network.init(key)
        return growing.reserve(params, names, given["alive_percent"] / 100), state

    own = {name: given[name] for name in ("number", "patience", "youth_gain", "when", "directions")}
    rule = growth(names, target=given["target"], **own)
    task = at.task._replace(network=network._replace(init=init))
    return make_learner(task, renewal(may_consolidate(at, given), rule, names), activity=True)


methods: dict[str, Method] = {
    "fixed": Method(
        "the optimizer alone on all neurons",
        may_consolidate,
        hyperparameters=PROJECTOR,
        options=CONSOLIDATION_OPTIONS,
        boundaries=consolidates,
        activity=True,
    ),
    "growth": Method(
        "neurons are born while the stream goes on, away from what is consolidated",
        learner=_growing,
        hyperparameters={"number": 8.0, "patience": 50.0, "target": 0.1, "youth_gain": 2.0, **PROJECTOR},
        options={"alive_percent": 25, "when": "plateau", "directions": "free", **CONSOLIDATION_OPTIONS},
        boundaries=consolidates,
    ),
}
