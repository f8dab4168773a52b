"""The methods of the benchmarks that are built on condensates, and their controls."""

from typing import Any

import jax
import optax

from neuroml import condensate, features, recall
from neuroml.feature_settings import FEATURE_OPTIONS, features_of, held_back, width_of
from neuroml.learner import Learner, make_learner
from neuroml.method import Method, Settings, Situation, always, fisher_of
from neuroml.rules.condensate_anchor import condensate_anchor
from neuroml.rules.condensate_metric import condensate_metric
from neuroml.rules.condensate_projector import condensate_projector
from neuroml.rules.l2_init import l2_init
from neuroml.schedule import on_surprise, surprise


def projector_rule(given: Settings, **limits: Any) -> optax.GradientTransformationExtraArgs:
    """Returns the projector that a method's settings describe; `limits` to its cores go on as they are."""
    return condensate_projector(
        given["strength"],
        scale=given["scale"],
        evaporation=given["evaporation"],
        binding=given["binding"],
        hardness=given["hardness"],
        rank=int(given["rank"]) or None,
        shuffled=bool(given["shuffled"]),
        **limits,
    )


def _limited(given: Settings) -> optax.GradientTransformationExtraArgs:
    """Returns the projector with the limits to its cores that the settings name: a share of energy, bytes."""
    return projector_rule(given, kept=given["kept"], max_bytes=int(given["max_bytes"]) or None)


def may_consolidate(at: Situation, given: Settings) -> optax.GradientTransformation:
    """Returns the optimizer, behind it the projector where the setting `consolidates` says so."""
    return optax.chain(at.optimizer, projector_rule(given)) if given["consolidates"] else at.optimizer


def consolidates(given: Settings) -> bool:
    """Returns whether such a method must be told where tasks end."""
    return bool(given["consolidates"])


def _projector(at: Situation, given: Settings):
    return optax.chain(at.optimizer, _limited(given))


def _projector_on_surprise(at: Situation, given: Settings):
    detector = surprise(ratio=given["ratio"], margin=given["margin"])
    return optax.chain(at.optimizer, on_surprise(_limited(given), detector))


def _anchor(at: Situation, given: Settings):
    return optax.chain(at.optimizer, condensate_anchor(given["strength"], budget=given["budget"]))


def metric_rule(given: Settings) -> optax.GradientTransformationExtraArgs:
    """Returns the projector and decorrelation in one inverse, as a method's settings describe them."""
    return condensate_metric(
        given["strength"],
        scale=given["scale"],
        decorrelation=given["decorrelation"],
        decay=given["input_decay"],
        every=int(given["every"]),
        shuffled=bool(given["shuffled"]),
    )


def _metric(at: Situation, given: Settings):
    return optax.chain(l2_init(given["anchoring"]), at.optimizer, metric_rule(given))


def _head(at: Situation, given: Settings) -> Learner:
    """A trunk that learns under the projector; condensate slots in the place of its head, found by direction."""
    trunk = make_learner(at.task, _projector(at, given), activity=True)
    represent = recall.of_trunk(at.task, "head")
    width = _trunk_width(at)
    memory = condensate.make(
        width,
        at.outputs,
        count=int(given["slots"]),
        mix=given["mix"],
        ridge=given["ridge"],
        radius=given["radius"],
        linker=given["linker"],
    )
    keys = recall.directions(represent)
    return recall.recall(trunk, represent, memory, at.outputs, keys=keys, tension=int(given["tension"]))


def _trunk_width(at: Situation) -> int:
    params, _ = jax.eval_shape(at.task.network.init, jax.random.key(0))
    return params["head"]["kernel"].shape[0]


def _memory(at: Situation, given: Settings) -> Learner:
    """Condensates over fixed features.

    Slots that share the map count only where there are several: with `slots=1`, the usual number, `mix`, `linker` and
    `radius` change nothing, nor does `tension`. With maps of their own, slots are found by pixels, and `mix`, `linker`
    and `tension` change nothing.
    """
    made, scale = features_of(given), at.task.scale
    width = width_of(made, at)
    own = bool(given["own_maps"])
    several = int(given["slots"]) > 1 and not own
    pixels = at.example.x.size
    memory = condensate.make(
        width,
        at.outputs,
        count=int(given["slots"]),
        keys=pixels if own else None,
        maps="own" if own else "shared",
        mix=given["mix"] if several else 0.0,
        ridge=given["ridge"],
        radius=given["radius"] * (pixels if own else width) ** 0.5,
        linker=given["linker"] * width**0.5,
        nucleus=at.batch_size if own else 1,
        shell_rate=given["shell_rate"],
    )
    inner = recall.fixed(made, at.example, scale)
    keys = recall.of_features(features.pixels(), scale) if own else None
    contexts = int(given["slots"]) if own else 0
    return recall.recall(
        inner,
        recall.of_features(made, scale),
        memory,
        at.outputs,
        keys=keys,
        contexts=contexts,
        tension=int(given["tension"]) if several else 0,
    )


PROJECTOR = {"strength": 1.0, "scale": 0.1, "evaporation": 0.0, "binding": 0.0, "hardness": 0.0}
PROJECTOR_OPTIONS = {"rank": 0, "shuffled": False}
_UNLIMITED = {"kept": 1.0, "max_bytes": 0}
_LIMITED = {**PROJECTOR, "kept": 1.0}
_LIMITED_OPTIONS = {**PROJECTOR_OPTIONS, "max_bytes": 0}
CONSOLIDATION_OPTIONS = {"consolidates": False, **PROJECTOR_OPTIONS}
METRIC = {"decorrelation": 0.75}
_METRIC = {"strength": 1.0, "scale": 0.1, **METRIC, "input_decay": 0.999, "anchoring": 0.0}
_MEMORY = {"ridge": 0.01, "radius": 1.0, "linker": 1.0, "mix": 0.0, "shell_rate": 0.0}
_MEMORY_OPTIONS = {**FEATURE_OPTIONS, "slots": 1, "tension": 0, "own_maps": False}


def _memory_method(summary: str, numbers: Settings | None = None, **options: Any) -> Method:
    return Method(
        summary,
        learner=_memory,
        hyperparameters={**_MEMORY, **(numbers or {})},
        options={**_MEMORY_OPTIONS, **options},
        prepares=held_back,
        boundaries=lambda given: bool(given["tension"]),  # slots merge where a phase ends
        young={"tension": 0},
    )


methods: dict[str, Method] = {
    "condensate_projector": Method(
        "gradient steps keep out of the input directions that earlier tasks used, in every layer",
        _projector,
        hyperparameters=_LIMITED,
        options=_LIMITED_OPTIONS,
        boundaries=always,
        activity=True,
        young=_UNLIMITED,
    ),
    "condensate_projector_on_surprise": Method(
        "the same, consolidating when the loss jumps: nobody says where a task ends",
        _projector_on_surprise,
        hyperparameters={**_LIMITED, "ratio": 2.0, "margin": 0.2},
        options=_LIMITED_OPTIONS,
        activity=True,
        young=_UNLIMITED,
    ),
    "condensate_shuffled": Method(
        "control: the projector with its directions shuffled among the inputs, as many and as firm",
        _projector,
        hyperparameters=_LIMITED,
        options={**_LIMITED_OPTIONS, "shuffled": True},
        boundaries=always,
        activity=True,
        young=_UNLIMITED,
    ),
    "condensate_metric": Method(
        "the projector and decorrelation in one inverse; with anchoring, weights kept near where they started",
        _metric,
        hyperparameters=_METRIC,
        options={"every": 100, "shuffled": False},
        boundaries=always,
        activity=True,
    ),
    "condensate_anchor": Method(
        "ablation: weights that mattered condense, one by one",
        _anchor,
        hyperparameters={"strength": 1.0, "budget": 0.2},
        importance=fisher_of,
        boundaries=always,
    ),
    "condensate_head": Method(
        "a trunk under the projector, with condensate slots as its head",
        learner=_head,
        hyperparameters={**_LIMITED, "ridge": 1e-3, "radius": 0.55, "linker": 0.12, "mix": 0.5},
        options={**_LIMITED_OPTIONS, "slots": 2000, "tension": 0},
        boundaries=always,
        young={**_UNLIMITED, "tension": 0},
    ),
    "condensate_memory": _memory_method(
        "patch condensates, nucleated by the first task, over an additive core; fixed features"
    ),
    "condensate_contexts": _memory_method(
        "a slot with a map of its own for each context that the input gives away; fixed random features",
        {"radius": 0.3},
        features="random",
        width=2000,
        slots=20,
        own_maps=True,
    ),
    "patch_random": _memory_method(
        "control: condensate_memory with random patches as its filters, none learnt", rounds=0
    ),
    "random_ridge": _memory_method(
        "random Fourier features and ridge, their width from the first task (RanDumb without its leak)",
        features="random",
        width=2000,
    ),
}
