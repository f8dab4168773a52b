"""The pull that EWC, SI and MAS share: its explicit form is a gradient, its implicit form a minimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from neuroml import quadratic

RNG = np.random.default_rng(0)
N = 12
PARAM, ANCHOR, UPDATE = (RNG.normal(size=N).astype(np.float32) for _ in range(3))
IMPORTANCE = (RNG.uniform(0.1, 3, N) * (np.arange(N) % 3 > 0)).astype(np.float32)  # every third is zero


def tree(x, dtype=jnp.float32):
    return {"a": jnp.asarray(x[:4], dtype), "b": jnp.asarray(x[4:], dtype).reshape(2, 4)}


def flat(t):
    return np.concatenate([np.ravel(leaf).astype(np.float32) for leaf in jax.tree.leaves(t)])


def new_weights(strength, step_size, dtype=jnp.float32, importance=IMPORTANCE):
    trees = (tree(UPDATE, dtype), tree(PARAM, dtype), tree(ANCHOR, dtype), tree(importance))
    moved = quadratic.pull_implicitly(*trees, jnp.float32(strength), jnp.float32(step_size))
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(moved))
    return flat(trees[1]) + flat(moved)


def test_penalty_and_pull_by_hand():
    params, anchor, importance = ({"w": jnp.array(v)} for v in ([3.0, 1.0], [1.0, 5.0], [0.5, 2.0]))
    assert quadratic.penalty(params, anchor, importance, jnp.float32(10)) == 10 * (0.5 * 2**2 + 2 * 4**2)
    pulled = quadratic.pull({"w": jnp.array([7.0, 7.0])}, params, anchor, importance, jnp.float32(10))
    assert pulled["w"].tolist() == [7 + 2 * 10 * 0.5 * 2, 7 - 2 * 10 * 2 * 4]


@pytest.mark.parametrize(("strength", "step_size"), [(0.3, 0.1), (1.0, 1.0), (50.0, 0.5)])
def test_the_implicit_pull_minimizes_distance_plus_penalty(strength, step_size):
    """new = argmin ||new - (param + update)||^2 / (2 step_size) + penalty(new)."""
    target = (PARAM + UPDATE).astype(np.float64)

    def objective(new):
        pulled = strength * np.sum(IMPORTANCE * (new - ANCHOR) ** 2)
        return np.sum((new - target) ** 2) / (2 * step_size) + pulled

    best = optimize.minimize(objective, target, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(new_weights(strength, step_size), best.x, atol=1e-4)
    # the penalty that is minimized is the one that the library reports
    given = quadratic.penalty(tree(best.x), tree(ANCHOR), tree(IMPORTANCE), jnp.float32(strength))
    np.testing.assert_allclose(given, strength * np.sum(IMPORTANCE * (best.x - ANCHOR) ** 2), rtol=1e-5)


def test_without_pull_the_step_is_untouched():
    trees = (tree(UPDATE), tree(PARAM), tree(ANCHOR))
    for importance, strength in ((tree(IMPORTANCE), 0.0), (tree(0 * IMPORTANCE), 1e12)):
        for form, more in ((quadratic.pull, ()), (quadratic.pull_implicitly, (jnp.float32(0.1),))):
            np.testing.assert_array_equal(flat(form(*trees, importance, jnp.float32(strength), *more)), UPDATE)


def test_the_implicit_pull_stays_between_step_and_anchor_and_ends_on_the_anchor():
    held = IMPORTANCE > 0
    reach = []
    for strength in 10.0 ** np.arange(-3, 13):
        new = new_weights(strength, 0.1)
        assert np.isfinite(new).all()
        np.testing.assert_allclose(new[~held], (PARAM + UPDATE)[~held], rtol=1e-6)
        share = (new - ANCHOR)[held] / (PARAM + UPDATE - ANCHOR)[held]  # 1: the step, 0: the anchor
        assert ((share > -1e-5) & (share < 1 + 1e-5)).all()
        reach.append(share)
    assert (np.diff(reach, axis=0) < 1e-5).all()  # the harder, the nearer
    np.testing.assert_allclose(reach[0], 1, atol=1e-3)
    np.testing.assert_allclose(reach[-1], 0, atol=1e-5)


@pytest.mark.parametrize("strength", [1e30, np.inf])
def test_an_overflowing_pull_lands_on_the_anchor(strength):
    new = new_weights(strength, 10.0, importance=np.full(N, 1e20, np.float32))
    np.testing.assert_allclose(new, ANCHOR, atol=1e-6)


def test_bfloat16_weights():
    rounded = lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    param, anchor, update = rounded(PARAM), rounded(ANCHOR), rounded(UPDATE)
    c = 2 * 0.1 * 2.0 * IMPORTANCE
    expected = (param + update + c * anchor) / (1 + c)
    np.testing.assert_allclose(new_weights(2.0, 0.1, jnp.bfloat16), expected, atol=4 * 2**-8)
    np.testing.assert_allclose(new_weights(1e12, 0.1, jnp.bfloat16)[IMPORTANCE > 0], anchor[IMPORTANCE > 0], atol=2**-7)


def test_sums_are_taken_in_float32():
    """4100 terms of 1 are 4096 in bfloat16, which counts in steps of 32 there; importances add up in float32 too."""
    ones, zeros = jnp.ones(4100, jnp.bfloat16), jnp.zeros(4100, jnp.bfloat16)
    assert quadratic.penalty(ones, zeros, jnp.ones(4100), jnp.float32(1)) == 4100
    assert quadratic.like_params(ones).dtype == jnp.float32
    # a product that bfloat16 cannot hold: 2 * 1 * 1.001 * 1
    pulled = quadratic.pull(jnp.zeros(1), ones[:1], zeros[:1], jnp.full(1, 1.001), jnp.float32(1))
    np.testing.assert_allclose(pulled, 2.002, rtol=1e-6)
