"""EWC against the sum over stored anchors, against hand-made numbers, and where the best answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError


def tree(x):
    return {"a": jnp.asarray(x[:3], jnp.float32), "b": jnp.asarray(x[3:], jnp.float32).reshape(2, 2)}


def flat(t):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)])


def brute_force(stored, at, strength, decay):
    """Returns strength / 2 * sum_k decay^(K - k) sum_i F_ki (at_i - a_ki)^2 and its gradient, anchor by anchor."""
    ages = range(len(stored) - 1, -1, -1)
    value = sum(decay**age * np.sum(f * (at - a) ** 2) for age, (a, f) in zip(ages, stored, strict=True))
    slope = sum(decay**age * f * (at - a) for age, (a, f) in zip(ages, stored, strict=True))
    return strength / 2 * value, strength * slope


@pytest.mark.parametrize("decay", [1.0, 0.6, 0.0])
def test_separate_anchors_are_the_sum_over_all_that_were_stored(decay):
    rng = np.random.default_rng(1)
    rule, stored = neuroml.ewc(3.0, decay=decay), []
    state = rule.init(tree(rng.normal(size=7)))
    for _ in range(5):
        anchor, fisher = rng.normal(size=7), rng.exponential(size=7) * rng.integers(0, 2, 7)
        fisher[0] = 0  # a weight that never matters
        stored.append((anchor, fisher))
        state = neuroml.consolidate(state, tree(anchor), importance=tree(fisher))
        at = rng.normal(size=7)
        value, slope = brute_force(stored, at, 3.0, decay)
        np.testing.assert_allclose(neuroml.penalty(state, tree(at)), value, rtol=1e-5)
        np.testing.assert_allclose(flat(jax.grad(neuroml.penalty, 1)(state, tree(at))), slope, rtol=1e-4, atol=1e-5)
        pulled, _ = rule.update(tree(np.ones(7)), state, tree(at))
        np.testing.assert_allclose(flat(pulled), 1 + slope, rtol=1e-4, atol=1e-5)


# Twice: importance 2 at 1, then 3 at 3. The penalty at 5, with strength 10 and decay .5:
GOLDEN = {
    "separate": 10 / 2 * (0.5 * 2 * (5 - 1) ** 2 + 3 * (5 - 3) ** 2),
    "latest": 10 / 2 * (0.5 * 2 + 3) * (5 - 3) ** 2,  # online EWC: all springs hang where the newest does
}
SLOPE = {"separate": 10 * (0.5 * 2 * (5 - 1) + 3 * (5 - 3)), "latest": 10 * (0.5 * 2 + 3) * (5 - 3)}


@pytest.mark.parametrize("anchors", GOLDEN)
def test_two_anchors_by_hand(anchors):
    rule = neuroml.ewc(10.0, decay=0.5, anchors=anchors)
    state = rule.init(jnp.float32(0))
    for anchor, importance in ((1.0, 2.0), (3.0, 3.0)):
        state = neuroml.consolidate(state, jnp.float32(anchor), importance=jnp.float32(importance))
    assert neuroml.penalty(state, jnp.float32(5)) == GOLDEN[anchors]
    assert rule.update(jnp.float32(0), state, jnp.float32(5))[0] == SLOPE[anchors]
    assert state.importance == 4


# Tasks are quadratics, sum_i H_ki (w_i - m_ki)^2 / 2. Their curvature H is their exact Fisher diagonal.
CURVATURE = jnp.array([[4.0, 1.0, 0.0, 0.5], [1.0, 1.0, 2.0, 0.0], [0.5, 3.0, 1.0, 1.0]])
CENTRE = jnp.array([[1.0, 2.0, -1.0, 3.0], [-2.0, 0.0, 1.0, 1.0], [0.0, 4.0, -3.0, 2.0]])


def learn(tx, strengths, tasks=2, rate=0.1, steps=400):
    """Returns the weights after each task; `tx(strength)`, one row for each strength."""

    def run(strength):
        optimizer = tx(strength, rate)
        w = jnp.zeros(4)
        state, after = optimizer.init(w), []
        for h, m in zip(CURVATURE[:tasks], CENTRE[:tasks], strict=True):

            def step(carry, _, h=h, m=m):
                w, state = carry
                updates, state = optimizer.update(h * (w - m), state, w)
                return (optax.apply_updates(w, updates), state), None

            (w, state), _ = jax.lax.scan(step, (w, state), length=steps)
            state = neuroml.consolidate(state, w, importance=h)
            after.append(w)
        return jnp.stack(after)

    return np.asarray(jax.jit(jax.vmap(run))(jnp.asarray(strengths)))


def explicit(strength, rate, **kwargs):
    return optax.chain(neuroml.ewc(strength, **kwargs), optax.sgd(rate))


def proximal(strength, rate):
    return optax.chain(optax.sgd(rate), neuroml.ewc(strength, step_size=rate))


def minimizer(weights, curvature, centre):
    """Returns where sum_k weights_k curvature_k (w - centre_k)^2 is least, for the weights that any term holds."""
    h = np.asarray(weights)[:, None] * np.asarray(curvature)
    return (h * np.asarray(centre)).sum(0) / h.sum(0)


@pytest.mark.parametrize("tx", [explicit, proximal])
def test_after_two_quadratic_tasks_it_stands_on_the_joint_minimum(tx):
    strengths = [0.25, 1.0, 3.0]
    for strength, after in zip(strengths, learn(tx, strengths), strict=True):
        best = minimizer([strength, 1], CURVATURE[:2], CENTRE[:2])
        np.testing.assert_allclose(after[1], best, atol=1e-4)


def test_after_three_tasks_one_anchor_is_exact_and_separate_anchors_count_the_first_task_twice():
    """Huszar 2018: with exact curvatures, all springs at the newest weights make the joint minimum."""
    one = learn(lambda s, rate: explicit(s, rate, anchors="latest"), [1.0], tasks=3)[0]
    np.testing.assert_allclose(one[2], minimizer([1, 1, 1], CURVATURE, CENTRE), atol=1e-4)
    many = learn(explicit, [1.0], tasks=3)[0]
    springs_at = np.stack([many[0], many[1], CENTRE[2]])  # the second anchor already holds the first
    np.testing.assert_allclose(many[2], minimizer([1, 1, 1], CURVATURE, springs_at), atol=1e-4)
    assert np.abs(many[2] - one[2]).max() > 0.1


def test_the_proximal_form_is_stable_where_the_explicit_form_diverges():
    """Explicit steps multiply the distance by 1 - rate * (strength F + H): they diverge above 2 / rate."""
    strengths = [1e2, 1e4, 1e8]
    assert not (np.abs(learn(explicit, strengths)[:, 1]) < 1e3).all(axis=1).any()
    for strength, after in zip(strengths, learn(proximal, strengths), strict=True):
        best = minimizer([strength, 1], CURVATURE[:2], CENTRE[:2])
        np.testing.assert_allclose(after[1], best, atol=2e-3)


def test_bfloat16_weights_keep_float32_importances():
    w = jnp.ones(2, jnp.bfloat16)
    rule = neuroml.ewc(1.0)
    state = rule.init(w)
    for importance in (256.0, 1.0):
        state = neuroml.consolidate(state, w, importance=jnp.full(2, importance, jnp.bfloat16))
    assert state.importance.tolist() == [257, 257]  # 256 in bfloat16
    assert rule.update(w, state, w + 1)[0].dtype == state.anchor.dtype == jnp.bfloat16


def test_unknown_anchors():
    with pytest.raises(UsageError, match="'newest'"):
        neuroml.ewc(1.0, anchors="newest")
