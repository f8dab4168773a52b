"""OWM: the recursion against its closed form, and answers that stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.activity import patches
from neuroml.errors import UsageError

KEY = jax.random.key(0)
DENSE = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}


def after_batches(rule, params, batches):
    state = rule.init(params)
    for x in batches:
        _, state = rule.update(params, state, params, activity=x)
    return state


def closed_form(columns, alpha):
    """I - A (A^T A + alpha I)^-1 A^T, in float64."""
    a = np.asarray(columns, np.float64)
    return np.eye(len(a)) - a @ np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T)


def test_projector_is_the_closed_form_over_mean_inputs():
    batches = jax.random.normal(KEY, (7, 4, 3)) + jnp.array([1.0, 0.0, 0.0])
    state = after_batches(neuroml.owm(alpha=0.3), DENSE, batches)
    means = np.concatenate([np.mean(batches, axis=1), np.ones((7, 1))], axis=1)
    expected = closed_form(means.T, 0.3)
    np.testing.assert_allclose(state.projectors()[""], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.report()["held "], (4 - np.trace(expected)) / 4, rtol=1e-5)


@pytest.mark.parametrize("size", [3, 6], ids=["fewer patches than inputs", "more patches than inputs"])
def test_every_patch_of_a_mean_image_counts(size):
    params = {"kernel": jnp.zeros((2, 2, 3, 2)), "bias": jnp.zeros(2)}
    images = jax.random.normal(KEY, (2, 4, size, size, 3))
    state = after_batches(neuroml.owm(alpha=0.1, windows={"": (1, "VALID")}), params, images)
    rows = patches(images.mean(1), (2, 2), padding="VALID").reshape(-1, 12)
    columns = np.concatenate([rows, np.ones((len(rows), 1))], axis=1).T
    np.testing.assert_allclose(state.projectors()[""], closed_form(columns, 0.1), rtol=1e-3, atol=1e-5)


def test_alpha_decays_from_one_consolidation_to_the_next():
    rule = neuroml.owm(alpha=0.5, alpha_decay=0.1)
    batches = np.asarray(jax.random.normal(KEY, (5, 1, 3)))
    state, expected = rule.init(DENSE), np.eye(4)
    for i, alpha in enumerate([0.5, 0.05, 0.005, 0.5, 0.05]):
        if i == 3:
            state = neuroml.consolidate(state, DENSE)
        _, state = rule.update(DENSE, state, DENSE, activity=batches[i])
        x = np.append(batches[i][0], 1.0)
        k = expected @ x / (alpha + x @ expected @ x)
        expected = expected - np.outer(k, x @ expected)
        np.testing.assert_allclose(state.projectors()[""], expected, rtol=1e-3, atol=1e-5)


def test_a_batch_is_learnt_before_its_own_step_and_strength_blends():
    params, x = {"kernel": jnp.zeros((2, 1))}, jnp.array([[2.0, 0.0]])
    step = {"kernel": jnp.ones((2, 1))}
    kept = 1 / (1 + 2**2)  # alpha / (alpha + x^2)
    for strength in (1.0, 0.25):
        rule = neuroml.owm(strength, alpha=1.0)
        projected, _ = rule.update(step, rule.init(params), params, activity=x)
        np.testing.assert_allclose(projected["kernel"].ravel(), [1 - strength * (1 - kept), 1], rtol=1e-6)


def test_answers_to_old_inputs_stay_while_new_ones_are_learnt():
    old, new = jnp.eye(6)[:3], jnp.eye(6)[3:]
    tx = optax.chain(optax.adamw(0.1, weight_decay=0.1), neuroml.owm(alpha=1e-4))
    params = {"kernel": jax.random.normal(KEY, (6, 2))}
    state, before = tx.init(params), old @ params["kernel"]
    for x in old:
        _, state = tx.update({"kernel": jnp.zeros((6, 2))}, state, params, activity=x[None])
    state = neuroml.consolidate(state, params)
    loss = lambda params: jnp.mean((jnp.concatenate([old, new]) @ params["kernel"] - 1) ** 2)

    def step(carry, _):  # the gradient asks for other answers to the old inputs too
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params, activity=jnp.zeros((1, 6)))
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, state), length=100)
    np.testing.assert_allclose(old @ params["kernel"], before, atol=2e-3)
    assert jnp.abs(new @ params["kernel"] - 1).max() < 0.1 < 1 < jnp.abs(before - 1).max()


@pytest.mark.parametrize("wrong", [jnp.inf, 1e20])
def test_a_batch_that_is_not_finite_leaves_the_projector_alone(wrong):
    rule = neuroml.owm(alpha_decay=0.5)
    state = after_batches(rule, DENSE, jax.random.normal(KEY, (2, 4, 3)))
    _, after = rule.update(DENSE, state, DENSE, activity=jnp.ones((4, 3)).at[1, 1].set(wrong))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_an_alpha_that_has_decayed_to_nothing_leaves_numbers():
    rule, params = neuroml.owm(alpha_decay=0.1), {"kernel": jnp.zeros((2, 1))}
    state = rule.init(params)._replace(steps=jnp.int32(100))  # .1 ** 100 is 0 in float32
    for x in (jnp.ones((1, 2)), jnp.zeros((1, 2))):
        _, state = rule.update(params, state, params, activity=x)
    assert jnp.isfinite(state.roots[""]).all()
    with pytest.raises(UsageError, match="alpha=0.0 must be above 0"):
        neuroml.owm(alpha=0.0)


def test_a_long_stream_of_large_inputs_keeps_a_projector():
    """Where nothing is left of x, the plain recursion divides rounding errors by alpha, and ends in infinities."""
    rule, params = neuroml.owm(alpha=1e-2), {"kernel": jnp.zeros((8, 1))}
    seen = 30 * jax.random.normal(KEY, (5000, 1, 4)) @ jax.random.normal(jax.random.key(1), (4, 8))
    step = lambda state, x: (rule.update(params, state, params, activity=x)[1], None)
    projector = jax.lax.scan(step, rule.init(params), seen)[0].projectors()[""]
    values = np.linalg.eigvalsh(np.asarray(projector, np.float64))
    np.testing.assert_allclose(values, [0] * 4 + [1] * 4, atol=1e-2)


def test_bfloat16_weights_get_bfloat16_steps():
    rule, params = neuroml.owm(alpha=1e-6), {"kernel": jnp.zeros((2, 1), jnp.bfloat16)}
    x = jnp.array([[1.0, 0.0]], jnp.bfloat16)
    step, state = rule.update({"kernel": jnp.ones((2, 1), jnp.bfloat16)}, rule.init(params), params, activity=x)
    assert step["kernel"].dtype == jnp.bfloat16 and state.roots[""].dtype == jnp.float32
    np.testing.assert_allclose(step["kernel"].astype(jnp.float32).ravel(), [0, 1], atol=1e-2)


def test_rows_that_are_held_get_no_steps_and_the_others_those_that_they_had():
    rule = neuroml.owm(alpha=0.3)
    state = after_batches(rule, DENSE, jax.random.normal(KEY, (7, 4, 3)))
    rows = jnp.array([False, True, False, False])
    before, held = state.projectors()[""], state.hold({"": rows}).projectors()[""]
    np.testing.assert_array_equal(held, np.where(rows[:, None] | rows, 0, before))
