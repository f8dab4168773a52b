"""Intrinsic plasticity: the equation in numpy, a dead neuron that comes back, and layers without biases."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import WIRING, init_params

import neuroml
from neuroml.errors import UsageError

KEY = jax.random.key(0)
ZERO = jax.tree.map(jnp.zeros_like, init_params())


def activity(answers):
    return {"hidden": jnp.ones((len(answers), 4)), "head": jnp.asarray(answers)}


def test_biases_move_by_what_the_firing_rate_lacks():
    tx, params = neuroml.intrinsic_plasticity(WIRING, target=0.3, speed=0.2, decay=0.6), init_params()
    answers = np.asarray(jax.random.normal(KEY, (5, 8, 5))) + np.array([-9.0, -0.5, 0.0, 0.5, 9.0])
    step = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params)
    state, firing = tx.init(params), np.zeros(5)
    for number, rows in enumerate(answers):
        given, state = tx.update(step, state, params, activity=activity(rows))
        firing = firing + max(1 - 0.6, 1 / (number + 1)) * ((rows > 0).mean(0) - firing)
        np.testing.assert_allclose(state.firing["hidden"], firing, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(given["hidden"]["bias"], 0.1 + 0.2 * (0.3 - firing), rtol=1e-5)
        chex.assert_trees_all_equal(given["head"], step["head"])
        chex.assert_trees_all_equal(given["hidden"]["kernel"], step["hidden"]["kernel"])
    np.testing.assert_allclose(state.report()["firing rate"], firing.mean(), rtol=1e-5)


def test_dead_neurons_come_back_to_the_target_rate():
    x, params = jax.random.normal(KEY, (256, 4)), init_params()
    params["hidden"]["bias"] = jnp.array([-20.0, -3.0, 0.0, 3.0, 20.0])
    answers = lambda params: jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    assert not answers(params)[:, 0].any()
    tx = neuroml.intrinsic_plasticity(WIRING, target=0.25, speed=0.2, decay=0.5)
    state = tx.init(params)
    for _ in range(1000):
        step, state = tx.update(ZERO, state, params, activity=activity(answers(params)))
        params = optax.apply_updates(params, step)
    np.testing.assert_allclose((answers(params) > 0).mean(0), 0.25, atol=0.03)


def test_layers_that_make_a_population_together_share_the_move():
    layer = lambda inputs, outputs: {"kernel": jnp.ones((inputs, outputs)), "bias": jnp.zeros(outputs)}
    params = {"one": layer(2, 3), "two": layer(4, 3), "three": {"kernel": jnp.ones((5, 3))}, "head": layer(3, 1)}
    names = {home: {"kernel": (None, "both"), "bias": ("both",)} for home in ("one", "two", "three")}
    names["head"] = {"kernel": ("both", None), "bias": (None,)}
    tx = neuroml.intrinsic_plasticity(names, target=0.5, speed=1.0)
    words = {"activity": {"head": jnp.array([[1.0, -1.0, 1.0]])}}
    step, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    for home in ("one", "two"):
        np.testing.assert_allclose(step[home]["bias"], [-0.25, 0.25, -0.25])
    assert not step["three"]["kernel"].any()


def test_what_is_no_number_leaves_the_rate_as_it_was():
    tx, params = neuroml.intrinsic_plasticity(WIRING), init_params()
    _, state = tx.update(ZERO, tx.init(params), params, activity=activity([[1.0, 1.0, -1.0, -1.0, -1.0]]))
    _, after = tx.update(ZERO, state, params, activity=activity([[np.nan, -1.0, np.nan, 1.0, -1.0]]))
    assert after.firing["hidden"].tolist() == [1.0, 0.5, 0.0, 0.5, 0.0]


def test_the_control_moves_other_neurons():
    params, moves = init_params(), []
    for shuffled in (False, True):
        tx = neuroml.intrinsic_plasticity(WIRING, speed=1.0, shuffled=shuffled)
        rows = jnp.tril(jnp.ones((5, 5)))
        step, _ = tx.update(ZERO, tx.init(params), params, activity=activity(rows))
        moves.append(np.asarray(step["hidden"]["bias"]))
    assert not np.allclose(*moves)
    np.testing.assert_array_equal(np.sort(moves[0]), np.sort(moves[1]))


@pytest.mark.parametrize("target", [0, 1, -0.5, 2.0])
def test_a_target_that_is_no_rate_raises(target):
    with pytest.raises(UsageError, match=rf"a `target` in \(0, 1\), but target={target}"):
        neuroml.intrinsic_plasticity(WIRING, target=target)


def test_a_population_without_biases_raises():
    params, names = init_params(), {home: dict(axes) for home, axes in WIRING.items()}
    del params["hidden"]["bias"], names["hidden"]["bias"]
    with pytest.raises(UsageError, match="population 'hidden' has none.*'hidden'"):
        neuroml.intrinsic_plasticity(names).init(params)
