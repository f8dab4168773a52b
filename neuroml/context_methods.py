"""The methods of the benchmarks that are told the task at test time: for task-incremental streams only."""

import optax

from neuroml.contexts import gated, separate
from neuroml.learner import Learner, make_learner
from neuroml.method import Method, Settings, Situation, always
from neuroml.rules.si import si


def _separate(at: Situation, given: Settings) -> Learner:
    del given
    return separate(make_learner(at.task, at.optimizer), at.tasks)


def _xdg(at: Situation, given: Settings) -> Learner:
    return gated(at.task, at.optimizer, at.tasks, given["silent_percent"] / 100)


def _xdg_si(at: Situation, given: Settings) -> Learner:
    rule = si(given["strength"], damping=given["damping"])
    return gated(at.task, optax.chain(rule, at.optimizer), at.tasks, given["silent_percent"] / 100)


methods: dict[str, Method] = {
    "separate": Method("a network for each task", learner=_separate, told=True),
    "xdg": Method(
        "context-dependent gating: in each task other neurons are silent",
        learner=_xdg,
        options={"silent_percent": 80},
        told=True,
    ),
    "xdg_si": Method(
        "context-dependent gating with synaptic intelligence",
        learner=_xdg_si,
        hyperparameters={"strength": 1.0, "damping": 0.1},
        options={"silent_percent": 80},
        boundaries=always,
        told=True,
    ),
}
