"""The table of all rules: a new rule adds a row here, and every conformance test runs on it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import neuroml

LEARNING_RATE = 0.1


def init_params(key=None, dtype=jnp.float32):
    key = jax.random.key(3) if key is None else key
    first, second = jax.random.split(key)
    params = {
        "hidden": {"kernel": jax.random.normal(first, (4, 5)) / 2, "bias": jnp.zeros(5)},
        "head": {"kernel": jax.random.normal(second, (5, 3)) / 2, "bias": jnp.zeros(3)},
    }
    return jax.tree.map(lambda p: p.astype(dtype), params)


def activity_of(params, batch):
    """What each layer is given, as `neuroml.activity` captures it."""
    x = batch[0].astype(params["head"]["bias"].dtype)
    return {"hidden": x, "head": jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])}


def predict(params, batch):
    return activity_of(params, batch)["head"] @ params["head"]["kernel"] + params["head"]["bias"]


def loss(params, batch):
    logits = predict(params, batch).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def batch_of(key, n=6):
    return jax.random.normal(key, (n, 4)), jax.random.randint(jax.random.fold_in(key, 1), (n,), 0, 3)


WIRING = {
    "hidden": {"kernel": ("input", "hidden"), "bias": ("hidden",)},
    "head": {"kernel": ("hidden", "output"), "bias": ("output",)},
}
EXAMPLE = (jnp.zeros(4), jnp.int32(0))


def words_of(key, params):
    """Every context word that a training step may give."""
    batch = batch_of(key)
    return {
        "batch": batch,
        "outputs": predict(params, batch),
        "key": jax.random.fold_in(key, 2),
        "task": jnp.int32(0),
        "value": loss(params, batch),
        "activity": activity_of(params, batch),
        "all_params": params,
        "a_word_that_no_rule_knows": 1,
    }


def lasting(params):
    """Every word that a consolidation may need. No two weights of an array are equally important: ranks differ."""
    rising = jax.tree.map(lambda p: jnp.linspace(0, 1, p.size, dtype=jnp.float32).reshape(p.shape), params)
    return {"importance": rising, "data": batch_of(jax.random.key(9)), "another_unknown_word": 2}


class Row(NamedTuple):
    name: str
    factory: Callable[..., Any]  # (strength) -> rule; `functools.partial` of a public factory
    words: tuple[str, ...] = ()  # needed by update
    lasting: tuple[str, ...] = ()  # needed by consolidate
    last: bool = False  # stands after the optimizer (implicit pulls)
    waits: bool = True  # changes nothing before the first consolidation
    static: tuple[str, ...] = ()  # arguments that inject_hyperparams must leave alone
    strength: float = 0.3
    strengths: tuple[str, ...] = ("strength",)  # leaves that must all be zero for the rule to be inert
    off: float = 0.0  # the value of the strengths at which the rule is inert
    apart: bool = True  # what it does to a layer does not depend on which others it sees
    whole: bool = False  # needs to see all layers: nothing may be masked
    penalizes: bool = True  # has a `penalty`; a rule that only gates or projects the update has none
    branches: bool = False  # has a `lax.cond` or a loop: see `compiled` in the tests
    kin: bool = False  # an option of another row's rule: what costs much and depends on the rule alone is not asked


def _every(strength):
    ones = lambda params, **_: {"importance": lasting(params)["importance"]}
    return neuroml.every(neuroml.ewc(strength), 2, context=ones)


def _on_surprise(strength):
    return neuroml.on_surprise(neuroml.si(strength))


_er = functools.partial(neuroml.er, loss, EXAMPLE, batch_size=4)
_derpp = functools.partial(neuroml.derpp, predict, loss, EXAMPLE, outputs=3, batch_size=4)
_growth = functools.partial(neuroml.growth, WIRING, maturity=1, youth_gain=1.0)
_label = lambda batch: batch[1]
_er_ace = functools.partial(neuroml.er_ace, predict, loss, _label, EXAMPLE, outputs=3, batch_size=4)
_er_static = ("loss", "example", "store", "batch_size")

ROWS = [
    Row("ewc", neuroml.ewc, lasting=("importance",)),
    Row(
        "ewc_latest",
        functools.partial(neuroml.ewc, anchors="latest", decay=0.5),
        lasting=("importance",),
        kin=True,
    ),
    Row("ewc_proximal", functools.partial(neuroml.ewc, step_size=LEARNING_RATE), lasting=("importance",), last=True),
    Row("si", neuroml.si),
    Row("si_signed", functools.partial(neuroml.si, damping=1.0, clip_negative=False), kin=True),
    Row("mas", neuroml.mas, lasting=("importance",)),
    Row(
        "mas_proximal",
        functools.partial(neuroml.mas, step_size=LEARNING_RATE),
        lasting=("importance",),
        last=True,
        kin=True,
    ),
    Row(
        "er",
        lambda strength: _er(neuroml.memory.reservoir(8), strength=strength),
        words=("batch", "key"),
        waits=False,
    ),
    Row(
        "er_past",
        lambda strength: _er(neuroml.memory.ring(8), strength=strength, replay="past", weighting="tasks"),
        words=("batch", "key"),
        kin=True,
    ),
    Row(
        "derpp",
        lambda strength: _derpp(neuroml.memory.reservoir(8), strength=strength, distillation=strength),
        words=("batch", "key", "outputs"),
        waits=False,
        strengths=("strength", "distillation"),
    ),
    Row(
        "condensate_anchor",
        functools.partial(neuroml.condensate_anchor, shell_time=2.0),
        lasting=("importance",),
        last=True,
        penalizes=False,
    ),
    Row("condensate_projector", neuroml.condensate_projector, words=("activity",), last=True, penalizes=False),
    Row(
        "condensate_metric",
        functools.partial(neuroml.condensate_metric, every=2),
        words=("activity",),
        last=True,
        waits=False,
        penalizes=False,
        branches=True,
    ),
    Row("gpm", neuroml.gpm, words=("activity",), last=True, penalizes=False),
    Row("owm", neuroml.owm, words=("activity",), last=True, penalizes=False, waits=False, branches=True),
    Row(
        "cbp",
        lambda s: neuroml.cbp(WIRING, init_params, rate=s, maturity=1),
        words=("activity", "key"),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strengths=("rate",),
        branches=True,
    ),
    Row(
        "decorrelation",
        functools.partial(neuroml.decorrelation, every=2),
        words=("activity",),
        waits=False,
        penalizes=False,
        branches=True,
    ),
    Row(
        "sprouting",
        lambda s: neuroml.sprouting(WIRING, init_params, s, duration=2),
        words=("key",),
        penalizes=False,
        waits=False,
        whole=True,
        branches=True,
    ),
    Row(
        "growth",
        lambda s: _growth(init_params, when="steps", number=s, apoptosis=s, patience=2, directions="random"),
        words=("activity", "key"),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strength=0.9,
        strengths=("number", "apoptosis"),
        branches=True,
    ),
    Row(
        "growth_plateau",
        lambda s: _growth(number=s, apoptosis=s, threshold=1.0, patience=1),
        words=("activity", "key", "value"),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strength=0.9,
        strengths=("number", "apoptosis"),
        kin=True,
        branches=True,
    ),
    Row("l2_init", neuroml.l2_init, waits=False),
    Row("l2_init_wasserstein", functools.partial(neuroml.l2_init, form="wasserstein"), waits=False, kin=True),
    Row(
        "shrink_perturb",
        lambda s: neuroml.shrink_perturb(s, noise=s),
        words=("key",),
        last=True,
        waits=False,
        apart=False,
        penalizes=False,
        strengths=("shrink", "noise"),
        branches=True,
    ),
    Row(
        "upgd",
        lambda s: neuroml.upgd(s, noise=s),
        words=("key",),
        waits=False,
        apart=False,
        penalizes=False,
        strengths=("strength", "noise"),
    ),
    Row(
        "weight_clipping",
        neuroml.weight_clipping,
        last=True,
        waits=False,
        penalizes=False,
        strengths=("factor",),
        off=jnp.inf,
    ),
    Row(
        "partial_resets",
        lambda s: neuroml.partial_resets(WIRING, init_params, s, every=2),
        words=("key",),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        branches=True,
    ),
    Row(
        "redo",
        lambda s: neuroml.redo(WIRING, init_params, threshold=s, every=2),
        words=("activity", "key"),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strength=0.9,
        strengths=("threshold",),
        branches=True,
    ),
    Row(
        "nanotube",
        lambda s: neuroml.nanotube(WIRING, threshold=s, every=2),
        words=("activity", "key"),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strength=0.9,
        strengths=("threshold",),
        branches=True,
    ),
    Row(
        "schwann",
        functools.partial(neuroml.schwann, WIRING, threshold=0.9),
        words=("activity",),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
    ),
    Row(
        "regrama",
        lambda s: neuroml.regrama(WIRING, init_params, threshold=s, every=2),
        words=("key",),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strength=0.9,
        strengths=("threshold",),
        branches=True,
    ),
    Row(
        "self_normalized_resets",
        lambda s: neuroml.self_normalized_resets(WIRING, init_params, rejection=s, minimum=1),
        words=("activity", "key"),
        last=True,
        penalizes=False,
        waits=False,
        whole=True,
        strengths=("rejection",),
        branches=True,
    ),
    Row("spectral_regularization", neuroml.spectral_regularization, waits=False, branches=True),
    Row(
        "bcm",
        functools.partial(neuroml.bcm, WIRING),
        words=("activity",),
        last=True,
        waits=False,
        whole=True,
        penalizes=False,
    ),
    Row(
        "intrinsic_plasticity",
        lambda s: neuroml.intrinsic_plasticity(WIRING, speed=s),
        words=("activity",),
        last=True,
        waits=False,
        whole=True,
        penalizes=False,
        strengths=("speed",),
    ),
    Row(
        "maturity_lock",
        functools.partial(neuroml.maturity_lock, WIRING, rate=0.5),
        words=("activity", "value"),
        last=True,
        waits=False,
        whole=True,
        penalizes=False,
    ),
    Row("surprise_rate", neuroml.surprise_rate, words=("value",), last=True, waits=False, penalizes=False),
    Row(
        "synaptic_gate",
        functools.partial(neuroml.synaptic_gate, WIRING),
        words=("activity",),
        waits=False,
        whole=True,
        penalizes=False,
    ),
    Row(
        "synaptic_scaling",
        lambda s: neuroml.synaptic_scaling(WIRING, speed=s),
        words=("activity",),
        last=True,
        waits=False,
        whole=True,
        penalizes=False,
        strengths=("speed",),
    ),
    Row("three_factor", neuroml.three_factor, words=("value",), waits=False, penalizes=False),
    Row("every", _every, waits=False, branches=True),
    Row("on_surprise", _on_surprise, words=("value",), branches=True),
    Row(
        "agem",
        lambda strength: neuroml.agem(loss, EXAMPLE, neuroml.memory.reservoir(8), batch_size=4, strength=strength),
        words=("batch", "key"),
        penalizes=False,
        apart=False,
    ),
    Row("lwf", lambda s: neuroml.lwf(predict, outputs=3, strength=s), words=("batch",), whole=True),
    Row("benna_fusi", neuroml.benna_fusi, last=True, waits=False, penalizes=False),
    Row("rwalk", functools.partial(neuroml.rwalk, every=2), apart=False),
    Row(
        "er_ace",
        lambda strength: _er_ace(neuroml.memory.reservoir(8), strength=strength),
        words=("batch", "key"),
        waits=False,
    ),
    Row(
        "mesu",
        lambda strength: neuroml.mesu(loss, strength=strength, window=100.0),
        words=("batch", "key"),
        waits=False,
        penalizes=False,
        apart=False,
        branches=True,
    ),
]
