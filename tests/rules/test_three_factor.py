"""Three factors: trace and modulator in numpy, the control, and losses that are no numbers."""

import jax
import jax.numpy as jnp
import numpy as np

import neuroml

KEY = jax.random.key(0)
W = jnp.zeros(3)


def steps(tx, gradients, losses):
    state, given = tx.init(W), []
    for gradient, loss in zip(gradients, losses, strict=True):
        step, state = tx.update(jnp.asarray(gradient), state, W, value=jnp.float32(loss))
        given.append(np.asarray(step))
    return np.array(given), state


def test_the_update_is_gradient_and_modulated_trace():
    gradients, losses = np.asarray(jax.random.normal(KEY, (6, 3))), [1.0, 2.0, 0.5, 50.0, 0.1, 1.0]
    given, state = steps(neuroml.three_factor(0.3, decay=0.8, mean_decay=0.6, largest=1.5), gradients, losses)
    trace, mean, modulators = np.zeros(3), 0.0, []
    for number, (gradient, loss) in enumerate(zip(gradients, losses, strict=True)):
        trace = 0.8 * trace + 0.2 * gradient
        mean = mean + max(0.4, 1 / (number + 1)) * (loss - mean)
        modulators.append(np.clip(loss / mean, 0, 1.5))
        np.testing.assert_allclose(given[number], 0.7 * gradient + 0.3 * modulators[-1] * trace, rtol=1e-5)
    assert max(modulators) == 1.5 and min(modulators) < 0.1, "both ends must have been met"
    np.testing.assert_allclose(state.report()["modulator"], modulators[-1], rtol=1e-5)


def test_without_gradient_the_trace_alone_learns_from_a_late_surprise():
    gradients = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    calm, _ = steps(neuroml.three_factor(1.0), gradients, [1.0, 1.0, 1.0])
    jump, _ = steps(neuroml.three_factor(1.0), gradients, [1.0, 1.0, 4.0])
    assert calm[2][0] > 0
    np.testing.assert_allclose(jump[2], 2.0 * calm[2], rtol=1e-5)  # the loss is twice its mean of 2


def test_the_control_is_deaf_to_the_loss():
    gradients = np.asarray(jax.random.normal(KEY, (4, 3)))
    deaf = [steps(neuroml.three_factor(constant=True), gradients, losses)[0] for losses in ([1, 1, 1, 1], [1, 9, 1, 9])]
    heard = [steps(neuroml.three_factor(), gradients, losses)[0] for losses in ([1, 1, 1, 1], [1, 9, 1, 9])]
    np.testing.assert_array_equal(*deaf)
    assert not np.allclose(*heard)
    np.testing.assert_allclose(deaf[0], heard[0], rtol=1e-6)  # without surprise the two are one


def test_a_loss_that_is_no_number_and_a_loss_of_zero_do_no_harm():
    gradients = np.ones((4, 3))
    given, state = steps(neuroml.three_factor(), gradients, [1.0, np.nan, np.inf, 1.0])
    calm, _ = steps(neuroml.three_factor(), gradients, [1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(given, calm, rtol=1e-6)
    assert float(state.mean) == 1.0
    zero, _ = steps(neuroml.three_factor(), gradients, [0.0, 0.0, 0.0, 0.0])
    assert np.isfinite(zero).all()


def test_a_gradient_that_is_no_number_leaves_its_trace_as_it_was():
    given, state = steps(neuroml.three_factor(0.5, decay=0.5), [[1.0, 1, 1], [np.nan, 1, np.inf], [1, 1, 1]], [1.0] * 3)
    np.testing.assert_allclose(state.trace, [0.75, 0.875, 0.75])
    assert np.isfinite(given[2]).all()
