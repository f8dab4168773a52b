"""Spectral regularization: against singular value decompositions, at rest and while the weights move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError

KEY = jax.random.key(0)


def with_singular_values(*values, shape=(6, 4)):
    """A matrix of the given singular values, in general position."""
    left = np.linalg.qr(np.asarray(jax.random.normal(KEY, (shape[0], shape[0]))))[0][:, : len(values)]
    right = np.linalg.qr(np.asarray(jax.random.normal(jax.random.key(1), (shape[1], shape[1]))))[0][:, : len(values)]
    return jnp.asarray(left * np.array(values) @ right.T, jnp.float32)


def top(kernel):
    u, s, v = np.linalg.svd(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), full_matrices=False)
    return u[:, 0], s[0], v[0]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_penalty_and_pull_are_those_of_the_decomposition(power):
    kernel, bias = with_singular_values(1.7, 0.8, 0.5, 0.2), jnp.array([1.0, -2.0, 0.0, 0.5])
    params = {"layer": {"kernel": kernel, "bias": bias}, "norm": {"scale": jnp.full(4, 3.0)}}
    tx = neuroml.spectral_regularization(0.6, power=power)
    state = tx.init(params)
    pull, _ = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    u, sigma, v = top(kernel)
    expected = 0.3 * ((sigma**power - 1) ** 2 + float((bias**2).sum()))
    np.testing.assert_allclose(state.penalty(params), expected, rtol=1e-4)
    slope = 0.6 * (sigma**power - 1) * power * sigma ** (power - 1)
    np.testing.assert_allclose(pull["layer"]["kernel"], slope * np.outer(u, v), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(pull["layer"]["bias"], 0.6 * bias, rtol=1e-6)
    np.testing.assert_array_equal(pull["norm"]["scale"], 0)


def test_the_pull_is_the_slope_of_the_exact_penalty():
    """The vectors are constants to the gradient, and rightly: at the leading direction theirs does not matter."""
    kernel = with_singular_values(1.7, 0.8, 0.5, 0.2)
    tx = neuroml.spectral_regularization(1.0)
    params = {"kernel": kernel}
    pull, _ = tx.update({"kernel": jnp.zeros_like(kernel)}, tx.init(params), params)
    exact = lambda k: 0.5 * (np.linalg.svd(k, compute_uv=False)[0] ** 2 - 1) ** 2
    wide, small = np.asarray(kernel, np.float64), 1e-5
    for i, j in np.ndindex(*wide.shape):
        nudge = np.zeros_like(wide)
        nudge[i, j] = small
        slope = (exact(wide + nudge) - exact(wide - nudge)) / (2 * small)
        np.testing.assert_allclose(pull["kernel"][i, j], slope, rtol=1e-2, atol=1e-3)


def test_it_holds_the_largest_singular_value_at_one_and_leaves_the_others():
    tx = optax.chain(neuroml.spectral_regularization(1.0), optax.sgd(0.02))
    for values in ((2.5, 0.6, 0.4, 0.2), (0.8, 0.6, 0.4, 0.2)):
        params = {"kernel": with_singular_values(*values)}

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=500)
        after = np.linalg.svd(params["kernel"], compute_uv=False)
        np.testing.assert_allclose(after, [1.0, *values[1:]], atol=0.02)


def test_one_iteration_an_update_follows_weights_that_move():
    tx, params = neuroml.spectral_regularization(1.0), {"kernel": jax.random.normal(KEY, (30, 20)) / 5}
    still = jax.tree.map(jnp.zeros_like, params)

    def step(carry, key):
        params, state = carry
        params = {"kernel": 0.999 * params["kernel"] + 0.01 * jax.random.normal(key, (30, 20))}
        value = state.penalty(params)
        return (params, tx.update(still, state, params)[1]), (params["kernel"], value)

    _, (kernels, values) = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(KEY, 1000))
    kernels, values = np.asarray(kernels[::50]), np.asarray(values[::50])
    sigmas = np.sqrt(1 + np.sqrt(2 * values))  # of all these, sigma is above 1
    exact = np.linalg.svd(kernels, compute_uv=False)[:, 0]
    fixed = np.linalg.norm(kernels[-1] @ np.asarray(tx.init(params).directions["kernel"]))
    assert (exact > 1.05).all() and fixed < 0.8 * exact[-1], "the test would pass on a fixed vector"
    np.testing.assert_allclose(sigmas, exact, rtol=0.05)


def test_more_iterations_come_nearer():
    kernel = jax.random.normal(KEY, (30, 20))
    tx = {n: neuroml.spectral_regularization(1.0, iterations=n) for n in (1, 8)}
    begin, after = {"kernel": jax.random.normal(jax.random.key(1), (30, 20))}, {"kernel": kernel}
    still = jax.tree.map(jnp.zeros_like, begin)
    gap = lambda n: 1 - abs(tx[n].update(still, tx[n].init(begin), after)[1].directions["kernel"] @ top(kernel)[2])
    assert gap(8) < gap(1) / 3


def test_kernels_of_convolutions_count_as_matrices():
    params = {"kernel": jax.random.normal(KEY, (3, 3, 2, 4)), "bias": jnp.zeros(4)}
    tx = neuroml.spectral_regularization(2.0)
    pull, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    u, sigma, v = top(params["kernel"])
    expected = 2.0 * (sigma**2 - 1) * 2 * sigma * np.outer(u, v)
    np.testing.assert_allclose(pull["kernel"].reshape(-1, 4), expected, rtol=0.02, atol=0.02 * abs(expected).max())


def test_a_kernel_of_zeros_is_left_until_it_has_a_direction():
    tx, params = neuroml.spectral_regularization(1.0), {"kernel": jnp.zeros((5, 3))}
    pull, state = tx.update(params, tx.init(params), params)
    assert (pull["kernel"] == 0).all() and float(state.penalty(params)) == 0.5
    grown = {"kernel": with_singular_values(2.0, 1.0, 0.5, shape=(5, 3))}
    for _ in range(20):
        _, state = tx.update(params, state, grown)
    np.testing.assert_allclose(state.penalty(grown), 0.5 * (2.0**2 - 1) ** 2, rtol=1e-3)


@pytest.mark.parametrize("power", [1.0, 2.5, 3.0])
def test_weights_that_turn_over_at_once_do_no_harm(power):
    tx, params = neuroml.spectral_regularization(1.0, power=power), {"kernel": with_singular_values(1.5, 0.5, 0.4, 0.3)}
    state = tx.init(params)
    for flipped in ({"kernel": -params["kernel"]}, {"kernel": jnp.flip(params["kernel"])}):
        pull, _ = tx.update(jax.tree.map(jnp.zeros_like, params), state, flipped)
        assert jnp.isfinite(pull["kernel"]).all() and jnp.isfinite(state.penalty(flipped))


def test_what_is_masked_is_neither_pulled_nor_counted():
    params = {"layer": {"kernel": with_singular_values(2.0, 1.0), "bias": jnp.ones(4)}}
    tx = optax.masked(neuroml.spectral_regularization(1.0), {"layer": {"kernel": True, "bias": False}})
    state = tx.init(params)
    pull, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert (pull["layer"]["bias"] == 0).all() and (pull["layer"]["kernel"] != 0).any()
    np.testing.assert_allclose(neuroml.penalty(state, params), 0.5 * (2.0**2 - 1) ** 2, rtol=1e-3)


def test_bfloat16_weights_get_bfloat16_pulls_and_float32_vectors():
    params = {"kernel": with_singular_values(2.0, 1.0).astype(jnp.bfloat16)}
    tx = neuroml.spectral_regularization(1.0)
    pull, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert pull["kernel"].dtype == jnp.bfloat16 and state.directions["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(pull["kernel"].astype(jnp.float32)), 12, rtol=0.02)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="iterations=0 must be at least 1"):
        neuroml.spectral_regularization(1.0, iterations=0)
    with pytest.raises(UsageError, match="spectral_regularization found no layer"):
        neuroml.spectral_regularization(1.0).init({"scale": jnp.ones(3)})


def test_a_power_below_one_has_no_slope_at_a_kernel_of_zeros():
    tx, params = neuroml.spectral_regularization(1.0, power=0.5), {"kernel": jnp.zeros((5, 3))}
    pull, state = tx.update(params, tx.init(params), params)
    assert (pull["kernel"] == 0).all() and float(state.penalty(params)) == 0.5
