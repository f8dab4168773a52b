"""MAS by hand: decayed sums of sensitivities around the newest weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import neuroml


def test_importances_add_up_around_the_newest_weights():
    rule = neuroml.mas(10.0, decay=0.5)
    w = {"w": jnp.array([1.0, 1.0])}
    state = neuroml.consolidate(rule.init(w), w, importance={"w": jnp.array([4.0, 0.0])})
    here = {"w": jnp.array([3.0, 0.0])}
    state = neuroml.consolidate(state, here, importance={"w": jnp.array([1.0, 2.0])})
    assert state.importance["w"].tolist() == [0.5 * 4 + 1, 2]
    at = {"w": jnp.array([5.0, 1.0])}
    assert neuroml.penalty(state, at) == 10 * (3 * 2**2 + 2 * 1**2)
    assert rule.update({"w": jnp.zeros(2)}, state, at)[0]["w"].tolist() == [2 * 10 * 3 * 2, 2 * 10 * 2 * 1]


def test_the_proximal_form_lands_where_its_formula_says():
    """c = 2 * 0.1 * 5 * 3 = 3: from 4 + 0 three quarters of the way to the anchor at 0."""
    tx = optax.chain(optax.sgd(0.1), neuroml.mas(5.0, step_size=0.1))
    state = neuroml.consolidate(tx.init(jnp.float32(0)), jnp.float32(0), importance=jnp.float32(3))
    step, _ = tx.update(jnp.float32(0), state, jnp.float32(4))
    np.testing.assert_allclose(4 + step, 1.0, rtol=1e-6)


def test_a_linear_network_keeps_what_its_inputs_used():
    """Outputs x w: d ||f||^2 / d w_i = 2 x_i f. The input that is never on leaves its weight free."""
    predict = lambda w, x: x @ w[:, None]
    w, x = jnp.array([1.0, 2.0]), jnp.array([[1.0, 0.0], [-3.0, 0.0]])
    tx = optax.chain(neuroml.mas(100.0), optax.sgd(1e-4))
    state = neuroml.consolidate(tx.init(w), w, importance=neuroml.sensitivity(predict, w, x))
    np.testing.assert_allclose(state[0].importance, [(2 * 1 * 1 + 2 * 3 * 3) / 2, 0], rtol=1e-6)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(10 * jnp.ones(2), state, w)
        return (optax.apply_updates(w, updates), state), None

    (moved, _), _ = jax.lax.scan(step, (w, state), length=200)
    # The held weight rests where the pull 2 * 100 * 10 * (w - 1) meets the gradient; the free one went on.
    np.testing.assert_allclose(moved, [1 - 10 / (2 * 100 * 10), 2 - 200 * 10 * 1e-4], rtol=1e-4)
