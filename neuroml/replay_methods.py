"""The methods of the benchmarks that rehearse stored examples."""

from collections.abc import Callable

import optax
from jaxtyping import Array

from neuroml import memory
from neuroml.errors import UsageError, unknown
from neuroml.exemplars import icarl
from neuroml.learner import Learner
from neuroml.method import Method, Settings, Situation, always
from neuroml.rules.agem import agem
from neuroml.rules.derpp import derpp
from neuroml.rules.er import er
from neuroml.streams.stream import Batch


def _replays_the_past(given: Settings) -> bool:
    return given["replay"] == "past" or given["weighting"] == "tasks"


def _er(at: Situation, given: Settings):
    if given["replay_batch"] < 0:
        raise UsageError(f"replay_batch={given['replay_batch']} must not be negative; 0 takes the size of the batches.")
    rule = er(
        at.task.loss,
        at.example,
        _store(at, given, told=_replays_the_past(given)),
        batch_size=given["replay_batch"] or at.batch_size,
        strength=given["strength"],
        replay=given["replay"],
        weighting=given["weighting"],
    )
    return optax.chain(rule, at.optimizer)


def _agem(at: Situation, given: Settings):
    size = given["replay_batch"] or at.batch_size
    own = {"strength": given["strength"], "each": int(given["each"])}
    rule = agem(at.task.loss, at.example, _store(at, given, told=True), batch_size=size, **own)
    return optax.chain(rule, at.optimizer)


def _derpp(at: Situation, given: Settings):
    rule = derpp(
        at.task.predict,
        at.task.loss,
        at.example,
        memory.reservoir(int(given["capacity"])),
        outputs=at.outputs,
        batch_size=given["replay_batch"] or at.batch_size,
        distillation=given["distillation"],
        strength=given["strength"],
    )
    return optax.chain(rule, at.optimizer)


def _der(at: Situation, given: Settings):
    return _derpp(at, {**given, "strength": 0.0})


def _icarl(at: Situation, given: Settings) -> Learner:
    size = given["replay_batch"] or at.batch_size
    own = {"capacity": int(given["capacity"]), "replay_batch": size, "strength": given["strength"]}
    own |= {name: bool(given[name]) for name in ("normalized", "herding")}
    return icarl(at.task, at.optimizer, at.example, at.outputs, **own)


def _store(at: Situation, given: Settings, told: bool) -> memory.Memory:
    capacity, keep = int(given["capacity"]), given["keep"]
    if keep == "class_balanced":
        return memory.class_balanced(capacity, *(_classes(at) if told else (at.outputs, lambda batch: batch.y)))
    if keep == "reservoir":
        return memory.reservoir(capacity)
    if keep == "ring":
        return memory.ring(capacity)
    raise unknown("policy of what to keep", keep, ("class_balanced", "reservoir", "ring"))


def _classes(at: Situation) -> tuple[int, Callable[[Batch], Array]]:
    """Returns how many classes there are, and the class of each example, for a learner that is told the task.

    In a domain-incremental stream an output stands for another class in each task, or for another look of its class.
    """
    if at.scenario == "domain":
        return at.outputs * at.tasks, lambda batch: batch.y + at.outputs * batch.task
    return at.outputs, lambda batch: batch.y


methods: dict[str, Method] = {
    "agem": Method(
        "averaged gradient episodic memory",
        _agem,
        hyperparameters={"strength": 1.0},
        options={"capacity": 200, "keep": "reservoir", "replay_batch": 0, "each": 0},
        boundaries=always,
    ),
    "derpp": Method(
        "dark experience replay (DER++)",
        _derpp,
        hyperparameters={"distillation": 0.2, "strength": 1.0},
        options={"capacity": 200, "replay_batch": 0},
    ),
    "der": Method(
        "dark experience replay: rehearses answers, and no labels",
        _der,
        hyperparameters={"distillation": 0.2},
        options={"capacity": 200, "replay_batch": 0},
    ),
    "icarl": Method(
        "iCaRL: distillation, and answers by the nearest mean of stored examples",
        learner=_icarl,
        hyperparameters={"strength": 1.0},
        options={"capacity": 200, "replay_batch": 0, "normalized": True, "herding": True},
        boundaries=always,
        scenarios=("task", "class"),  # a class that is known is not taught again
        own_heads=True,
        young={"herding": False},
    ),
    "er": Method(
        "experience replay",
        _er,
        hyperparameters={"strength": 1.0},
        options={"capacity": 200, "keep": "reservoir", "replay_batch": 0, "replay": "stored", "weighting": "constant"},
        boundaries=_replays_the_past,
    ),
}
