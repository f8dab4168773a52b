"""Sensory adaptation against a plain loop, its bounds, and what it does after a shift."""

import jax
import jax.numpy as jnp
import numpy as np

from neuroml import adaptation


def stream(n, *, mean=0.0, spread=1.0, seed=0):
    return (mean + spread * np.random.default_rng(seed).normal(size=(n, 1, 3))).astype(np.float32)


def taken(norm, batches, state=None):
    state = norm.init((3,)) if state is None else state
    return jax.lax.scan(lambda s, x: (norm.update(s, x), s.mean), state, jnp.asarray(batches))[0]


def test_it_is_the_running_mean_and_variance_of_a_plain_loop():
    batches, decay = stream(300, mean=4.0, spread=2.0), 0.95
    mean, variance = np.zeros(3), np.ones(3)
    for n, (x,) in enumerate(batches):
        rate = max(1 - decay, 1 / (n + 2))
        gap = x - mean
        mean = mean + rate * gap
        variance = variance + rate * (gap * (x - mean) - variance)
    state = taken(adaptation.make(decay), batches)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(state.variance, variance, rtol=1e-4)


def test_the_control_has_one_mean_and_spread_for_all_inputs():
    batches = stream(4000, mean=4.0, spread=2.0) + np.array([0.0, 3.0, -3.0], np.float32)
    state = taken(adaptation.make(0.999, pooled=True), batches)
    assert np.unique(state.mean).size == np.unique(state.variance).size == 1
    assert abs(float(state.mean[0]) - batches.mean()) < 0.2 and abs(float(state.variance[0]) - batches.var()) < 0.5


def test_what_comes_out_has_mean_0_and_spread_1_and_is_bounded():
    norm, batches = adaptation.make(0.999), stream(4000, mean=10.0, spread=5.0)
    out = norm.apply(taken(norm, batches), jnp.asarray(batches[:, 0]))
    assert np.abs(out.mean(0)).max() < 0.15 and np.abs(out.std(0) - 1).max() < 0.1
    assert np.abs(norm.apply(taken(norm, batches), 1e6 * jnp.ones((1, 3)))).max() == 3.0


def test_an_input_that_shifts_anneals_anew_and_the_others_do_not():
    before, after = stream(500), stream(25, seed=1) + np.array([8.0, 0.0, 0.0], np.float32)
    slow, quick = adaptation.make(0.99), adaptation.make(0.99, shift=1.0)
    kept, renewed = (taken(norm, after, taken(norm, before)) for norm in (slow, quick))
    assert abs(renewed.mean[0] - 8) < 2.5 < 5 < abs(kept.mean[0] - 8)
    np.testing.assert_allclose(kept.mean[1:], renewed.mean[1:], atol=0.3)


def test_a_constant_input_and_a_number_that_is_none_do_no_harm():
    norm = adaptation.make(0.9)
    state = taken(norm, np.full((200, 1, 3), 7.0, np.float32))
    assert np.abs(norm.apply(state, jnp.full((1, 3), 7.0))).max() < 1e-3
    after = norm.update(state, jnp.array([[jnp.nan, 7.0, jnp.inf]]))
    for kept, new in zip(state, after, strict=True):
        np.testing.assert_array_equal(np.asarray(kept)[[0, 2]], np.asarray(new)[[0, 2]])
    assert after.count[1] == state.count[1] + 1


def test_an_input_that_is_too_large_to_be_squared_is_left_out():
    norm = adaptation.make(0.9)
    state = taken(norm, stream(50))
    for large in (1e20, -3e38):
        after = norm.update(state, jnp.array([[large, 1.0, 2.0], [large, 0.0, 1.0]]))
        assert all(kept[0] == new[0] for kept, new in zip(state, after, strict=True))
        assert (after.count[1:] == state.count[1:] + 1).all()


def test_an_input_without_any_variance_is_zero_and_an_empty_batch_changes_nothing():
    norm = adaptation.make(0.5, epsilon=0.0)
    state = norm.init((2,))._replace(variance=jnp.zeros(2))
    assert norm.apply(state, jnp.zeros((1, 2))).tolist() == [[0, 0]]
    after = norm.update(state, jnp.zeros((0, 2)))
    jax.tree.map(np.testing.assert_array_equal, after, state)
