"""The methods of the benchmarks that keep a network able to learn: ours, the published rivals, and tuned optimizers."""

from typing import Any

import jax
import optax

from neuroml import adaptation
from neuroml.conditioned import conditioned
from neuroml.errors import UsageError
from neuroml.learner import Learner, make_learner
from neuroml.method import Method, Settings, Situation
from neuroml.renewing import renewal
from neuroml.rules.cbp import cbp
from neuroml.rules.decorrelation import decorrelation
from neuroml.rules.l2_init import l2_init
from neuroml.rules.shrink_perturb import shrink_perturb
from neuroml.rules.upgd import upgd
from neuroml.rules.weight_clipping import weight_clipping


def wiring_of(at: Situation) -> Any:
    """Returns the names of the axes of the network's weights."""
    name = at.task.network.wiring
    if name is None:
        raise UsageError("this method judges neurons, and the network has no wiring: give its `Network` one.")
    return name(jax.eval_shape(at.task.network.init, jax.random.key(0))[0])


def _fresh(at: Situation):
    return lambda key: at.task.network.init(key)[0]


def _optimizer(name: str):
    return lambda at, given: getattr(optax, name)(at.learning_rate)


def _adamw(at: Situation, given: Settings):
    return optax.adamw(at.learning_rate, weight_decay=given["weight_decay"])


def _base(at: Situation, given: Settings):
    del given
    return at.optimizer


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


def _cbp(at: Situation, given: Settings):
    names = wiring_of(at)
    rule = cbp(names, _fresh(at), rate=given["rate"], decay=given["decay"], maturity=given["maturity"])
    return renewal(at.optimizer, rule, names)


def _homeostasis(at: Situation, given: Settings) -> Learner:
    """Inputs, hidden inputs and weights each keep a set point of their own."""
    rules = [decorrelation(given["strength"], ridge=given["ridge"], decay=given["input_decay"], every=given["every"])]
    rules += [l2_init(given["anchoring"]), at.optimizer]
    scaled = at.task._replace(scale=1.0)
    inner = make_learner(scaled, optax.chain(*rules), activity=True)
    norm = adaptation.make(given["decay"], shift=given["shift"])
    return conditioned(inner, norm, at.example, at.task.scale)


methods: dict[str, Method] = {
    "sgd": Method("stochastic gradient descent alone", _optimizer("sgd")),
    "adam": Method("Adam alone", _optimizer("adam")),
    "adamw": Method("Adam with decoupled weight decay", _adamw, hyperparameters={"weight_decay": 0.01}),
    "layer_norm": Method("layer norm in every hidden layer", _base, architecture={"layer_norm": True}),
    "crelu": Method("concatenated ReLU", _base, architecture={"activation": "crelu"}),
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
        _cbp,
        hyperparameters={"rate": 1e-4, "decay": 0.99, "maturity": 100.0},
        activity=True,
    ),
    "homeostasis": Method(
        "adapting inputs, decorrelated layers, weights drawn back to where they started",
        learner=_homeostasis,
        hyperparameters={
            "decay": 0.99,
            "shift": 1e6,  # never
            "strength": 1.0,
            "ridge": 0.1,
            "input_decay": 0.999,
            "anchoring": 6e-3,
        },
        options={"every": 100},
        conditions=True,
    ),
}
