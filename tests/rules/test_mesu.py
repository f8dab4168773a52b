"""MESU against its equations with the draws written out, and what its window does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError

LOSS = lambda w, x: 0.5 * ((w - x) ** 2).sum()


@pytest.mark.parametrize("centered", [False, True])
def test_one_update_is_that_of_the_equations(centered, key):
    tx = neuroml.mesu(LOSS, prior=0.5, window=20.0, examples=4.0, samples=3, centered=centered)
    start, x = jnp.array([1.0, -2.0]), jnp.array([0.0, 0.5])
    state, w, spread = tx.init(start), start + 0.3, jnp.array([0.4, 0.2])
    state = state._replace(spread=spread)
    draws = jnp.stack([optax.tree.random_like(k, spread) for k in jax.random.split(key, 3)])
    slopes = w + spread * draws - x
    updates, after = tx.update(jnp.full(2, 9.0), state, w, batch=x, key=key)
    variance, origin = 0.25, jnp.zeros(2) if centered else start
    mean = slopes.mean(0) + (w - origin) / (4 * 20 * variance)
    np.testing.assert_allclose(updates, spread**2 / variance * mean, rtol=1e-5)
    shrink = -(spread**2) * 4 * (slopes * draws).mean(0) / 2 + spread * (variance - spread**2) / (2 * 20 * variance)
    np.testing.assert_allclose(after.spread, spread + shrink, rtol=1e-5)


def settled(window, curvature=4.0):
    tx = neuroml.mesu(lambda w, x: curvature * LOSS(w, x), prior=0.3, window=window)
    w, update = jnp.zeros(500), jax.jit(tx.update)
    state = tx.init(w)
    for i in range(400):
        _, state = update(w, state, w, batch=jnp.zeros(500), key=jax.random.key(i))
    return state


def test_the_spread_settles_where_evidence_and_forgetting_balance():
    """At rest 1 / spread^2 = 1 / prior^2 + window * curvature: the precision of a posterior of `window` batches."""
    state = settled(window=10.0)
    assert float(state.spread.mean()) == pytest.approx((1 / 0.09 + 10 * 4) ** -0.5, rel=0.1)
    assert float(state.report()["spread"]) == pytest.approx(float(state.spread.mean()) / 0.3, rel=1e-4)
    endless, long = (float(settled(window=window).spread.mean()) for window in (float("inf"), 1000.0))
    assert 0 < endless <= long < float(state.spread.mean())


def test_bad_input_is_named():
    for name in ("prior", "window", "samples", "examples"):
        with pytest.raises(UsageError, match=f"{name}=0"):
            neuroml.mesu(LOSS, **{name: 0})


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
def test_a_slope_that_is_not_finite_is_no_evidence(wrong, key):
    tx, w = neuroml.mesu(LOSS, prior=0.5), jnp.zeros(3)
    _, state = tx.update(w, tx.init(w), w, batch=jnp.ones(3), key=key)
    _, after = tx.update(w, state, w, batch=jnp.array([1.0, wrong, 1.0]), key=key)
    np.testing.assert_allclose(after.spread[1], state.spread[1], rtol=1e-4)  # it drifts, in a window of 1e5 batches
    assert jnp.isfinite(after.spread).all() and (jnp.abs(after.spread - state.spread)[::2] > 1e-3).all()
