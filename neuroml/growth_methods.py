"""The methods of the benchmarks that grow, and the fixed networks that they are held against."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from neuroml import growing, units
from neuroml.condensate_methods import CONSOLIDATION_OPTIONS, PROJECTOR, consolidates, may_consolidate
from neuroml.cost import one_in
from neuroml.errors import UsageError
from neuroml.imagining import imagined
from neuroml.learner import Learner, Task, make_learner
from neuroml.method import Method, Settings, Situation, wiring_of
from neuroml.neurogenesis import neurogenic
from neuroml.renewing import renewal
from neuroml.rules.condensate_projector import CondensateProjectorState
from neuroml.rules.growth import growth
from neuroml.rules.sprouting import sprouting


def _growing(at: Situation, given: Settings) -> Learner:
    """A network of which a share is alive at first; the rest is in reserve, and born where it is needed."""
    names, network = wiring_of(at), at.task.network

    def init(key: Any) -> Any:
        params, state = network.init(key)
        return growing.reserve(params, names, given["alive_percent"] / 100), state

    fresh = lambda key: network.init(key)[0]
    if given["sprouts"]:
        if given["pairs"]:
            raise UsageError("sprouts=True reaches nobody where pairs=True: they hand on weights at once. Drop either.")
        puts_out = sprouting(names, fresh, given["sprouting"], duration=given["maturity"])
        at = at._replace(optimizer=optax.chain(at.optimizer, puts_out))
    shared = ("number", "patience", "youth_gain", "maturity", "apoptosis", "when", "where", "directions")
    own = {name: given[name] for name in shared}
    rule = growth(names, fresh, target=given["target"], pairs=bool(given["pairs"]), **own)
    task = at.task._replace(network=network._replace(init=init))
    learner = make_learner(task, renewal(may_consolidate(at, given), rule, names), activity=True)
    return _imagining(learner, task, names) if given["imagines"] else learner


def _imagining(inner: Learner, task: Task, names: Any) -> Learner:
    """The learner whose projector imagines what new neurons would have answered, whenever some are born."""
    is_projector = lambda node: isinstance(node, CondensateProjectorState)

    def step(state, batch, key):
        state, info = inner.step(state, batch, key)
        found, own = units.find(names, state.params), state.opt_state
        born = {name: one & own.rule.neurons[name].alive for name, one in own.rule.renewed.items()}
        first = _first(found)  # its inputs are drawn, and nothing before it is computed
        blank = lambda x: jnp.zeros((len(x), *batch.x.shape[1:]))
        capture = lambda x: task.network.capture(state.params, {}, blank(x), replaced={first: x})[2]
        imagine = lambda one: imagined(one, capture, state.params, found, born, key, first=first)
        change = lambda node: imagine(node) if is_projector(node) else node
        some = units.some(born)
        fill = lambda base: jax.tree.map(change, base, is_leaf=is_projector)
        with one_in(10):  # of the steps bear neurons at most, with a patience of 10 or more
            base = jax.lax.cond(some, fill, lambda base: base, own.base)
        return state._replace(opt_state=own._replace(base=base)), info

    return inner._replace(step=step)


def _first(found: Any) -> str:
    """Returns the layer before all neurons that grow: it makes some and reads none."""
    made = {home for part in found.values() for home in part.makers}
    return (made - {home for part in found.values() for home in part.readers}).pop()


def _neurogenesis(at: Situation, given: Settings) -> Learner:
    if not given["told"] and not given["consolidates"]:
        raise UsageError("told=False says who consolidates, and with consolidates=False nobody does. Drop one of them.")
    own = {"alive": given["alive"], "radius": given["radius"]}
    room = int(given["contexts"]) or at.tasks  # 0: as many as there are tasks, so that all are born by the last
    own |= {"contexts": room, "by_lot": bool(given["by_lot"]), "activity": True}
    own |= {"consolidates": bool(given["consolidates"] and not given["told"]), "pool": int(given["pool"])}
    return neurogenic(at.task, may_consolidate(at, given), at.example, **own)


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
        "neurons are born while the stream goes on, and what they would have answered before is held",
        learner=_growing,
        hyperparameters={
            "number": 8.0,
            "patience": 50.0,
            "target": 0.1,
            "youth_gain": 1.0,
            "maturity": 100.0,
            "apoptosis": 0.0,
            "sprouting": 1.0,
            **PROJECTOR,
        },
        options={
            "alive_percent": 25,
            "when": "plateau",
            "where": "score",
            "directions": "random",
            "imagines": True,
            "pairs": False,
            "sprouts": False,
            **CONSOLIDATION_OPTIONS,
        },
        boundaries=consolidates,
        young={
            **{"imagines": False, "pairs": False, "apoptosis": 0.0, "where": "score", "maturity": 100.0},
            **{"sprouts": False, "sprouting": 1.0},
        },
    ),
    "neurogenesis": Method(
        "each new context, which is inferred, bears neurons that are silent in older ones",
        learner=_neurogenesis,
        hyperparameters={"alive": 0.5, "radius": 0.3, **PROJECTOR},
        options={"contexts": 0, "by_lot": False, "told": True, "pool": 1, **CONSOLIDATION_OPTIONS},
        boundaries=lambda given: consolidates(given) and bool(given["told"]),
        young={"told": True, "pool": 1},
        # `alive` may be 1, which is inert.
        limits={"alive": "(0, 1]", "radius": "(0, inf)"},
    ),
}
