"""Sprouting against a plain loop: who begins, how far it goes, and that the function is the same at birth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import growing
from neuroml.errors import UsageError

KEY = jax.random.key(5)
NAMES = {
    "a": {"kernel": ("input", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "second"), "bias": ("second",)},
    "c": {"kernel": ("second", "output"), "bias": ("output",)},
}


def network(key):
    one, two, three = jax.random.split(key, 3)
    layer = lambda k, *shape: {"kernel": jax.random.normal(k, shape), "bias": jnp.zeros(shape[-1])}
    return {"a": layer(one, 3, 6), "b": layer(two, 6, 5), "c": layer(three, 5, 2)}


def silent(params, home, rows):
    return params | {home: params[home] | {"kernel": params[home]["kernel"].at[jnp.array(rows)].set(0)}}


PARAMS = silent(network(KEY), "b", [1, 4])
STILL = jax.tree.map(jnp.zeros_like, PARAMS)


def taken(tx, params, steps, grads=STILL):
    """Returns the weights and the state after some updates, a new key each time."""
    state, update = tx.init(params), jax.jit(tx.update)
    for number in range(steps):
        out, state = update(grads, state, params, key=jax.random.fold_in(KEY, number))
        params = optax.apply_updates(params, out)
    return params, state


def test_it_is_the_sum_of_small_fresh_weights_for_as_long_as_it_lasts():
    tx = neuroml.sprouting(NAMES, network, 0.8, duration=4)
    params, state = taken(tx, PARAMS, 7)
    drawn = sum(np.asarray(network(jax.random.fold_in(KEY, number))["b"]["kernel"]) for number in range(4))
    expected = np.array(PARAMS["b"]["kernel"])
    expected[[1, 4]] = 0.8 / 2 * drawn[[1, 4]]
    np.testing.assert_allclose(params["b"]["kernel"], expected, rtol=1e-5)
    for home, leaf in (("a", "kernel"), ("a", "bias"), ("b", "bias"), ("c", "kernel"), ("c", "bias")):
        np.testing.assert_array_equal(params[home][leaf], PARAMS[home][leaf])
    assert state.report() == {"sprouted": 2, "sprouting": 0}


@pytest.mark.parametrize("duration", [1.2, 50])
def test_what_is_put_out_is_as_wide_as_what_is_drawn(duration):
    wide = lambda key: {
        "a": {"kernel": jax.random.normal(key, (3, 400))},
        "b": {"kernel": 0.1 * jax.random.normal(jax.random.fold_in(key, 1), (400, 20))},
    }
    names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    params = silent(wide(KEY), "b", range(200))
    state = neuroml.sprouting(names, wide, duration=duration)
    step, known = jax.jit(state.update), state.init(params)
    for number in range(60):
        key = jax.random.fold_in(KEY, number)
        out, known = step(jax.tree.map(jnp.zeros_like, params), known, params, key=key)
        params = optax.apply_updates(params, out)
    put_out, drawn = params["b"]["kernel"][:200].std(), params["b"]["kernel"][200:].std()
    assert abs(float(put_out / drawn) - 1) < 0.05


def test_who_is_in_reserve_puts_nothing_out_and_who_is_destroyed_stops():
    params = growing.reserve(network(KEY), NAMES, {"first": 3})
    after, state = taken(neuroml.sprouting(NAMES, network, duration=3), params, 3)
    jax.tree.map(np.testing.assert_array_equal, after, params)
    assert state.begun == 0

    tx = neuroml.sprouting(NAMES, network, duration=9)
    hurt, state = taken(tx, PARAMS, 2)
    deaf = hurt | {"a": {"kernel": hurt["a"]["kernel"].at[:, 1].set(0), "bias": hurt["a"]["bias"]}}
    out, state = tx.update(STILL, state, deaf, key=KEY)
    assert not out["b"]["kernel"][1].any() and out["b"]["kernel"][4].all()
    np.testing.assert_array_equal(state.left["first"], [0, 0, 0, 0, 6, 0])


def test_a_birth_leaves_the_function_and_its_weights_go_where_no_core_is():
    projector = neuroml.condensate_projector(scale=1e-6)
    base = optax.chain(optax.sgd(0.1), neuroml.sprouting(NAMES, network, duration=5), projector)
    grows = neuroml.growth(NAMES, network, when="steps", patience=1, directions="random")
    tx = neuroml.renewal(base, grows, NAMES)
    params = growing.reserve(network(KEY), NAMES, {"first": 3})
    answers = jnp.array([[1.0, 0, 0, 2.0, 0, 0]])  # of which the projector keeps the direction
    words = {"activity": {"a": jnp.ones((1, 3)), "b": answers, "c": jnp.ones((1, 5))}}
    state, update = tx.init(params), jax.jit(tx.update)
    out, state = update(STILL, state, params, key=KEY, **words)
    born = optax.apply_updates(params, out)
    assert born["a"]["kernel"][:, 3].all() and not born["b"]["kernel"][3].any()
    state = neuroml.consolidate(state, born)
    out, state = update(STILL, state, born, key=KEY, **words)
    step = out["b"]["kernel"]
    assert jnp.abs(step).max() > 0.01  # it sprouts
    np.testing.assert_allclose(answers @ step + out["b"]["bias"], 0, atol=1e-4)  # and what was answered stays


def test_who_sprouts_goes_on_in_a_larger_network():
    _, state = taken(neuroml.sprouting(NAMES, network, duration=9), PARAMS, 2)
    wide = lambda key: neuroml.resize(optax.identity(), network(key), optax.EmptyState(), NAMES, {"first": 8})[0]
    tx = neuroml.sprouting(NAMES, wide, duration=9)
    params, larger = neuroml.resize(tx, PARAMS, state, NAMES, {"first": 8})
    np.testing.assert_array_equal(larger.left["first"], [0, 7, 0, 0, 7, 0, 0, 0])
    assert larger.report() == state.report()
    out, larger = tx.update(jax.tree.map(jnp.zeros_like, params), larger, params, key=KEY)
    np.testing.assert_allclose(out["b"]["kernel"][1], network(KEY)["b"]["kernel"][1] / 3, rtol=1e-6)
    np.testing.assert_array_equal(larger.left["first"], [0, 8, 0, 0, 8, 0, 0, 0])  # PARAMS had not sprouted
    with pytest.raises(UsageError, match="`fresh` draws arrays of shapes .*`fresh` of the new size"):
        neuroml.sprouting(NAMES, network).update(params, larger, params, key=KEY)


def test_behind_a_mask_fresh_weights_are_those_of_the_layers_that_are_seen():
    mask = jax.tree.map(lambda _: True, PARAMS) | {"a": {"kernel": True, "bias": False}}
    rule = neuroml.sprouting(NAMES, network)
    tx = optax.masked(rule, mask)
    out, _ = tx.update(STILL, tx.init(PARAMS), PARAMS, key=KEY)
    expected, _ = rule.update(STILL, rule.init(PARAMS), PARAMS, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, out, expected)
    assert out["b"]["kernel"][1].all()
    whole = optax.masked(rule, {"a": True, "b": True, "c": False})  # a layer at once
    out, _ = whole.update(STILL, whole.init(PARAMS), PARAMS, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, out, expected)


def test_who_is_silenced_meanwhile_begins_anew():
    tx = neuroml.sprouting(NAMES, network, duration=9)
    params, state = taken(tx, PARAMS, 4)
    np.testing.assert_array_equal(state.left["first"], [0, 5, 0, 0, 5, 0])
    _, state = tx.update(STILL, state, silent(params, "b", [4]), key=KEY)
    np.testing.assert_array_equal(state.left["first"], [0, 4, 0, 0, 8, 0])


@pytest.mark.parametrize("duration", [0.0, 0.3, 1])
def test_the_shortest_way_is_one_step(duration):
    params, state = taken(neuroml.sprouting(NAMES, network, duration=duration), PARAMS, 2)
    fresh = network(jax.random.fold_in(KEY, 0))
    np.testing.assert_allclose(params["b"]["kernel"][1], fresh["b"]["kernel"][1], rtol=1e-6)
    assert state.report() == {"sprouted": 2, "sprouting": 0}


def test_a_wiring_without_neurons_is_named():
    with pytest.raises(UsageError, match="sprouting found no population between two layers"):
        neuroml.sprouting({"a": NAMES["a"]}, network).init({"a": PARAMS["a"]})
