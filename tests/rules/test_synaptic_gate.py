"""Synaptic gates: the product of both ends in numpy, for dense and convolutional layers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import WIRING, init_params

import neuroml
from neuroml.errors import UsageError

KEY = jax.random.key(0)
ONES = jax.tree.map(jnp.ones_like, init_params())
GIVEN = {
    "hidden": jax.random.normal(KEY, (8, 4)) * jnp.array([0.0, 0.2, 1.0, 5.0]),
    "head": jax.random.normal(jax.random.fold_in(KEY, 1), (8, 5)) * jnp.array([0.0, 0.2, 1.0, 3.0, 5.0]),
}


def relative(rows):
    size = np.abs(np.asarray(rows)).reshape(-1, rows.shape[-1]).mean(0)
    return np.tanh(size / size.mean())


def gated(activity, **settings):
    tx, params = neuroml.synaptic_gate(WIRING, **settings), init_params()
    return tx.update(ONES, tx.init(params), params, activity=activity)[0]


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_gradients_are_multiplied_by_both_ends(strength):
    given = gated(GIVEN, strength=strength)
    before, between = relative(GIVEN["hidden"]), relative(GIVEN["head"])
    both = np.outer(before, between)
    np.testing.assert_allclose(given["hidden"]["kernel"], 1 - strength + strength * both, rtol=1e-5, atol=1e-7)
    outputs = np.outer(between, np.ones(3))  # nobody reads the outputs
    np.testing.assert_allclose(given["head"]["kernel"], 1 - strength + strength * outputs, rtol=1e-5, atol=1e-7)
    for home in given:
        chex.assert_trees_all_equal(given[home]["bias"], ONES[home]["bias"])


def test_a_convolution_is_gated_by_its_channels():
    params = {"a": {"kernel": jnp.ones((3, 3, 2, 4))}, "b": {"kernel": jnp.ones((3, 3, 4, 1))}}
    names = {"a": {"kernel": (None, None, "in", "mid")}, "b": {"kernel": (None, None, "mid", "out")}}
    images = {"a": jax.random.normal(KEY, (2, 5, 5, 2)) * jnp.array([1.0, 4.0])}
    images["b"] = jax.random.normal(KEY, (2, 5, 5, 4)) * jnp.arange(4.0)
    tx = neuroml.synaptic_gate(names)
    given, _ = tx.update(params, tx.init(params), params, activity=images)
    expected = np.outer(relative(images["a"]), relative(images["b"]))
    np.testing.assert_allclose(given["a"]["kernel"], np.broadcast_to(expected, (3, 3, 2, 4)), rtol=1e-5, atol=1e-7)


def test_a_layer_where_all_is_silent_is_closed_and_finite():
    given = gated(jax.tree.map(jnp.zeros_like, GIVEN))
    assert not given["hidden"]["kernel"].any() and not given["head"]["kernel"].any()


def test_the_control_gates_other_synapses_by_the_same_amounts():
    real, control = gated(GIVEN), gated(GIVEN, shuffled=True)
    for home in ("hidden", "head"):
        left, right = np.asarray(real[home]["kernel"]), np.asarray(control[home]["kernel"])
        assert not np.allclose(left, right)
        np.testing.assert_array_equal(np.sort(left, axis=None), np.sort(right, axis=None))


def test_activities_that_do_not_fit_raise():
    with pytest.raises(UsageError, match="no inputs of layer 'hidden'"):
        gated({"head": GIVEN["head"]})
    with pytest.raises(UsageError, match="its inputs have 4 entries; `activity` there has 3"):
        gated(GIVEN | {"hidden": jnp.ones((8, 3))})


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
def test_what_is_not_finite_has_a_gate_of_one_and_is_left_out_for_the_others(wrong):
    broken = {"hidden": GIVEN["hidden"].at[0, 1].set(wrong), "head": GIVEN["head"].at[0, 2].set(wrong)}
    chex.assert_trees_all_equal(gated(broken, strength=0.0), ONES)
    before = np.insert(relative(np.delete(GIVEN["hidden"], 1, axis=1)), 1, 1)
    between = np.insert(relative(np.delete(GIVEN["head"], 2, axis=1)), 2, 1)
    np.testing.assert_allclose(gated(broken)["hidden"]["kernel"], np.outer(before, between), rtol=1e-5, atol=1e-7)
