"""neuroml: continual learning for JAX.

A *rule* is an Optax transformation whose state knows how to consolidate:

    tx = optax.chain(neuroml.ewc(strength=100.0), optax.adam(1e-3))
    ...
    opt_state = neuroml.consolidate(opt_state, params, importance=...)

Names are loaded when first used: importing the package imports neither JAX nor Flax.
"""

import importlib
import importlib.metadata
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroml import (
        activity,
        adaptation,
        additive,
        autoencoder,
        competing,
        condensate,
        contexts,
        conventions,
        dendrites,
        discriminant,
        double_well,
        exemplars,
        features,
        gdumb,
        generative_classifier,
        generative_replay,
        hard_attention,
        inferring,
        interventions,
        learner,
        losses,
        memory,
        methods,
        metrics,
        modules,
        neurogenesis,
        packnet,
        projection,
        recall,
        regularizers,
        shell,
        slots,
        streams,
        wiring,
    )
    from neuroml.core import consolidate, describe, penalty, rule
    from neuroml.deepening import deepen
    from neuroml.experiment import Experiment
    from neuroml.growing import reserve, spare_young
    from neuroml.importance import fisher, sensitivity
    from neuroml.modules.condensate_memory import CondensateMemory
    from neuroml.modules.gated import ActiveDendrites, KWinners
    from neuroml.modules.growable import GrowableConv, GrowableDense
    from neuroml.modules.homeostatic import StreamingNorm, crelu
    from neuroml.modules.network import Network, from_linen, from_nnx, standardized
    from neuroml.modules.reference import cnn, mlp
    from neuroml.renewing import renewal
    from neuroml.resizing import resize
    from neuroml.rules.agem import agem
    from neuroml.rules.bcm import bcm
    from neuroml.rules.benna_fusi import benna_fusi
    from neuroml.rules.cbp import cbp
    from neuroml.rules.condensate_anchor import condensate_anchor
    from neuroml.rules.condensate_metric import condensate_metric
    from neuroml.rules.condensate_projector import condensate_projector
    from neuroml.rules.decorrelation import decorrelation
    from neuroml.rules.derpp import derpp
    from neuroml.rules.er import er
    from neuroml.rules.er_ace import er_ace
    from neuroml.rules.ewc import ewc
    from neuroml.rules.gpm import gpm
    from neuroml.rules.growth import growth
    from neuroml.rules.intrinsic_plasticity import intrinsic_plasticity
    from neuroml.rules.l2_init import l2_init
    from neuroml.rules.lwf import lwf
    from neuroml.rules.mas import mas
    from neuroml.rules.maturity_lock import maturity_lock
    from neuroml.rules.mesu import mesu
    from neuroml.rules.nanotube import nanotube
    from neuroml.rules.owm import owm
    from neuroml.rules.partial_resets import partial_resets
    from neuroml.rules.redo import redo
    from neuroml.rules.regrama import regrama
    from neuroml.rules.rwalk import rwalk
    from neuroml.rules.schwann import schwann
    from neuroml.rules.self_normalized_resets import self_normalized_resets
    from neuroml.rules.shrink_perturb import shrink_perturb
    from neuroml.rules.si import si
    from neuroml.rules.spectral import spectral_regularization
    from neuroml.rules.sprouting import sprouting
    from neuroml.rules.surprise_rate import surprise_rate
    from neuroml.rules.synaptic_gate import synaptic_gate
    from neuroml.rules.synaptic_scaling import synaptic_scaling
    from neuroml.rules.three_factor import three_factor
    from neuroml.rules.upgd import upgd
    from neuroml.rules.weight_clipping import weight_clipping
    from neuroml.running import run
    from neuroml.schedule import every, on_surprise, surprise

__version__ = "0.1.0"

# Where each public name lives; a name that maps to itself is a module.
_MODULES = (
    "activity",
    "adaptation",
    "additive",
    "autoencoder",
    "competing",
    "condensate",
    "contexts",
    "conventions",
    "dendrites",
    "discriminant",
    "double_well",
    "exemplars",
    "features",
    "gdumb",
    "generative_classifier",
    "generative_replay",
    "hard_attention",
    "inferring",
    "interventions",
    "learner",
    "losses",
    "memory",
    "methods",
    "metrics",
    "modules",
    "neurogenesis",
    "packnet",
    "projection",
    "recall",
    "regularizers",
    "shell",
    "slots",
    "streams",
    "wiring",
)
_RULES = (
    "agem",
    "bcm",
    "benna_fusi",
    "cbp",
    "condensate_anchor",
    "condensate_metric",
    "condensate_projector",
    "decorrelation",
    "derpp",
    "er",
    "er_ace",
    "ewc",
    "gpm",
    "growth",
    "intrinsic_plasticity",
    "l2_init",
    "lwf",
    "mas",
    "maturity_lock",
    "mesu",
    "nanotube",
    "owm",
    "partial_resets",
    "redo",
    "regrama",
    "rwalk",
    "schwann",
    "self_normalized_resets",
    "shrink_perturb",
    "si",
    "sprouting",
    "surprise_rate",
    "synaptic_gate",
    "synaptic_scaling",
    "three_factor",
    "upgd",
    "weight_clipping",
)
_HOMES = {
    "deepen": "deepening",
    "renewal": "renewing",
    "resize": "resizing",
    **dict.fromkeys(("reserve", "spare_young"), "growing"),
    **{name: name for name in _MODULES},
    **dict.fromkeys(("consolidate", "describe", "penalty", "rule"), "core"),
    "Experiment": "experiment",
    **dict.fromkeys(("fisher", "sensitivity"), "importance"),
    "CondensateMemory": "modules.condensate_memory",
    **dict.fromkeys(("ActiveDendrites", "KWinners"), "modules.gated"),
    **dict.fromkeys(("GrowableConv", "GrowableDense"), "modules.growable"),
    **dict.fromkeys(("StreamingNorm", "crelu"), "modules.homeostatic"),
    **dict.fromkeys(("Network", "from_linen", "from_nnx", "standardized"), "modules.network"),
    **dict.fromkeys(("cnn", "mlp"), "modules.reference"),
    **{name: f"rules.{name}" for name in _RULES},
    "spectral_regularization": "rules.spectral",
    "run": "running",
    **dict.fromkeys(("every", "on_surprise", "surprise"), "schedule"),
}

__all__ = [
    "ActiveDendrites",
    "CondensateMemory",
    "Experiment",
    "GrowableConv",
    "GrowableDense",
    "KWinners",
    "Network",
    "StreamingNorm",
    "activity",
    "adaptation",
    "additive",
    "agem",
    "autoencoder",
    "bcm",
    "benna_fusi",
    "cbp",
    "cnn",
    "competing",
    "condensate",
    "condensate_anchor",
    "condensate_metric",
    "condensate_projector",
    "consolidate",
    "contexts",
    "conventions",
    "crelu",
    "decorrelation",
    "deepen",
    "dendrites",
    "derpp",
    "describe",
    "discriminant",
    "double_well",
    "er",
    "er_ace",
    "every",
    "ewc",
    "exemplars",
    "features",
    "fisher",
    "from_linen",
    "from_nnx",
    "gdumb",
    "generative_classifier",
    "generative_replay",
    "gpm",
    "growth",
    "hard_attention",
    "inferring",
    "interventions",
    "intrinsic_plasticity",
    "l2_init",
    "learner",
    "losses",
    "lwf",
    "mas",
    "maturity_lock",
    "memory",
    "mesu",
    "methods",
    "metrics",
    "mlp",
    "modules",
    "nanotube",
    "neurogenesis",
    "on_surprise",
    "owm",
    "packnet",
    "partial_resets",
    "penalty",
    "projection",
    "recall",
    "redo",
    "regrama",
    "regularizers",
    "renewal",
    "reserve",
    "resize",
    "rule",
    "run",
    "rwalk",
    "schwann",
    "self_normalized_resets",
    "sensitivity",
    "shell",
    "shrink_perturb",
    "si",
    "slots",
    "spare_young",
    "spectral_regularization",
    "sprouting",
    "standardized",
    "streams",
    "surprise",
    "surprise_rate",
    "synaptic_gate",
    "synaptic_scaling",
    "three_factor",
    "upgd",
    "weight_clipping",
    "wiring",
]

_NAMESAKE = (
    "libNeuroML is installed in this environment, and its import package is called `neuroml` too. This is neuroml-jax, "
    "the continual-learning library; `neuroml.NeuroMLDocument` and its kin are out of reach. Keep the two in separate "
    "environments: `pip uninstall libNeuroML`, or make a new one with `python -m venv`."
)


def _warn_of_namesake() -> None:
    try:
        importlib.metadata.distribution("libNeuroML")
    except importlib.metadata.PackageNotFoundError:
        return
    warnings.warn(_NAMESAKE, RuntimeWarning, stacklevel=3)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'neuroml' has no attribute {name!r}")
    module = importlib.import_module(f"neuroml.{home}")
    value = module if home == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


_warn_of_namesake()
