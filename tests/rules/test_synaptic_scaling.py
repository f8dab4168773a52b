"""Synaptic scaling: the equation in numpy, what is left alone, and that mean answers reach the target."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import WIRING, init_params, words_of

import neuroml
from neuroml.errors import UsageError

KEY = jax.random.key(0)
ZERO = jax.tree.map(jnp.zeros_like, init_params())


def activity(answers):
    return {"hidden": jnp.ones((len(answers), 4)), "head": jnp.asarray(answers)}


def test_weights_are_multiplied_by_a_power_of_target_over_running_mean():
    tx, params = neuroml.synaptic_scaling(WIRING, target=0.4, speed=0.5, decay=0.6, largest=1.3), init_params()
    answers = np.asarray(jax.random.normal(KEY, (6, 8, 5))) * np.array([0.1, 0.5, 1.0, 3.0, 9.0])
    step = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params)
    state, mean = tx.init(params), np.zeros(5)
    for number, rows in enumerate(answers):
        given, state = tx.update(step, state, params, activity=activity(rows))
        mean = mean + max(1 - 0.6, 1 / (number + 1)) * (np.abs(rows).mean(0) - mean)
        factor = np.clip((0.4 / mean) ** 0.5, 1 / 1.3, 1.3)
        np.testing.assert_allclose(state.mean["hidden"], mean, rtol=1e-5)
        kernel = params["hidden"]["kernel"]
        np.testing.assert_allclose(kernel + given["hidden"]["kernel"], factor * (kernel + 0.1), rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(given["head"], step["head"])
        chex.assert_trees_all_equal(given["hidden"]["bias"], step["hidden"]["bias"])
    assert factor.min() == 1 / 1.3 and factor.max() == 1.3, "the bounds must have been met"
    assert len(set(factor)) > 2, "and some factor must lie between them"


def test_mean_answers_come_to_the_target():
    x = jnp.abs(jax.random.normal(KEY, (64, 4)))
    params = init_params()
    params["hidden"]["kernel"] = jnp.abs(params["hidden"]["kernel"]) * jnp.array([0.1, 0.3, 1.0, 3.0, 9.0])
    tx = neuroml.synaptic_scaling(WIRING, target=0.7, speed=0.1, decay=0.5)
    state, answers = tx.init(params), lambda params: jax.nn.relu(x @ params["hidden"]["kernel"])
    for _ in range(100):
        step, state = tx.update(ZERO, state, params, activity=activity(answers(params)))
        params = optax.apply_updates(params, step)
    np.testing.assert_allclose(answers(params).mean(0), 0.7, rtol=1e-2)
    np.testing.assert_allclose(state.report()["mean answer"], 0.7, rtol=1e-2)


def test_silent_neurons_and_broken_answers_are_left_alone():
    tx, params = neuroml.synaptic_scaling(WIRING, target=0.5, speed=1.0), init_params()
    state = tx.init(params)
    _, state = tx.update(ZERO, state, params, activity=activity([[1.0, 1.0, 1.0, 1.0, 1.0]]))
    step, after = tx.update(ZERO, state, params, activity=activity([[0.0, 1.0, np.nan, np.inf, 1.0]]))
    changed = np.asarray(step["hidden"]["kernel"] != 0).all(0)
    assert changed[[1, 4]].all() and not changed[[0, 2]].any()
    assert np.isfinite(step["hidden"]["kernel"]).all()
    np.testing.assert_array_equal(after.mean["hidden"][2:4], state.mean["hidden"][2:4])


def test_the_control_gives_the_factors_to_other_neurons():
    params, answers = init_params(), [[0.1, 0.3, 1.0, 3.0, 9.0]]
    factors = []
    for shuffled in (False, True):
        tx = neuroml.synaptic_scaling(WIRING, speed=0.5, largest=10.0, shuffled=shuffled)
        step, _ = tx.update(ZERO, tx.init(params), params, activity=activity(answers))
        factors.append(np.asarray(1 + step["hidden"]["kernel"] / params["hidden"]["kernel"])[0])
    assert not np.allclose(*factors)
    np.testing.assert_allclose(np.sort(factors[0]), np.sort(factors[1]), rtol=1e-4)


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_a_target_that_is_not_positive_raises(target):
    with pytest.raises(UsageError, match=rf"a `target` in \(0, inf\), but target={target}"):
        neuroml.synaptic_scaling(WIRING, target=target)


def test_an_activity_without_the_reader_raises():
    tx, params = neuroml.synaptic_scaling(WIRING), init_params()
    words = words_of(KEY, params)
    del words["activity"]["head"]
    with pytest.raises(UsageError, match="`activity` lacks layer 'head'"):
        tx.update(ZERO, tx.init(params), params, **words)
