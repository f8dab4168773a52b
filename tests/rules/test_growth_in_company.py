"""Growth inside transformations, beside other rules and in convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from growing_network import (
    FULL,
    KEY,
    NAMES,
    SMALL,
    X,
    Y,
    assert_dead_are_zero,
    capture,
    loss,
    network,
    same,
    step,
    train,
)

import neuroml
from neuroml import growing, surgery, units


def test_births_and_deaths_differ_by_seed_in_one_vmap_with_one_compilation():
    tx = neuroml.renewal(
        optax.adam(0.02),
        neuroml.growth(NAMES, when="random", patience=8, number=1, apoptosis=0.3, maturity=5),
        NAMES,
    )
    compilations = []

    @jax.jit
    @jax.vmap
    def run(params, state, key):
        compilations.append(1)
        return step(tx, params, state, key)

    keys = jax.random.split(KEY, 8)
    params = jax.vmap(lambda key: growing.reserve(network(key), NAMES, 2))(keys)
    state = jax.vmap(tx.init)(params)
    for i in range(60):
        params, state = run(params, state, jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys))
    assert len(compilations) == 1
    assert len(set(state.rule.births.tolist())) > 2 and len(set(state.rule.deaths.tolist())) > 1
    alone = growing.reserve(network(keys[3]), NAMES, 2)
    alone, last = train(tx, alone, 60, key=keys[3])
    assert int(last.rule.births) == int(state.rule.births[3])
    same(alone, jax.tree.map(lambda leaf: leaf[3], params), rtol=1e-3, atol=1e-4)


BASES = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.01),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01)),
    "projected": optax.chain(optax.adam(0.01), neuroml.condensate_projector()),
}


@pytest.mark.parametrize("name", BASES)
def test_moments_of_the_newborn_are_zero(name):
    rule = neuroml.growth(NAMES, when="steps", patience=5, number=2)
    begin = growing.reserve(FULL, NAMES, {"first": 3})
    params, state = train(neuroml.renewal(BASES[name], rule, NAMES), begin, 5)
    _, plain = train(optax.chain(BASES[name], rule), begin, 5)
    structure = jax.tree.structure(params)
    is_tree = lambda node: jax.tree.structure(node) == structure
    moments = lambda state: [node for node in jax.tree.leaves(state, is_leaf=is_tree) if is_tree(node)]
    assert state.rule.renewed["first"].tolist() == [False] * 3 + [True] * 2 + [False]
    gone = surgery.touched(units.find(NAMES, params), params, state.rule.renewed)
    for mine, theirs in zip(moments(state.base), moments(plain[0]), strict=True):
        jax.tree.map(lambda m, t, off: np.testing.assert_array_equal(m, np.where(off, 0, t)), mine, theirs, gone)
        assert (theirs["b"]["kernel"][3:5] != 0).all(), "half an answer before birth left moments"


def test_moments_of_the_dead_are_zero():
    rule = neuroml.growth(NAMES, number=0, apoptosis=0.5, maturity=4)
    begin = {**FULL, "b": {**FULL["b"], "kernel": FULL["b"]["kernel"].at[2].multiply(1e-3)}}
    tx = neuroml.renewal(optax.sgd(1e-4, momentum=0.9), rule, NAMES)
    _, state = train(tx, begin, 5)
    assert state.rule.renewed["first"][2] and not state.rule.neurons["first"].alive[2]
    trace = state.base[0].trace
    assert (trace["b"]["kernel"][2] == 0).all() and (trace["a"]["kernel"][:, 2] == 0).all()


def er_of():
    batch_loss = lambda params, batch: loss(params, *batch)
    return neuroml.er(batch_loss, (X[0], Y[0]), neuroml.memory.reservoir(8), batch_size=4)


@pytest.mark.parametrize("name", ["ewc", "er", "condensate_projector"])
def test_it_composes_and_a_birth_changes_nothing_beside_the_other_rule(name):
    base = {
        "ewc": optax.chain(neuroml.ewc(strength=1.0), optax.sgd(0.05)),
        "er": optax.chain(er_of(), optax.sgd(0.05)),
        "condensate_projector": optax.chain(optax.sgd(0.05), neuroml.condensate_projector(scale=0.1)),
    }[name]
    number = jnp.float32(1)
    make = lambda number: neuroml.renewal(base, neuroml.growth(NAMES, when="steps", patience=4, number=number), NAMES)
    tx, params = make(number), SMALL
    state, run, born = tx.init(params), jax.jit(lambda p, s, k, n: step(make(n), p, s, k, batch=(X, Y))), 0
    for i in range(14):
        key = jax.random.fold_in(KEY, i)
        without, _ = run(params, state, key, jnp.float32(0))
        params, state = run(params, state, key, number)
        same(capture(params)[0], capture(without)[0])
        assert_dead_are_zero(params, state.rule)
        born += int(any(which.any() for which in state.rule.renewed.values()))
        if i == 6:
            importance = neuroml.spare_young(state, NAMES, jax.tree.map(jnp.ones_like, params))
            state = neuroml.consolidate(state, params, importance=importance)
    assert born == 3


def test_a_schedule_around_renewal_consolidates_it():
    tx = neuroml.every(neuroml.renewal(optax.sgd(0.05), neuroml.growth(NAMES), NAMES), 3)
    _, state = train(tx, SMALL, 4)
    assert int(state.consolidations) == 1 and float(state.inner.rule.ground["a"].unit) > 0


def test_a_convolution_grows_channels():
    names = {"a": {"kernel": (None, None, "colour", "channel")}, "b": {"kernel": (None, None, "channel", "answer")}}
    params = {"a": {"kernel": jax.random.normal(KEY, (3, 3, 2, 4))}, "b": {"kernel": jnp.ones((3, 3, 4, 1))}}
    params = growing.reserve(params, names, 2)
    image = jax.random.normal(KEY, (2, 5, 5, 2))
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    hidden = lambda params: jax.nn.relu(convolve(image, params["a"]["kernel"]))
    tx = neuroml.growth(names, when="steps", patience=2)
    state, zero = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    before, update = convolve(hidden(params), params["b"]["kernel"]), jax.jit(tx.update)
    for i in range(4):
        words = {"activity": {"a": image, "b": hidden(params)}, "key": jax.random.fold_in(KEY, i)}
        updates, state = update(zero, state, params, **words)
        params = optax.apply_updates(params, updates)
        state = neuroml.consolidate(state, params)
    same(convolve(hidden(params), params["b"]["kernel"]), before)
    assert (
        int(state.births) == 2 and (params["a"]["kernel"] != 0).all() and (params["b"]["kernel"][:, :, 2:] == 0).all()
    )
