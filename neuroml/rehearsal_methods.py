"""The methods of the benchmarks that keep examples, and do more with them than replay."""

import optax
from jaxtyping import Array

from neuroml import exemplars, memory, recall
from neuroml.gdumb import gdumb
from neuroml.learner import Learner, make_learner
from neuroml.method import Method, Settings, Situation
from neuroml.rules.er import er
from neuroml.rules.er_ace import er_ace
from neuroml.streams.stream import Batch


def labels_of(batch: Batch) -> Array:
    """Returns which output is right; one function for all, since rules are alike only if what they hold is."""
    return batch.y


def _er_ace(at: Situation, given: Settings):
    rule = er_ace(
        at.task.predict,
        at.task.loss,
        labels_of,
        at.example,
        memory.reservoir(int(given["capacity"])),
        outputs=at.outputs,
        batch_size=int(given["replay_batch"]) or at.batch_size,
        strength=given["strength"],
    )
    return optax.chain(rule, at.optimizer)


def _nearest_mean(at: Situation, given: Settings) -> Learner:
    """Experience replay that answers from what it stores, as iCaRL does."""
    store = memory.greedy_balanced(int(given["capacity"]), at.outputs, labels_of)
    size = int(given["replay_batch"]) or at.batch_size
    rule = er(at.task.loss, at.example, store, batch_size=size, strength=given["strength"])
    inner = make_learner(at.task, optax.chain(rule, at.optimizer))
    represent = recall.directions(recall.of_trunk(at.task, "head"))
    return exemplars.nearest_mean(inner, represent, lambda state: state[0].memory, at.example, at.outputs)


def _gdumb(at: Situation, given: Settings) -> Learner:
    capacity, size = int(given["capacity"]), int(given["replay_batch"]) or at.batch_size
    store = memory.greedy_balanced(capacity, at.outputs, labels_of)
    steps = max(1, int(given["passes"]) * capacity // size)
    return gdumb(at.task, at.optimizer, at.example, store, steps=steps, batch_size=size)


_MEMORY = {"capacity": 200, "replay_batch": 0}

methods: dict[str, Method] = {
    "er_ace": Method(
        "experience replay; new classes do not compete with old ones (ER-ACE)",
        _er_ace,
        hyperparameters={"strength": 1.0},
        options=_MEMORY,
    ),
    "er_nearest_mean": Method(
        "experience replay; answers by the nearest mean of stored examples",
        learner=_nearest_mean,
        hyperparameters={"strength": 1.0},
        options=_MEMORY,
    ),
    "gdumb": Method(
        "stores only; a fresh network is trained on the memory when an answer is needed (GDumb)",
        learner=_gdumb,
        options={**_MEMORY, "passes": 100},
    ),
}
