"""Surprise rate: the gain in numpy, its bounds, its control, and losses that are no numbers."""

import jax.numpy as jnp
import numpy as np
import optax

import neuroml
from neuroml import core

W = jnp.zeros(2)


def gains(tx, losses):
    state, seen = tx.init(W), []
    for loss in losses:
        step, state = tx.update(jnp.array([1.0, -2.0]), state, W, value=jnp.float32(loss))
        np.testing.assert_allclose(step[1], -2 * step[0], rtol=1e-6)
        seen.append(float(step[0]))
        np.testing.assert_allclose(state.report()["gain"], seen[-1], rtol=1e-6)
    return seen


def test_the_gain_follows_the_rise_of_the_loss():
    losses = [3.0, 1.0, 0.5, 0.4, 2.0, 9.0, 9.0, 1.0, 0.3]
    given = gains(neuroml.surprise_rate(0.5, fast_decay=0.3, slow_decay=0.8, largest=2.0), losses)
    fast = slow = 0.0
    for number, loss in enumerate(losses):
        fast += max(0.7, 1 / (number + 1)) * (loss - fast)
        slow += max(0.2, 1 / (number + 1)) * (loss - slow)
        np.testing.assert_allclose(given[number], min(1 + 0.5 * max(fast - slow, 0), 2), rtol=1e-5)
    assert given[1] == given[3] == 1.0, "a falling loss is no surprise"
    assert given[5] == 2.0 and 1 < given[4] < 2, "the bound must have been met, and something below it"


def test_behind_adam_it_makes_steps_larger():
    sizes = []
    for strength in (0.0, 1.0):
        tx = optax.chain(optax.adam(0.1), neuroml.surprise_rate(strength))
        state = tx.init(W)
        for loss in (1.0,) * 30 + (2.0,) * 5:
            step, state = tx.update(jnp.ones(2), state, W, value=loss)
        sizes.append(float(jnp.abs(step).max()))
    assert sizes[1] > 1.2 * sizes[0]
    assert float(core.report(state)["gain"]) > 1.2


def test_the_control_is_deaf_to_the_loss():
    assert gains(neuroml.surprise_rate(0.5, constant=True), [1.0, 9.0, 0.1]) == [1.5, 1.5, 1.5]
    assert gains(neuroml.surprise_rate(0.5), [1.0, 9.0, 0.1]) != [1.5, 1.5, 1.5]


def test_a_loss_that_is_no_number_is_passed_over():
    tx = neuroml.surprise_rate(1.0, fast_decay=0.0, slow_decay=0.9)
    assert gains(tx, [1.0, 1.0, np.nan, np.inf, 1.0]) == [1.0] * 5
    assert gains(tx, [1.0, np.nan, 2.0])[2] > 1


def test_the_first_finite_loss_is_the_first():
    tx = neuroml.surprise_rate(1.0, fast_decay=0.5, slow_decay=0.9)
    late = gains(tx, [np.nan, np.inf, 2.0, 2.0, 3.0])
    assert late[:4] == [1.0] * 4
    np.testing.assert_array_equal(late[2:], gains(tx, [2.0, 2.0, 3.0]))
