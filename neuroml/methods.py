"""Methods: recipes of rules, by name. A plain dict; add a row, and the benchmarks have a new method.

A recipe says how to build its Optax transformation from numeric hyperparameters (leaves: they may be tracers, so that
a sweep is a vmap) and static options, and what it needs from the stream.
"""

import math

import jax
import jax.numpy as jnp
import optax

from neuroml import (
    condensate_methods,
    context_methods,
    dendrite_methods,
    discriminant_methods,
    gate_methods,
    generative_methods,
    growth_methods,
    penalty_methods,
    plasticity_methods,
    rehearsal_methods,
    repair_methods,
    replay_methods,
)
from neuroml.errors import unknown
from neuroml.importance import fisher, sensitivity
from neuroml.method import Method, Settings, Situation, always, fisher_of, optimizer_alone
from neuroml.rules.benna_fusi import benna_fusi
from neuroml.rules.ewc import ewc
from neuroml.rules.gpm import gpm
from neuroml.rules.lwf import lwf
from neuroml.rules.mas import mas
from neuroml.rules.mesu import mesu
from neuroml.rules.owm import owm
from neuroml.rules.rwalk import rwalk
from neuroml.rules.si import si
from neuroml.schedule import every, on_surprise, surprise


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
    own = {name: given[name] for name in ("damping", "ceiling")}
    own |= {name: bool(given[name]) for name in ("clip_negative", "count_penalty")}
    return si(given["strength"], **own)


def _mas(at: Situation, given: Settings):
    return optax.chain(mas(given["strength"], decay=given["decay"]), at.optimizer)


def _lwf(at: Situation, given: Settings):
    if given["known"] not in ("all", "taught"):
        raise unknown("choice of known outputs", given["known"], ("all", "taught"))
    # The teacher is asked about heads of earlier tasks too, which are switched off for the examples of this one.
    every = lambda params, batch: at.task.predict(params, batch._replace(active=jnp.ones_like(batch.active)))
    own = {name: given[name] for name in ("strength", "temperature", "weighting")}
    labels = None if given["known"] == "all" else (lambda batch: batch.y)
    return optax.chain(lwf(every, outputs=at.outputs, labels=labels, **own), at.optimizer)


def _owm(at: Situation, given: Settings):
    return optax.chain(at.optimizer, owm(given["strength"], alpha=given["alpha"], alpha_decay=given["alpha_decay"]))


def _gpm(at: Situation, given: Settings):
    return optax.chain(at.optimizer, gpm(given["strength"], threshold=given["threshold"]))


def _rwalk(at: Situation, given: Settings):
    rule = rwalk(given["strength"], decay=given["decay"], damping=given["damping"], every=int(given["every"]))
    return optax.chain(rule, at.optimizer)


def _benna_fusi(at: Situation, given: Settings):
    return optax.chain(at.optimizer, benna_fusi(given["strength"], depth=int(given["depth"])))


def _mesu(at: Situation, given: Settings):
    numbers = {name: given[name] for name in ("strength", "prior", "window")}
    own = {"examples": float(at.batch_size), "samples": int(given["weight_samples"])}
    return optax.chain(mesu(at.task.loss, **own, **numbers), at.optimizer)


def _all_alike(given: Settings):
    del given
    return lambda predict, params, examples, key: jax.tree.map(jnp.ones_like, params)


def _output_sensitivity(given: Settings):
    del given
    return lambda predict, params, examples, key: sensitivity(predict, params, examples)


_SI = {"strength": 1.0, "damping": 0.1, "ceiling": math.inf}
_SI_OPTIONS = {"clip_negative": True, "count_penalty": False}
_SI_YOUNG = {"ceiling": math.inf, "count_penalty": False}
_SI_LIMITS = {"ceiling": "(0, inf)"}

methods: dict[str, Method] = {
    **condensate_methods.methods,
    **context_methods.methods,
    **plasticity_methods.methods,
    **gate_methods.methods,
    **penalty_methods.methods,
    **dendrite_methods.methods,
    **repair_methods.methods,
    **growth_methods.methods,
    **replay_methods.methods,
    **rehearsal_methods.methods,
    **discriminant_methods.methods,
    **generative_methods.methods,
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
    "l2": Method(
        "every weight held where it was, all alike: EWC without importance",
        _ewc,
        hyperparameters={"strength": 0.01, "decay": 0.0},
        options={"anchors": "latest", "form": "explicit"},
        importance=_all_alike,
        boundaries=always,
    ),
    "rwalk": Method(
        "Riemannian walk: a running Fisher diagonal and a score of the path",
        _rwalk,
        hyperparameters={"strength": 1.0, "decay": 0.9, "damping": 1e-3},
        options={"every": 1},
        boundaries=always,
    ),
    "benna_fusi": Method(
        "weights of many time scales (Benna-Fusi cascade)",
        _benna_fusi,
        hyperparameters={"strength": 0.1},
        options={"depth": 6},
    ),
    "mesu": Method(
        "every weight a Gaussian that learns as fast as it is uncertain (MESU)",
        _mesu,
        hyperparameters={"strength": 1.0, "prior": 0.1, "window": 1e5},
        options={"weight_samples": 1},
    ),
    "ewc_every": Method(
        "EWC that consolidates every so many steps, Fisher from the batch at hand",
        _ewc_every,
        hyperparameters={"strength": 100.0, "decay": 1.0},
        options={"steps": 100},
    ),
    "si": Method(
        "synaptic intelligence",
        _si,
        hyperparameters=_SI,
        options=_SI_OPTIONS,
        boundaries=always,
        young=_SI_YOUNG,
        limits=_SI_LIMITS,
    ),
    "si_every": Method(
        "SI that consolidates every so many steps",
        _si_every,
        hyperparameters=_SI,
        options={**_SI_OPTIONS, "steps": 100},
        young=_SI_YOUNG,
        limits=_SI_LIMITS,
    ),
    "si_on_surprise": Method(
        "SI that consolidates when the loss jumps",
        _si_on_surprise,
        hyperparameters={**_SI, "ratio": 2.0, "margin": 0.2},
        options=_SI_OPTIONS,
        young=_SI_YOUNG,
        limits=_SI_LIMITS,
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
    "lwf": Method(
        "learning without forgetting",
        _lwf,
        hyperparameters={"strength": 1.0, "temperature": 2.0},
        options={"weighting": "constant", "known": "taught"},
        boundaries=always,
    ),
}
