"""GPM: bases against brute-force singular vectors, and what is left when they are full."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.activity import patches
from neuroml.errors import UsageError

KEY = jax.random.key(0)
DENSE = {"kernel": jnp.zeros((6, 2)), "bias": jnp.zeros(2)}


def learn(rule, state, params, batches):
    for x in batches:
        _, state = rule.update(params, state, params, activity=x)
    return neuroml.consolidate(state, params)


def task(seed, n=3, inputs=6, strongest=3.0):
    """Batches whose directions fall off in energy."""
    one, two = jax.random.split(jax.random.key(seed))
    turn = jnp.linalg.qr(jax.random.normal(one, (inputs, inputs)))[0]
    return jax.random.normal(two, (n, 8, inputs)) * strongest * 0.5 ** jnp.arange(inputs) @ turn


def representation(batches):
    rows = np.asarray(batches, np.float64).reshape(-1, batches.shape[-1])
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1).T


def by_svd(memory, r, threshold):
    """The paper's criterion, tried with ever more singular vectors."""
    r_hat = r - memory @ memory.T @ r
    vectors, values, _ = np.linalg.svd(r_hat, full_matrices=False)
    known, total = np.sum((memory @ memory.T @ r) ** 2), np.sum(r**2)
    k = next(k for k in range(len(values) + 1) if known + np.sum(values[:k] ** 2) >= threshold * total)
    return np.concatenate([memory, vectors[:, :k]], axis=1)


def same_space(basis, held, expected):
    assert int(held) == expected.shape[1]
    np.testing.assert_allclose(basis @ basis.T, expected @ expected.T, atol=1e-4)
    np.testing.assert_allclose(basis.T @ basis, np.diag(np.arange(basis.shape[1]) < held), atol=1e-5)


@pytest.mark.parametrize(("threshold", "increment"), [(0.8, 0.0), (0.9, 0.05), (0.99, 0.0), (0.97, 1.0)])
def test_bases_are_those_of_brute_force(threshold, increment):
    rule = neuroml.gpm(threshold=threshold, threshold_increment=increment)
    state, memory, grown = rule.init(DENSE), np.zeros((7, 0)), []
    for i in range(2):
        state = learn(rule, state, DENSE, task(i))
        # A threshold of 1 is met by rounding or not at all, so the reference stops short of it.
        memory = by_svd(memory, representation(task(i)), min(threshold + i * increment, 1 - 1e-6))
        same_space(state.layers[""].basis, state.layers[""].held, memory)
        grown.append(memory.shape[1])
    assert 0 < grown[0] < grown[1]  # both tasks had something to add
    np.testing.assert_allclose(state.report()["held "], grown[1] / 7)


def test_steps_leave_the_memory_out():
    rule = neuroml.gpm(0.75, threshold=0.9)
    state = learn(rule, rule.init(DENSE), DENSE, task(0))
    memory = by_svd(np.zeros((7, 0)), representation(task(0)), 0.9)
    matrix = np.asarray(jax.random.normal(KEY, (7, 2)))
    step = {"kernel": jnp.asarray(matrix[:6]), "bias": jnp.asarray(matrix[6])}
    projected, _ = rule.update(step, state, DENSE, activity=task(1)[0])
    expected = matrix - 0.75 * memory @ memory.T @ matrix
    np.testing.assert_allclose(projected["kernel"], expected[:6], atol=1e-4)
    np.testing.assert_allclose(projected["bias"], expected[6], atol=1e-4)


def test_a_task_that_is_known_adds_nothing():
    rule = neuroml.gpm(threshold=0.9)
    once = learn(rule, rule.init(DENSE), DENSE, task(0))
    twice = learn(rule, once, DENSE, task(0))
    jax.tree.map(np.testing.assert_array_equal, twice.layers, once.layers)


def test_to_consolidate_without_a_batch_adds_nothing():
    rule = neuroml.gpm(threshold=0.9, threshold_increment=0.05)
    once = learn(rule, rule.init(DENSE), DENSE, task(0))
    jax.tree.map(np.testing.assert_array_equal, neuroml.consolidate(once, DENSE).layers, once.layers)


def test_a_full_memory_stops_all_learning():
    rule = neuroml.gpm(threshold=1.0)
    state = rule.init(DENSE)
    for i in range(3):
        state = learn(rule, state, DENSE, 1 + jax.random.normal(jax.random.key(i), (2, 20, 6)))
    assert state.layers[""].held == 7 and state.report()["held "] == 1
    step, _ = rule.update(jax.tree.map(lambda p: p + 1, DENSE), state, DENSE, activity=task(0)[0])
    assert all(jnp.abs(leaf).max() < 1e-5 for leaf in jax.tree.leaves(step))  # and no NaN


def test_a_threshold_of_one_takes_no_direction_that_was_never_met():
    rule = neuroml.gpm(threshold=1.0)
    for seed in range(4):
        plane = jax.random.normal(jax.random.key(seed), (2, 6))
        batches = jax.random.normal(KEY, (3, 8, 2)) @ plane
        assert learn(rule, rule.init(DENSE), DENSE, batches).layers[""].held == 3  # two inputs and the bias


def test_a_small_rank_keeps_what_came_first():
    rule, params = neuroml.gpm(threshold=0.99, rank=3), {"kernel": jnp.zeros((6, 2))}
    only = lambda *axes: jnp.eye(6)[jnp.array(axes)][None] * jnp.arange(len(axes), 0, -1)[:, None]
    first = learn(rule, rule.init(params), params, only(0, 1))
    assert first.layers[""].held == 2
    state = learn(rule, first, params, only(4, 3, 2))
    assert state.layers[""].held == 3
    np.testing.assert_allclose(jnp.abs(state.layers[""].basis.T), jnp.eye(6)[jnp.array([0, 1, 4])], atol=1e-6)
    with pytest.raises(UsageError, match="rank=0"):
        neuroml.gpm(rank=0)


@pytest.mark.parametrize("wrong", [jnp.nan, 1e20])
def test_a_batch_that_is_not_finite_is_left_out(wrong):
    rule = neuroml.gpm()
    _, state = rule.update(DENSE, rule.init(DENSE), DENSE, activity=task(0)[0])
    _, after = rule.update(DENSE, state, DENSE, activity=task(0)[1].at[0, 0].set(wrong))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_convolutions_hold_their_patches():
    params = {"kernel": jnp.zeros((2, 2, 2, 3)), "bias": jnp.zeros(3)}
    images = jax.random.normal(KEY, (2, 4, 5, 5, 2)).at[..., 1].multiply(0.1)
    rule = neuroml.gpm(threshold=0.9, windows={"": (1, "VALID")})
    state = learn(rule, rule.init(params), params, images)
    rows = patches(images.reshape(8, 5, 5, 2), (2, 2), padding="VALID").reshape(-1, 8)
    same_space(state.layers[""].basis, state.layers[""].held, by_svd(np.zeros((9, 0)), representation(rows), 0.9))


def test_answers_to_old_inputs_stay_while_new_ones_are_learnt():
    old, new = jnp.eye(6)[:3], jnp.eye(6)[3:]
    tx = optax.chain(optax.adamw(0.1, weight_decay=0.1), neuroml.gpm(threshold=0.999))
    params = {"kernel": jax.random.normal(KEY, (6, 2))}
    _, state = tx.update({"kernel": jnp.zeros((6, 2))}, tx.init(params), params, activity=old)
    state, before = neuroml.consolidate(state, params), old @ params["kernel"]
    loss = lambda params: jnp.mean((jnp.concatenate([old, new]) @ params["kernel"] - 1) ** 2)

    def step(carry, _):  # the gradient asks for other answers to the old inputs too
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params, activity=new)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, state), length=100)
    np.testing.assert_allclose(old @ params["kernel"], before, atol=1e-5)
    assert jnp.abs(new @ params["kernel"] - 1).max() < 0.1 < 1 < jnp.abs(before - 1).max()


def test_a_schedule_consolidates_it():
    rule, batches = neuroml.gpm(threshold=0.9), task(0)
    scheduled = neuroml.every(rule, 3)
    state = scheduled.init(DENSE)
    for x in (*batches, task(1)[0]):
        _, state = scheduled.update(DENSE, state, DENSE, activity=x)
    by_hand = learn(rule, rule.init(DENSE), DENSE, batches).layers[""]
    np.testing.assert_allclose(state.inner.layers[""].basis, by_hand.basis, atol=1e-5)
    assert state.inner.layers[""].held == by_hand.held > 0
