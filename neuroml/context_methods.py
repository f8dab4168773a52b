"""The methods of the benchmarks that are told the task at test time: for task-incremental streams only."""

import optax

from neuroml.contexts import gated, separate
from neuroml.hard_attention import hard_attention
from neuroml.learner import Learner, make_learner
from neuroml.method import Method, Settings, Situation, always
from neuroml.packnet import packnet
from neuroml.rules.si import si


def _separate(at: Situation, given: Settings) -> Learner:
    del given
    return separate(make_learner(at.task, at.optimizer), at.tasks)


def _xdg(at: Situation, given: Settings) -> Learner:
    return gated(at.task, at.optimizer, at.tasks, given["silent_percent"] / 100)


def _xdg_si(at: Situation, given: Settings) -> Learner:
    rule = si(given["strength"], damping=given["damping"])
    return gated(at.task, optax.chain(rule, at.optimizer), at.tasks, given["silent_percent"] / 100)


def _hat(at: Situation, given: Settings) -> Learner:
    own = {"sharpness": float(given["sharpness"]), "thrift": given["thrift"]}
    return hard_attention(at.task, at.optimizer, at.tasks, ramp=int(given["ramp"]), **own)


def _packnet(at: Situation, given: Settings) -> Learner:
    steps, share = int(given["dense_steps"]), given["pruned_percent"] / 100
    return packnet(at.task, at.optimizer, dense_steps=steps, pruned=share)


methods: dict[str, Method] = {
    "separate": Method("a network for each task", learner=_separate, scenarios=("task",)),
    "xdg": Method(
        "context-dependent gating: in each task other neurons are silent",
        learner=_xdg,
        options={"silent_percent": 80},
        scenarios=("task",),
    ),
    "hat": Method(
        "hard attention to the task: each task learns which neurons it uses, and they are then held",
        learner=_hat,
        hyperparameters={"thrift": 0.75},
        own_heads=True,
        options={"ramp": 100, "sharpness": 400},
        boundaries=always,
        scenarios=("task",),
    ),
    "packnet": Method(
        "each task is pruned to the weights that it needs, the rest is free for the next (PackNet)",
        learner=_packnet,
        options={"dense_steps": 1000, "pruned_percent": 50},
        own_heads=True,
        boundaries=always,
        scenarios=("task",),
    ),
    "xdg_si": Method(
        "context-dependent gating with synaptic intelligence",
        learner=_xdg_si,
        hyperparameters={"strength": 1.0, "damping": 0.1},
        options={"silent_percent": 80},
        boundaries=always,
        scenarios=("task",),
    ),
}
