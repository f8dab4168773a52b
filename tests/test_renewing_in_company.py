"""Renewal beside rules whose memory is no moment, and beside optimizers that see a part of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_renewing import KEY, MESU, NAMES, network, predict, rule, steps

import neuroml
from neuroml import core, surgery, units
from neuroml.errors import UsageError

UNTOUCHED = {
    "lwf": (neuroml.lwf(predict, outputs=2), "teacher"),
    "wasserstein l2_init": (neuroml.l2_init(0.1, form="wasserstein"), "initial"),
    "centered mesu": (neuroml.mesu(**MESU, centered=True), "start"),
}
TUBE = neuroml.nanotube(NAMES, every=3)


def gone(params, state):
    return surgery.touched(units.find(NAMES, params), params, state.rule.renewed)


@pytest.mark.parametrize("replaces", [rule(), TUBE], ids=["redo", "nanotube"])
@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_is_not_of_single_weights_stays(name, replaces):
    kept, field = UNTOUCHED[name]
    start = network(KEY)
    params, state = steps(neuroml.renewal(optax.chain(kept, optax.sgd(0.1)), replaces, NAMES), start, 3)
    assert any(which.any() for which in state.rule.renewed.values())
    before = getattr(kept.init(start), field)
    jax.tree.map(np.testing.assert_array_equal, getattr(state.base[0], field), before)


def test_a_new_weight_has_the_spread_of_the_prior():
    base = optax.chain(neuroml.mesu(**MESU), optax.sgd(0.01))
    params, state = steps(neuroml.renewal(base, rule(), NAMES), network(KEY), 3)
    for spread, new in zip(jax.tree.leaves(state.base[0].spread), jax.tree.leaves(gone(params, state)), strict=True):
        np.testing.assert_array_equal(spread == np.float32(0.3), new)


def into(tree):
    return np.asarray(tree["a"]["kernel"])


def test_a_shared_weight_has_the_spread_of_its_donor():
    base = optax.chain(neuroml.mesu(**MESU), optax.sgd(0.01))
    (_, (plain, tube)), (_, shared) = (
        steps(tx, network(KEY), 3) for tx in (optax.chain(base, TUBE), neuroml.renewal(base, TUBE, NAMES))
    )
    assert tube.donors["first"][2] != 2
    np.testing.assert_array_equal(into(shared.base[0].spread), into(plain[0].spread)[:, tube.donors["first"]])


@pytest.mark.parametrize("held", [neuroml.ewc(strength=1.0), neuroml.benna_fusi()], ids=["ewc", "benna_fusi"])
@pytest.mark.parametrize("compensation, share", [(0.0, 4.0), (0.5, 6.0)])
def test_weights_that_are_shared_are_held_to_their_share(compensation, share, held):
    """Without a gradient the network keeps its answer; held to the whole, both copies would grow to twice of it."""
    names = {"a": {"kernel": ("pixel", "hidden")}, "b": {"kernel": ("hidden", "answer")}}
    params = {"a": {"kernel": jnp.array([[1.0, 0.0]])}, "b": {"kernel": jnp.array([[8.0], [0.0]])}}
    tube = neuroml.nanotube(names, noise=0.0, compensation=compensation, every=1)
    tx = neuroml.renewal(optax.chain(held, optax.sgd(0.5)), tube, names)
    state = neuroml.consolidate(tx.init(params), params, importance=jax.tree.map(jnp.ones_like, params))
    update = jax.jit(tx.update)
    for _ in range(4):
        hidden = jnp.maximum(params["a"]["kernel"], 0)
        given = {"activity": {"a": jnp.ones((1, 1)), "b": hidden}, "key": KEY}
        updates, state = update(jax.tree.map(jnp.zeros_like, params), state, params, **given)
        params = optax.apply_updates(params, updates)
    assert params["a"]["kernel"].tolist() == [[1.0, 1.0]] and params["b"]["kernel"].ravel().tolist() == [share] * 2


HIDING = {
    "masked": lambda base: optax.masked(base, {"a": True, "b": True, "c": {"kernel": False, "bias": True}}),
    "masked by layer": lambda base: optax.masked(base, {"a": True, "b": True, "c": False}),
    "partition": lambda base: optax.partition(
        {"one": base, "other": optax.adam(1e-2)}, {"a": "one", "b": "one", "c": "other"}
    ),
}


def parts(state):
    """The state of EWC and of the momentum, wherever they are."""
    found = jax.tree.leaves(state, is_leaf=lambda node: core.is_rule(node) or isinstance(node, optax.TraceState))
    return [next(node for node in found if type(node).__name__ == name) for name in ("EWCState", "TraceState")]


@pytest.mark.parametrize("name", HIDING)
def test_weights_may_be_hidden_from_a_part_of_the_optimizer(name):
    """What a part of the optimizer sees is renewed as if it saw everything."""
    base = optax.chain(neuroml.ewc(1.0), optax.sgd(0.1, momentum=0.9))
    (params, hidden), (_, whole) = (
        steps(neuroml.renewal(tx, rule(), NAMES), network(KEY), 3) for tx in (HIDING[name](base), base)
    )
    (ewc, momentum), (all_ewc, all_momentum) = parts(hidden.base), parts(whole.base)
    for layer in ("a", "b"):
        jax.tree.map(np.testing.assert_array_equal, momentum.trace[layer], all_momentum.trace[layer])
        jax.tree.map(np.testing.assert_array_equal, ewc.anchor[layer], all_ewc.anchor[layer])
    assert not into(momentum.trace)[:, 2].any() and (into(ewc.anchor) == into(params))[:, 2].all()


@pytest.mark.parametrize("name", HIDING)
def test_they_may_be_hidden_where_weights_are_shared(name):
    base = HIDING[name](optax.chain(neuroml.ewc(1.0), optax.sgd(0.1, momentum=0.9)))
    (_, (plain, tube)), (_, shared) = (
        steps(tx, network(KEY), 3) for tx in (optax.chain(base, TUBE), neuroml.renewal(base, TUBE, NAMES))
    )
    pairs = zip(parts(shared.base), parts(plain), ("anchor", "trace"), strict=True)
    for mine, theirs, field in pairs:
        np.testing.assert_array_equal(into(getattr(mine, field)), into(getattr(theirs, field))[:, tube.donors["first"]])


@pytest.mark.parametrize("name", ["plain", *HIDING])
def test_newborns_are_held_as_their_elders_are(name):
    """At zero, by the mean importance of the weights of the others to the same reader; else they have none."""
    hide = HIDING.get(name, lambda base: base)
    importance = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, network(jax.random.key(3)))
    found = {}
    for newborns in ("free", "held"):
        tx = neuroml.renewal(hide(optax.chain(neuroml.ewc(1.0), optax.sgd(0.1))), rule(), NAMES, newborns=newborns)
        state = neuroml.consolidate(tx.init(network(KEY)), network(KEY), importance=importance)
        params, state = steps(tx, network(KEY), 3, state=state)
        is_ewc = lambda node: type(node).__name__ == "EWCState"
        found[newborns] = next(node for node in jax.tree.leaves(state.base, is_leaf=is_ewc) if is_ewc(node))
    born, readers = (np.asarray(state.rule.renewed[name]) for name in ("first", "second"))
    assert born.any() and not born.all() and not readers.all()
    free, held_ones = (np.asarray(found[name].importance["b"]["kernel"])[:, ~readers] for name in ("free", "held"))
    assert not free[born].any() and not np.asarray(found["held"].anchor["b"]["kernel"])[born][:, ~readers].any()
    np.testing.assert_allclose(held_ones[born], np.broadcast_to(free[~born].mean(0), free[born].shape), rtol=1e-5)
    np.testing.assert_array_equal(held_ones[~born], free[~born])
    np.testing.assert_array_equal(found["held"].importance["a"]["kernel"], found["free"].importance["a"]["kernel"])


def test_newborns_are_free_or_held():
    with pytest.raises(UsageError, match="'young'"):
        neuroml.renewal(optax.sgd(0.1), rule(), NAMES, newborns="young")


@pytest.mark.parametrize(
    ("projects", "replaces"),
    [(neuroml.condensate_projector(scale=0.1), TUBE), (neuroml.owm(), rule())],
    ids=["condensates, nanotube", "owm, redo"],
)
def test_projectors_let_no_step_change_what_held_newborns_hand_on(projects, replaces):
    """Also by a mask; with "free", the default, they do. What the others hand on changes either way."""
    moved = {}
    for newborns in ("free", "held"):
        base = optax.chain(optax.sgd(0.1), optax.masked(projects, True))
        tx = neuroml.renewal(base, replaces, NAMES, newborns=newborns)
        params, state = steps(tx, network(KEY), 2)
        params, state = steps(tx, params, 1, state=neuroml.consolidate(state, params), begin=2)
        born = np.asarray(state.rule.renewed["first"])
        assert born.any() and not born.all()
        after, _ = steps(tx, params, 1, state=state, begin=3)
        moved[newborns] = np.abs(after["b"]["kernel"] - params["b"]["kernel"])
        assert (moved[newborns][~born] > 1e-3).any(axis=1).all()
    assert (moved["free"][born] > 1e-3).all(axis=1).any()
    assert moved["held"][born].max() < 2e-3 * moved["free"][~born].max()


def test_leaving_are_the_rows_of_the_readers():
    found = units.find(NAMES, network(KEY))
    chosen = {"first": jnp.arange(5) == 2, "second": jnp.zeros(4, bool)}
    tree = surgery.leaving(found, network(KEY), chosen)
    assert tree["b"]["kernel"].sum() == 4 and tree["b"]["kernel"][2].all()
    assert not any(leaf.any() for leaf in jax.tree.leaves({**tree, "b": tree["b"]["bias"]}))
