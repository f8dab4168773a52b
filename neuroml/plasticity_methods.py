"""The methods of the benchmarks that keep a network able to learn: ours, the published rivals, and tuned optimizers."""

from collections.abc import Callable

import jax
import optax

from neuroml import adaptation, wiring
from neuroml.condensate_methods import METRIC, PROJECTOR, PROJECTOR_OPTIONS, metric_rule, projector_rule
from neuroml.conditioned import conditioned
from neuroml.errors import unknown
from neuroml.learner import Learner, Task, make_learner
from neuroml.method import Method, Settings, Situation, always, optimizer_alone, wiring_of
from neuroml.renewing import renewal
from neuroml.rules.cbp import cbp
from neuroml.rules.decorrelation import decorrelation
from neuroml.rules.l2_init import l2_init
from neuroml.rules.partial_resets import partial_resets
from neuroml.rules.redo import redo
from neuroml.rules.regrama import regrama
from neuroml.rules.self_normalized_resets import self_normalized_resets
from neuroml.rules.shrink_perturb import shrink_perturb
from neuroml.rules.spectral import spectral_regularization
from neuroml.rules.surprise_rate import surprise_rate
from neuroml.rules.upgd import upgd
from neuroml.rules.weight_clipping import weight_clipping
from neuroml.shell import shelled


def _fresh(at: Situation):
    return lambda key: at.task.network.init(key)[0]


def _optimizer(name: str):
    return lambda at, given: getattr(optax, name)(at.learning_rate)


def _adamw(at: Situation, given: Settings):
    return optax.adamw(at.learning_rate, weight_decay=given["weight_decay"])


def _l2_init(at: Situation, given: Settings):
    return optax.chain(l2_init(given["strength"], form=given["form"]), at.optimizer)


def _shrink_perturb(at: Situation, given: Settings):
    rule = shrink_perturb(given["shrink"], noise=given["noise"], every=int(given["every"]))
    return optax.chain(at.optimizer, rule)


def _weight_clipping(at: Situation, given: Settings):
    return optax.chain(at.optimizer, weight_clipping(given["factor"]))


def _upgd(at: Situation, given: Settings):
    gate = upgd(given["strength"], noise=given["noise"], decay=given["decay"], gate=given["gate"])
    return optax.chain(gate, optax.add_decayed_weights(given["weight_decay"]), at.optimizer)


def _renewed(make: Callable[..., optax.GradientTransformation], *names: str):
    """Returns the recipe of a rule that replaces neurons, beside an optimizer whose moments it clears."""

    def recipe(at: Situation, given: Settings):
        names_of_axes = wiring_of(at)
        settings = {name: int(given[name]) if name == "every" else given[name] for name in names}
        return renewal(at.optimizer, make(names_of_axes, _fresh(at), **settings), names_of_axes)

    return recipe


def _spectral(at: Situation, given: Settings):
    return optax.chain(spectral_regularization(given["strength"]), at.optimizer)


def _balanced(at: Situation, given: Settings, last: optax.GradientTransformation) -> Callable[[Task], Learner]:
    """Hidden inputs and weights each keep a set point of their own; `last` turns the steps."""
    named = {"ridge": given["ridge"], "decay": given["input_decay"], "every": given["every"]}
    hidden = decorrelation(given["strength"], **named, shuffled=given["shuffled_inputs"])
    chain = optax.chain(hidden, l2_init(given["anchoring"], form=given["form"]), at.optimizer, last)
    return lambda task: make_learner(task, chain, activity=True)


def _adapts(given: Settings) -> bool:
    return bool(given["adapts"])


def _adapting(at: Situation, given: Settings, make: Callable[[Task], Learner]) -> Learner:
    """Inputs keep a set point, too, where the setting `adapts` says so."""
    if not _adapts(given):
        return make(at.task)
    norm = adaptation.make(given["decay"], shift=given["shift"], pooled=given["pooled"])
    return conditioned(make(at.task._replace(scale=1.0)), norm, at.example, at.task.scale)


SURPRISED = ("all", "head", "head_always")


def _surprised(at: Situation, given: Settings) -> optax.GradientTransformationExtraArgs:
    """Larger steps while the loss is above its mean: of all weights, or of the head's; or, as a control, always."""
    part = given["surprised"]
    if part not in SURPRISED:
        raise unknown("part of the network to be surprised", part, SURPRISED)
    rule = surprise_rate(given["surprise"], slow_decay=0.999, constant=part == "head_always")
    if part == "all":
        return rule
    return optax.masked(rule, jax.tree.map(lambda axes: "output" in axes, wiring_of(at), is_leaf=wiring.is_names))


def _homeostasis(at: Situation, given: Settings) -> Learner:
    last = optax.chain(_surprised(at, given), weight_clipping(given["bound"]))
    return _adapting(at, given, _balanced(at, given, last))


def _protection(given: Settings) -> Settings:
    """The settings of what protects, whose strength has a name of its own beside that of decorrelation."""
    return {**given, "strength": given["protection"]}


def _protected(at: Situation, given: Settings) -> Callable[[Task], Learner]:
    return _balanced(at, given, projector_rule(_protection(given)))


def _in_one_metric(at: Situation, given: Settings) -> Callable[[Task], Learner]:
    chain = optax.chain(at.optimizer, metric_rule(_protection(given)))
    return lambda task: make_learner(task, chain, activity=True)


CORES = {"condensate_homeostasis": _protected, "condensate_metric": _in_one_metric}


def _condensate_homeostasis(at: Situation, given: Settings) -> Learner:
    return _adapting(at, given, _protected(at, given))


def _condensate_shell(at: Situation, given: Settings) -> Learner:
    """A core of both together, and homeostasis without adaptation of its own as the shell, at `speed` times its step.

    The core is told `protection`, `scale`, `input_decay`, `every` and `shuffled`. One of condensates after homeostasis
    also shares `strength`, `ridge`, `anchoring` with the shell and reads the other settings of the projector; one of
    one metric reads `decorrelation`, and has no anchoring.
    """
    if given["core"] not in CORES:
        raise unknown("core", given["core"], CORES)
    core = CORES[given["core"]](at, given)
    shell = _balanced(at, given, optax.scale(given["speed"]))
    return _adapting(at, given, lambda task: shelled(core(task), shell(task), start=given["start"]))


_SET_POINTS = {"decay": 0.99, "shift": 1.0, "strength": 1.0, "ridge": 0.1, "input_decay": 0.999, "anchoring": 6e-3}
_CONTROLS = {"pooled": False, "shuffled_inputs": False, "form": "euclidean"}  # each part's content-free control is off
_OPTIONS = {"every": 100, "adapts": True, **_CONTROLS}
_SURPRISED = {"surprised": "all"}
_UNBOUNDED = {"bound": 1e6}
_PROJECTOR = {name: value for name, value in PROJECTOR.items() if name != "strength"}

methods: dict[str, Method] = {
    "sgd": Method("stochastic gradient descent alone", _optimizer("sgd")),
    "adam": Method("Adam alone", _optimizer("adam")),
    "adamw": Method("Adam with decoupled weight decay", _adamw, hyperparameters={"weight_decay": 0.01}),
    "layer_norm": Method("layer norm in every hidden layer", optimizer_alone, architecture={"layer_norm": True}),
    "crelu": Method("concatenated ReLU", optimizer_alone, architecture={"activation": "crelu"}),
    "l2_init": Method(
        "weights drawn back to where they started",
        _l2_init,
        hyperparameters={"strength": 1e-3},
        options={"form": "euclidean"},
    ),
    "shrink_perturb": Method(
        "weights shrunk and shaken",
        _shrink_perturb,
        hyperparameters={"shrink": 1e-4, "noise": 1e-4},
        options={"every": 1},
    ),
    "weight_clipping": Method(
        "weights kept near the range of their initialization", _weight_clipping, hyperparameters={"factor": 2.0}
    ),
    "upgd": Method(
        "utility-based perturbed gradient descent with weight decay (UPGD-W)",
        _upgd,
        hyperparameters={"strength": 1.0, "noise": 0.1, "decay": 0.9999, "weight_decay": 0.01},
        options={"gate": "utility"},
    ),
    "cbp": Method(
        "continual backpropagation: the least useful neurons are replaced",
        _renewed(cbp, "rate", "decay", "maturity", "choose"),
        hyperparameters={"rate": 1e-4, "decay": 0.99, "maturity": 100.0},
        options={"choose": "utility"},
        activity=True,
    ),
    "redo": Method(
        "neurons that hardly answer are replaced",
        _renewed(redo, "threshold", "every", "choose"),
        hyperparameters={"threshold": 0.1},
        options={"every": 1000, "choose": "utility"},
        activity=True,
    ),
    "regrama": Method(
        "neurons that hardly learn are replaced",
        _renewed(regrama, "threshold", "every", "choose"),
        hyperparameters={"threshold": 0.01},
        options={"every": 1000, "choose": "utility"},
    ),
    "self_normalized_resets": Method(
        "neurons silent for longer than they ever are, are replaced",
        _renewed(self_normalized_resets, "rejection", "minimum", "choose"),
        hyperparameters={"rejection": 0.01, "minimum": 100.0},
        options={"choose": "utility"},
        activity=True,
    ),
    "partial_resets": Method(
        "neurons are drawn towards a fresh start, further the less they learn",
        _renewed(partial_resets, "strength", "every", "choose"),
        hyperparameters={"strength": 0.015},
        options={"every": 1000, "choose": "utility"},
    ),
    "spectral": Method(
        "largest singular values kept at 1",
        _spectral,
        hyperparameters={"strength": 1e-3},
    ),
    "homeostasis": Method(
        "adapting inputs, decorrelated layers, weights kept near where and within the range in which they started",
        learner=_homeostasis,
        hyperparameters={**_SET_POINTS, "surprise": 0.0, **_UNBOUNDED},
        options={**_OPTIONS, **_SURPRISED},
        young={**_UNBOUNDED, **_CONTROLS, **_SURPRISED},
        conditions=_adapts,
    ),
    "condensate_homeostasis": Method(
        "the set points of homeostasis, and steps that keep out of the directions of earlier tasks",
        learner=_condensate_homeostasis,
        hyperparameters={**_SET_POINTS, "protection": 1.0, **_PROJECTOR},
        options={**_OPTIONS, **PROJECTOR_OPTIONS},
        boundaries=always,
        conditions=_adapts,
        young=_CONTROLS,
    ),
    "condensate_shell": Method(
        "a core that keeps, in a shell that protects nothing and answers what comes next",
        learner=_condensate_shell,
        hyperparameters={**_SET_POINTS, "protection": 1.0, "speed": 1.0, **_PROJECTOR, **METRIC},
        options={**_OPTIONS, "start": "itself", "core": "condensate_homeostasis", **PROJECTOR_OPTIONS},
        boundaries=always,
        conditions=_adapts,
        young={"core": "condensate_homeostasis", **METRIC, **_CONTROLS},
    ),
}
