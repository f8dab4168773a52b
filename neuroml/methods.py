"""Methods: recipes of rules, by name. A plain dict; add a row, and the benchmarks have a new method.

A recipe says how to build its Optax transformation from numeric hyperparameters (leaves: they may be tracers, so that
a sweep is a vmap) and static options, and what it needs from the stream.
"""

import jax.numpy as jnp
import optax

from neuroml import condensate_methods, gate_methods, growth_methods, memory, plasticity_methods, repair_methods
from neuroml.errors import UsageError, unknown
from neuroml.importance import fisher, sensitivity
from neuroml.method import Method, Settings, Situation, always, fisher_of, optimizer_alone
from neuroml.rules.agem import agem
from neuroml.rules.derpp import derpp
from neuroml.rules.er import er
from neuroml.rules.ewc import ewc
from neuroml.rules.gpm import gpm
from neuroml.rules.lwf import lwf
from neuroml.rules.mas import mas
from neuroml.rules.owm import owm
from neuroml.rules.si import si
from neuroml.schedule import every, on_surprise, surprise


def _replays_the_past(given: Settings) -> bool:
    return given["replay"] == "past" or given["weighting"] == "tasks"


def _ewc(at: Situation, given: Settings):
    if given["form"] == "proximal":
        spring = ewc(given["strength"], decay=given["decay"], anchors=given["anchors"], step_size=at.learning_rate)
        return optax.chain(at.optimizer, spring)
    if given["form"] == "explicit":
        return optax.chain(ewc(given["strength"], decay=given["decay"], anchors=given["anchors"]), at.optimizer)
    raise unknown("form of EWC", given["form"], ("explicit", "proximal"))


def _ewc_every(at: Situation, given: Settings):
    rule = ewc(given["strength"], decay=given["decay"], anchors="latest")
    estimate = lambda params, *, batch, **_: {"importance": fisher(at.task.predict, params, batch)}
    return optax.chain(every(rule, given["steps"], context=estimate), at.optimizer)


def _si(at: Situation, given: Settings):
    return optax.chain(_si_rule(given), at.optimizer)


def _si_every(at: Situation, given: Settings):
    return optax.chain(every(_si_rule(given), given["steps"]), at.optimizer)


def _si_on_surprise(at: Situation, given: Settings):
    detector = surprise(ratio=given["ratio"], margin=given["margin"])
    return optax.chain(on_surprise(_si_rule(given), detector), at.optimizer)


def _si_rule(given: Settings):
    return si(given["strength"], damping=given["damping"], clip_negative=bool(given["clip_negative"]))


def _mas(at: Situation, given: Settings):
    return optax.chain(mas(given["strength"], decay=given["decay"]), at.optimizer)


def _er(at: Situation, given: Settings):
    if given["replay_batch"] < 0:
        raise UsageError(f"replay_batch={given['replay_batch']} must not be negative; 0 takes the size of the batches.")
    rule = er(
        at.task.loss,
        at.example,
        _store(at, given),
        batch_size=given["replay_batch"] or at.batch_size,
        strength=given["strength"],
        replay=given["replay"],
        weighting=given["weighting"],
    )
    return optax.chain(rule, at.optimizer)


def _agem(at: Situation, given: Settings):
    size = given["replay_batch"] or at.batch_size
    rule = agem(at.task.loss, at.example, _store(at, given), batch_size=size, strength=given["strength"])
    return optax.chain(rule, at.optimizer)


def _lwf(at: Situation, given: Settings):
    if given["known"] not in ("all", "taught"):
        raise unknown("choice of known outputs", given["known"], ("all", "taught"))
    # The teacher is asked about heads of earlier tasks too, which are switched off for the examples of this one.
    every = lambda params, batch: at.task.predict(params, batch._replace(active=jnp.ones_like(batch.active)))
    own = {name: given[name] for name in ("strength", "temperature", "weighting")}
    labels = None if given["known"] == "all" else (lambda batch: batch.y)
    return optax.chain(lwf(every, outputs=at.outputs, labels=labels, **own), at.optimizer)


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


def _owm(at: Situation, given: Settings):
    return optax.chain(at.optimizer, owm(given["strength"], alpha=given["alpha"], alpha_decay=given["alpha_decay"]))


def _gpm(at: Situation, given: Settings):
    return optax.chain(at.optimizer, gpm(given["strength"], threshold=given["threshold"]))


def _store(at: Situation, given: Settings) -> memory.Memory:
    capacity, keep = int(given["capacity"]), given["keep"]
    if keep == "class_balanced":
        return memory.class_balanced(capacity, at.outputs, lambda batch: batch.y)
    if keep == "reservoir":
        return memory.reservoir(capacity)
    if keep == "ring":
        return memory.ring(capacity)
    raise unknown("policy of what to keep", keep, ("class_balanced", "reservoir", "ring"))


def _output_sensitivity(given: Settings):
    del given
    return lambda predict, params, examples, key: sensitivity(predict, params, examples)


_SI = {"strength": 1.0, "damping": 0.1}
_SI_OPTIONS = {"clip_negative": True}

methods: dict[str, Method] = {
    **condensate_methods.methods,
    **plasticity_methods.methods,
    **gate_methods.methods,
    **repair_methods.methods,
    **growth_methods.methods,
    "naive": Method("the optimizer alone", optimizer_alone),
    "joint": Method("the optimizer alone, on all tasks at once: the upper reference", optimizer_alone, joint=True),
    "ewc": Method(
        "elastic weight consolidation; with anchors=latest, online EWC",
        _ewc,
        hyperparameters={"strength": 100.0, "decay": 1.0},
        options={"anchors": "separate", "form": "explicit", "labels": "all"},
        importance=fisher_of,
        boundaries=always,
        young={"labels": "all"},
    ),
    "ewc_every": Method(
        "EWC that consolidates every so many steps, Fisher from the batch at hand",
        _ewc_every,
        hyperparameters={"strength": 100.0, "decay": 1.0},
        options={"steps": 100},
    ),
    "si": Method("synaptic intelligence", _si, hyperparameters=_SI, options=_SI_OPTIONS, boundaries=always),
    "si_every": Method(
        "SI that consolidates every so many steps",
        _si_every,
        hyperparameters=_SI,
        options={**_SI_OPTIONS, "steps": 100},
    ),
    "si_on_surprise": Method(
        "SI that consolidates when the loss jumps",
        _si_on_surprise,
        hyperparameters={**_SI, "ratio": 2.0, "margin": 0.2},
        options=_SI_OPTIONS,
    ),
    "mas": Method(
        "memory aware synapses",
        _mas,
        hyperparameters={"strength": 1.0, "decay": 1.0},
        importance=_output_sensitivity,
        boundaries=always,
    ),
    "owm": Method(
        "orthogonal weight modification",
        _owm,
        hyperparameters={"strength": 1.0, "alpha": 1.0, "alpha_decay": 1.0},
        boundaries=always,
        activity=True,
    ),
    "gpm": Method(
        "gradient projection memory",
        _gpm,
        hyperparameters={"strength": 1.0, "threshold": 0.95},
        boundaries=always,
        activity=True,
    ),
    "agem": Method(
        "averaged gradient episodic memory",
        _agem,
        hyperparameters={"strength": 1.0},
        options={"capacity": 200, "keep": "reservoir", "replay_batch": 0},
        boundaries=always,
    ),
    "lwf": Method(
        "learning without forgetting",
        _lwf,
        hyperparameters={"strength": 1.0, "temperature": 2.0},
        options={"weighting": "constant", "known": "taught"},
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
    "er": Method(
        "experience replay",
        _er,
        hyperparameters={"strength": 1.0},
        options={"capacity": 200, "keep": "reservoir", "replay_batch": 0, "replay": "stored", "weighting": "constant"},
        boundaries=_replays_the_past,
    ),
}
