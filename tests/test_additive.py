"""A memory that is a sum: nothing is lost by packing, by order, by merging, and it solves the ridge regression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroml import additive
from neuroml.errors import UsageError

X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)

add = jax.jit(additive.add)
solve = jax.jit(additive.solve)


def absorb(x, y, batch_size=60, one=None):
    one = additive.empty(x.shape[1], y.shape[1]) if one is None else one
    for at in range(0, len(x), batch_size):
        one = add(one, jnp.asarray(x[at : at + batch_size]), jnp.asarray(y[at : at + batch_size]))
    return one


def ridge_in_numpy(x, y, ridge):
    """A plain ridge on features that are divided by their root mean square, in double precision."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    size = np.sqrt((x**2).mean(0))
    x = x / size
    return np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y) / size[:, None]


@given(half=st.integers(1, 9), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_packing_keeps_half_of_a_symmetric_matrix_and_loses_nothing(half, seed):
    root = np.random.default_rng(seed).normal(size=(2 * half, 2 * half)).astype(np.float32)
    packed = additive.pack(jnp.asarray(root + root.T))
    assert packed.size == 2 * half * (2 * half + 1) // 2
    np.testing.assert_array_equal(additive.unpack(packed), root + root.T)


def test_every_number_that_is_kept_is_needed():
    lower = np.zeros((6, 6), np.float32)
    lower[np.tril_indices(6)] = np.arange(1, 22)
    packed = additive.pack(jnp.asarray(lower + np.tril(lower, -1).T))
    assert sorted(packed.ravel().tolist()) == list(range(1, 22))


@pytest.mark.parametrize("ridge", [1e-4, 0.01, 1.0])
def test_the_weights_are_those_of_ridge_regression(ridge):
    x = X * np.array([1, 2, 0.1, 30, 1, 1], np.float32)  # the scale of a feature does not matter
    np.testing.assert_allclose(solve(absorb(x, Y), ridge), ridge_in_numpy(x, Y, ridge), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_order_and_batches_do_not_matter(batch_size):
    order = np.random.default_rng(2).permutation(60)
    whole, shuffled = (solve(one, 0.01) for one in (absorb(X, Y), absorb(X[order], Y[order], batch_size)))
    np.testing.assert_allclose(shuffled, whole, rtol=0, atol=1e-6 * jnp.abs(whole).max())


def test_of_correlated_features_the_order_does_not_matter_to_the_answers():
    """Rounding is magnified where features go together: the answers agree better than the weights."""
    random = np.random.default_rng(3)
    causes = random.normal(size=(20_000, 10))
    x = causes @ random.normal(size=(10, 200)) + 0.3 * random.normal(size=(20_000, 200))
    x, y = x.astype(np.float32), np.eye(10, dtype=np.float32)[causes.argmax(1)]
    order = random.permutation(20_000)
    whole, shuffled = (solve(one, 0.01) for one in (absorb(x, y, 500), absorb(x[order], y[order], 250)))
    np.testing.assert_allclose(shuffled, whole, rtol=0, atol=3e-4 * jnp.abs(whole).max())
    np.testing.assert_allclose(x @ shuffled, x @ whole, rtol=0, atol=2e-5 * jnp.abs(x @ whole).max())


def test_in_double_precision_the_order_matters_still_less():
    order = np.random.default_rng(2).permutation(60)
    with jax.enable_x64(True):
        x, y = X.astype(np.float64), Y.astype(np.float64)
        whole, shuffled = absorb(x, y), absorb(x[order], y[order], 7)
        assert whole.gram.dtype == jnp.float64
        whole, shuffled = additive.solve(whole, 0.01), additive.solve(shuffled, 0.01)
        np.testing.assert_allclose(shuffled, whole, rtol=0, atol=1e-10)
        np.testing.assert_allclose(whole, ridge_in_numpy(x, y, 0.01), rtol=0, atol=1e-10)


def test_two_memories_merged_are_one_of_both():
    """With whole numbers, every sum is exact."""
    x, y = np.round(4 * X), np.round(4 * Y)
    merged = additive.merge(absorb(x[:20], y[:20]), absorb(x[20:], y[20:]))
    jax.tree.map(np.testing.assert_array_equal, merged, absorb(x, y))
    assert merged.count == 60


def test_a_weight_counts_an_example_so_often():
    often = np.arange(60) % 4
    weighted = add(additive.empty(6, 3), jnp.asarray(X), jnp.asarray(Y), jnp.asarray(often))
    repeated = absorb(np.repeat(X, often, 0), np.repeat(Y, often, 0), 90)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), weighted, repeated)
    assert weighted.count == often.sum()


def test_a_feature_that_never_was_anything_has_no_weight_and_hurts_none():
    x = np.concatenate([X, np.zeros((60, 2), np.float32)], axis=1)
    found = solve(absorb(x, Y), 0.01)
    assert (found[6:] == 0).all()
    np.testing.assert_allclose(found[:6], solve(absorb(X, Y), 0.01), rtol=1e-5, atol=1e-6)


def test_of_nothing_the_weights_are_zero():
    assert (solve(additive.empty(4, 2), 0.01) == 0).all()


def test_one_example_is_remembered():
    """Its features, each of mean square 1 once scaled, answer y d / (d + ridge)."""
    found = X[:1] @ solve(absorb(X[:1], Y[:1]), 0.01)
    np.testing.assert_allclose(found, Y[:1] * 6 / 6.01, rtol=1e-4)


def test_a_constant_feature_beside_a_constant_target():
    x = np.full((9, 2), 3.0, np.float32)
    np.testing.assert_allclose(x[:1] @ solve(absorb(x, Y[:1].repeat(9, 0)), 1e-3), Y[:1], rtol=1e-2)


def test_halves_are_summed_in_single_precision():
    """256 + 1 is 256 in bfloat16."""
    x = jnp.ones((257, 2), jnp.bfloat16)
    one = add(additive.empty(2, 1), x, jnp.ones((257, 1), jnp.bfloat16))
    assert one.gram.dtype == jnp.float32
    assert one.gram[0, 0] == one.cross[0, 0] == one.count == 257


def test_a_stack_solves_as_each_of_it_does():
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), absorb(X, Y), absorb(X[:30], Y[:30]))
    assert jax.tree.map(jnp.shape, stack) == jax.tree.map(jnp.shape, additive.empty(6, 3, (2,)))
    both = jax.vmap(additive.solve, (0, None))(stack, 0.01)
    np.testing.assert_allclose(both[1], solve(absorb(X[:30], Y[:30]), 0.01), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("features", "outputs"), [(3, 1), (0, 1), (2, 0)])
def test_sizes_that_cannot_be(features, outputs):
    with pytest.raises(UsageError, match="even"):
        additive.empty(features, outputs)
