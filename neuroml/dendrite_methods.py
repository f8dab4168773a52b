"""The methods of the benchmarks whose neurons gate their answers: dendrites that know a context, or competition."""

import optax

from neuroml.competing import competing
from neuroml.dendrites import DENDRITES, dendritic
from neuroml.learner import Learner
from neuroml.method import Method, Settings, Situation, always
from neuroml.rules.si import si


def _made(at: Situation, given: Settings, transform: optax.GradientTransformation) -> Learner:
    own = {name: given[name] for name in ("radius", "spread")}
    own |= {name: int(given[name]) for name in ("contexts", "segments")}
    return dendritic(at.task, transform, at.example, winners=int(given["winners_percent"]) / 100, **own)


def _dendrites(at: Situation, given: Settings) -> Learner:
    return _made(at, given, at.optimizer)


def _dendrites_si(at: Situation, given: Settings) -> Learner:
    # As the authors have it, SI holds the weights of the network and leaves the segments alone.
    but_segments = lambda params: {name: name != DENDRITES for name in params}
    held = optax.masked(si(given["strength"], damping=given["damping"]), but_segments)
    return _made(at, given, optax.chain(held, at.optimizer))


def _k_winners(at: Situation, given: Settings) -> Learner:
    own = {name: given[name] for name in ("winners", "strength", "decay")}
    return competing(at.task, at.optimizer, **own, shuffled=bool(given["shuffled"]))


_NUMBERS = {"radius": 0.3, "spread": 1.0}
_OPTIONS = {"contexts": 20, "segments": 1, "winners_percent": 5}
_LIMITS = {"radius": "(0, inf)"}

methods: dict[str, Method] = {
    "active_dendrites": Method(
        "neurons gated by dendrites that know the context, inferred from the input; few answer at once",
        learner=_dendrites,
        hyperparameters=_NUMBERS,
        options=_OPTIONS,
        limits=_LIMITS,
    ),
    "active_dendrites_si": Method(
        "active dendrites, with synaptic intelligence on the network's weights",
        learner=_dendrites_si,
        hyperparameters={**_NUMBERS, "strength": 0.1, "damping": 0.1},
        options=_OPTIONS,
        boundaries=always,
        limits=_LIMITS,
    ),
    "k_winners": Method(
        "few neurons of a layer answer, and those that won of late win more easily",
        learner=_k_winners,
        hyperparameters={"winners": 0.3, "strength": 0.1, "decay": 0.99},
        options={"shuffled": False},
        limits={"winners": "(0, 1]", "strength": "[0, inf)", "decay": "[0, 1)"},
    ),
}
