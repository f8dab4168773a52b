"""BCM: the gain in numpy, the threshold that slides, and what it does not touch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import WIRING, init_params

import neuroml
from neuroml.errors import UsageError

KEY = jax.random.key(0)
STEP = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), init_params())


def activity(answers):
    return {"hidden": jnp.ones((len(answers), 4)), "head": jnp.asarray(answers)}


def gains(rule, state, answers):
    params = init_params()
    given, state = rule.update(STEP, state, params, activity=activity(answers))
    return np.asarray(given["hidden"]["bias"]) / 0.1, state


def test_steps_are_multiplied_by_how_far_answers_are_above_the_threshold():
    tx, params = neuroml.bcm(WIRING, strength=0.7, decay=0.6), init_params()
    answers = np.asarray(jax.random.normal(KEY, (5, 8, 5))) * np.array([0.3, 0.7, 1.0, 2.0, 5.0])
    state, threshold = tx.init(params), np.zeros(5)
    for number, rows in enumerate(answers):
        given, state = tx.update(STEP, state, params, activity=activity(rows))
        threshold = threshold + max(1 - 0.6, 1 / (number + 1)) * ((rows**2).mean(0) - threshold)
        gain = 1 + 0.7 * np.tanh(rows * (rows - threshold) / threshold**2).mean(0)
        np.testing.assert_allclose(state.threshold["hidden"], threshold, rtol=1e-5)
        np.testing.assert_allclose(given["hidden"]["kernel"], np.tile(0.1 * gain, (4, 1)), rtol=1e-4)
        np.testing.assert_allclose(given["hidden"]["bias"], 0.1 * gain, rtol=1e-4)
        chex.assert_trees_all_equal(given["head"], STEP["head"])
    assert gain.min() < 0.99 and gain.max() > 1.05, "some neurons must learn less, some more"


def test_the_threshold_slides_so_that_a_loud_neuron_loses_its_gain():
    tx = neuroml.bcm(WIRING, strength=1.0, decay=0.9)
    state, loud, seen = tx.init(init_params()), 4 * jnp.ones((3, 5)), []
    for _ in range(20):
        _, state = gains(tx, state, jnp.ones((3, 5)))
    for _ in range(20):
        gain, state = gains(tx, state, loud)
        seen.append(gain[0])
    assert seen[0] > 1.5 and seen[0] > seen[1] > seen[2] and max(seen[2:]) < 1


def test_silent_neurons_and_broken_answers_have_gain_one():
    tx = neuroml.bcm(WIRING, strength=1.0)
    _, state = gains(tx, tx.init(init_params()), 2 * jnp.ones((1, 5)))
    gain, after = gains(tx, state, jnp.array([[0.0, 2.0, jnp.nan, jnp.inf, 9.0]]))
    np.testing.assert_allclose(gain[[0, 2, 3]], 1)
    assert np.isfinite(gain).all() and max(gain[1], gain[4]) < 0.9
    np.testing.assert_array_equal(after.threshold["hidden"][2:4], state.threshold["hidden"][2:4])


def test_the_control_gives_the_gains_to_other_neurons():
    answers = jnp.array([[0.1, 0.9, 1.3, 2.0, 5.0]])
    both = [neuroml.bcm(WIRING, shuffled=shuffled) for shuffled in (False, True)]
    found = [gains(tx, tx.init(init_params()), answers)[0] for tx in both]
    assert not np.allclose(*found)
    np.testing.assert_array_equal(np.sort(found[0]), np.sort(found[1]))


def test_a_wiring_without_a_population_raises():
    names = jax.tree.map(lambda names: (None,) * len(names), WIRING, is_leaf=lambda node: isinstance(node, tuple))
    with pytest.raises(UsageError, match="bcm found no population"):
        neuroml.bcm(names).init(init_params())
