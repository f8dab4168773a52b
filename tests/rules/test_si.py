"""SI: credit is earned along the path that was really taken, and becomes importance."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml

START = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.3)}


def loss(params):
    return jnp.sum(jnp.cos(params["w"] * params["b"]) + params["w"] ** 2) + params["b"] ** 4


FOLLOWED_BY = {
    "sgd": optax.sgd(0.05),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam": optax.adam(0.05),
    "clipping": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.05)),
    "pull": optax.sgd(0.05),
    "pull counted": optax.sgd(0.05),
}


@pytest.mark.parametrize("name", FOLLOWED_BY)
def test_credit_is_the_sum_of_minus_gradient_times_step(name):
    """Of the loss alone: a pull, from a consolidation in between, earns nothing unless it is to be counted."""
    counted = name == "pull counted"
    tx = optax.chain(neuroml.si(2.0, damping=0.1, clip_negative=False, count_penalty=counted), FOLLOWED_BY[name])
    params, state = START, tx.init(START)
    gradient, update = jax.jit(jax.grad(loss)), jax.jit(tx.update)
    steps_before = 3 if name.startswith("pull") else 0
    expected = jax.tree.map(jnp.zeros_like, START)
    for i in range(steps_before + 5):
        if steps_before and i == steps_before:
            state = neuroml.consolidate(state, params)
            assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(state[0].importance)) > 0.1
            expected = jax.tree.map(jnp.zeros_like, START)
        grads = gradient(params)
        pull = jax.grad(lambda params, state=state: neuroml.penalty(state, params))(params)
        updates, state = update(grads, state, params)
        moved = optax.apply_updates(params, updates)
        earns = jax.tree.map(jnp.add, grads, pull) if counted else grads
        expected = jax.tree.map(lambda e, g, p, q: e - g * (p - q), expected, earns, moved, params)
        params = moved
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, state[0].settled(params), expected)
    # what consolidate makes of it
    gain = lambda e, p, a: e / ((p - a) ** 2 + 0.1)
    before, anchor = state[0].importance, state[0].anchor
    after = neuroml.consolidate(state, params)[0]
    jax.tree.map(lambda new, old, *x: same(new - old, gain(*x)), after.importance, before, expected, params, anchor)


def test_credit_on_a_quadratic_has_a_closed_form_and_is_the_loss_drop_for_small_steps():
    """sum h w^2 / 2 by SGD: w_t = q^t w with q = 1 - rate h, so credit = rate h^2 w^2 (1 - q^2T) / (1 - q^2)."""
    h, start = jnp.array([0.5, 1.0, 4.0]), jnp.array([2.0, -1.0, 0.5])
    gap = {}
    for rate, steps in ((0.01, 100), (0.001, 1000)):
        tx = optax.chain(neuroml.si(1.0), optax.sgd(rate))

        def step(carry, _, tx=tx):
            w, state = carry
            updates, state = tx.update(h * w, state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, state), _ = jax.lax.scan(step, (start, tx.init(start)), length=steps)
        credit, q = state[0].settled(w), 1 - rate * h
        np.testing.assert_allclose(credit, rate * h**2 * start**2 * (1 - q ** (2 * steps)) / (1 - q**2), rtol=1e-3)
        drop = jnp.sum(h * (start**2 - w**2)) / 2
        gap[rate] = float(jnp.sum(credit) / drop - 1)
    assert 0 < gap[0.001] < 0.002  # rate h / 2 at most
    assert 8 < gap[0.01] / gap[0.001] < 12  # first order in the rate


def test_importance_by_hand():
    tx = optax.chain(neuroml.si(10.0, damping=0.5), optax.sgd(1.0))
    w = jnp.array([0.0])
    state = tx.init(w)
    for gradient in (3.0, -1.0):  # steps of -3 and 1: credit 9 + 1, moved by -2
        updates, state = tx.update(jnp.array([gradient]), state, w)
        w = optax.apply_updates(w, updates)
    state = neuroml.consolidate(state, w)
    first = 10 / (2**2 + 0.5)
    np.testing.assert_allclose(state[0].importance, first, rtol=1e-6)
    assert state[0].anchor == w == -2
    np.testing.assert_allclose(neuroml.penalty(state, w + 3), 10 * first * 3**2, rtol=1e-6)
    # A second stretch counts from here: the gradient was 2, the step is whatever the weights did.
    _, state = tx.update(jnp.array([2.0]), state, w)
    state = neuroml.consolidate(state, w - 1)  # credit 2, moved by -1
    np.testing.assert_allclose(state[0].importance, first + 2 / (1 + 0.5), rtol=1e-6)
    assert state[0].anchor == -3
    # Without an update nothing is earned, even where the weights are moved by other means.
    np.testing.assert_array_equal(neuroml.consolidate(state, w - 7)[0].importance, state[0].importance)


@pytest.mark.parametrize(("clip_negative", "expected"), [(True, [0.0, 2.0]), (False, [-1.0, 2.0])])
def test_clip_negative_leaves_out_what_moved_uphill(clip_negative, expected):
    rule = neuroml.si(1.0, damping=1.0, clip_negative=clip_negative)
    w = jnp.zeros(2)
    _, state = rule.update(jnp.array([2.0, -4.0]), rule.init(w), w)
    state = neuroml.consolidate(state, w + 1)  # credit -2 and 4, moved by 1
    assert state.importance.tolist() == expected


def test_credit_is_summed_in_float32():
    """A thousand credits of 2^-10 on top of 1: in bfloat16 each would be rounded away."""
    rule, w = neuroml.si(1.0), jnp.zeros(1, jnp.bfloat16)
    state = rule.init(w)
    state = state._replace(credit=state.credit + 1)
    step = jnp.full(1, 2.0**-10, jnp.bfloat16)

    def walk(state, i):
        return rule.update(-jnp.ones(1, jnp.bfloat16), state, step * (i % 2))[1]._replace(last_params=w), None

    state, _ = jax.lax.scan(walk, state, jnp.ones(1000, jnp.bfloat16))
    np.testing.assert_allclose(state.credit, 1 + 999 * 2.0**-10, rtol=1e-6)


def test_no_importance_counts_more_than_the_ceiling_and_none_is_lost():
    def held(ceiling):
        tx = neuroml.si(2.0, clip_negative=False, ceiling=ceiling)
        state = tx.init(START)
        _, state = tx.update(jax.grad(loss)(START), state, START)
        moved = jax.tree.map(lambda w: w - 0.1, START)
        state = neuroml.consolidate(state, moved)
        away = jax.tree.map(lambda w: w + 1.0, moved)
        pull, _ = tx.update(jax.tree.map(jnp.zeros_like, START), state, away)
        return state.importance, pull, neuroml.penalty(state, away)

    importance, pull, penalty = held(jnp.inf)
    low = float(np.median(jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(importance)])))
    kept, capped, cheaper = held(low)
    jax.tree.map(np.testing.assert_array_equal, kept, importance)
    jax.tree.map(lambda p, i: np.testing.assert_allclose(p, 4 * np.minimum(i, low), rtol=1e-5), capped, importance)
    assert float(cheaper) < float(penalty)
    jax.tree.map(lambda p, i: np.testing.assert_allclose(p, 4 * i, rtol=1e-5), pull, importance)


def test_a_gradient_that_is_no_number_earns_nothing():
    tx, params, here = neuroml.si(1.0), jnp.zeros(2), jnp.array([-0.5, -0.5])
    _, state = tx.update(jnp.ones(2), tx.init(params), params)
    _, state = tx.update(jnp.array([jnp.nan, 1.0]), state, here)
    state = neuroml.consolidate(state._replace(damping=jnp.float32(1)), 2 * here)
    np.testing.assert_allclose(state.importance, [0.25, 0.5])  # 0.5 a step, over 1 ** 2 + 1
