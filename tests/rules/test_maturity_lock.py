"""Maturity locks: steadiness, surprise and lock in numpy, each apart."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from table import WIRING, init_params

import neuroml

KEY = jax.random.key(0)
STEP = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), init_params())
STEADY = jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
SHORT = {"fast_decay": 0.9, "slow_decay": 0.99}


def run(tx, answers, losses):
    """Returns the lock of each neuron at each step, and the last state."""
    params, seen = init_params(), []
    state = tx.init(params)
    for rows, loss in zip(answers, losses, strict=True):
        activity = {"hidden": jnp.ones((len(rows), 4)), "head": jnp.asarray(rows)}
        given, state = tx.update(STEP, state, params, activity=activity, value=jnp.float32(loss))
        chex.assert_trees_all_equal(given["head"], STEP["head"])
        lock = np.asarray(given["hidden"]["bias"]) / 0.1
        np.testing.assert_allclose(given["hidden"]["kernel"], np.tile(0.1 * lock, (4, 1)), rtol=1e-6)
        seen.append(lock)
    return np.array(seen), state


def test_it_is_its_equation():
    noise = np.array([0.0, 0.1, 0.3, 1.0, 3.0])
    answers = 2 + noise * np.asarray(jax.random.normal(KEY, (40, 3, 5)))
    losses = np.concatenate([np.linspace(3, 0.3, 25), [4.0, 4.0], np.full(13, 0.3)])
    settings = {"rate": 0.3, "tolerance": 0.05, "ratio": 1.5, "margin": 0.1, "dissolution": 0.4}
    locks, state = run(neuroml.maturity_lock(WIRING, 0.8, fast_decay=0.5, slow_decay=0.9, **settings), answers, losses)
    maturity, fast, slow, fast_loss, slow_loss, surprises = np.zeros(5), np.zeros(5), np.zeros(5), 0.0, 0.0, 0
    ever, never = np.zeros(5, bool), np.zeros(5, bool)
    for number, (rows, loss) in enumerate(zip(answers, losses, strict=True)):
        fast_rate, slow_rate = max(0.5, 1 / (number + 1)), max(0.1, 1 / (number + 1))
        fast += fast_rate * (np.abs(rows).mean(0) - fast)
        slow += slow_rate * (np.abs(rows).mean(0) - slow)
        steady = np.abs(fast - slow) <= 0.05 * slow
        fast_loss += fast_rate * (loss - fast_loss)
        slow_loss += slow_rate * (loss - slow_loss)
        surprised = fast_loss > 1.5 * slow_loss + 0.1
        maturity += 0.3 * (1 - maturity) * steady
        maturity *= 0.6 if surprised else 1
        surprises, ever, never = surprises + surprised, ever | steady, never | ~steady
        np.testing.assert_allclose(locks[number], 1 - 0.8 * maturity, rtol=1e-4, atol=1e-5)
    assert 0 < surprises < 10 and not never[0] and (ever & never).any(), "each branch must have been taken"
    np.testing.assert_allclose(state.report()["maturity"], maturity.mean(), rtol=1e-4)
    assert state.report()["surprises"] == surprises


def test_steady_neurons_lock_and_others_do_not():
    answers = np.tile(STEADY, (200, 1, 1))
    answers[:, :, 1] += np.where(np.arange(200) % 40 < 20, 10, 0)[:, None]  # changes its mind again and again
    answers[:, :, 2] = 0  # silent
    locks, _ = run(neuroml.maturity_lock(WIRING, 1.0, rate=0.05, **SHORT), answers, np.full(200, 0.5))
    assert locks[-1][0] < 0.01 and locks[-1][1] > 0.05 and locks[-1][2] == 1
    assert (np.diff(locks[:, 0]) < 0).all()


def test_surprise_opens_the_lock_and_calm_closes_it():
    answers, losses = np.tile(STEADY, (200, 1, 1)), np.full(200, 0.1)
    losses[100:105] = 5.0
    locks, state = run(neuroml.maturity_lock(WIRING, 1.0, rate=0.05, **SHORT), answers, losses)
    assert locks[99].max() < 0.01 and locks[105].min() > 0.9 and locks[-1].max() < 0.2
    assert 5 <= state.report()["surprises"] < 60
    calm, _ = run(neuroml.maturity_lock(WIRING, 1.0, rate=0.05, dissolution=0.0, **SHORT), answers, losses)
    assert calm[105].max() < 0.01


def test_single_examples_are_no_surprise_but_something_new_is():
    tx, params, draw = neuroml.maturity_lock(WIRING), init_params(), np.random.default_rng(0)
    known = np.where(draw.random(20_000) < 0.85, draw.exponential(0.05, 20_000), draw.exponential(2.0, 20_000))
    new = np.where(draw.random(300) < 0.1, draw.exponential(0.05, 300), draw.exponential(3.0, 300))
    activity = {"hidden": jnp.ones((1, 4)), "head": STEADY}

    def step(state, loss):
        _, state = tx.update(STEP, state, params, activity=activity, value=loss)
        return state, state.report()["maturity"]

    _, maturity = jax.lax.scan(step, tx.init(params), jnp.asarray(np.concatenate([known, new]), jnp.float32))
    assert maturity[5_000:20_000].min() > 0.9
    assert maturity[20_100] < 0.1, "a hundred examples of something new are enough"


def test_first_losses_that_are_not_finite_are_not_counted():
    tx = neuroml.maturity_lock(WIRING, 1.0, rate=0.5, **SHORT)
    _, state = run(tx, np.tile(STEADY, (6, 1, 1)), [np.nan, np.inf, np.nan, 1.0, 1.0, 1.0])
    assert state.fast == state.slow == 1 and state.count == 3


def test_what_is_not_finite_is_passed_over():
    answers, losses = np.tile(STEADY, (5, 1, 1)), [0.1, 0.1, np.nan, np.inf, 0.1]
    answers[2, 0, 0], answers[3, 0, 1] = np.nan, np.inf
    tx = neuroml.maturity_lock(WIRING, 1.0, rate=0.5)
    locks, state = run(tx, answers, losses)
    np.testing.assert_allclose(locks[-1], [1 / 16, 1 / 16, 1 / 32, 1 / 32, 1 / 32], rtol=1e-5)  # two missed a batch
    assert state.report()["surprises"] == 0


def test_a_loss_that_is_not_finite_dissolves_nothing():
    tx = neuroml.maturity_lock(WIRING, 1.0, rate=0.5, fast_decay=0.0, slow_decay=0.9)
    locks, state = run(tx, np.tile(STEADY, (6, 1, 1)), [0.1, 0.1, 0.1, 9.0, np.nan, np.inf])
    assert state.report()["surprises"] == 1 and (np.diff(locks[3:], axis=0) < 0).all()


def test_the_control_locks_other_neurons():
    answers = np.tile(STEADY, (60, 1, 1))
    answers[:, :, :3] *= 1 + np.arange(60)[:, None, None] % 7  # three of them are never steady for long
    tx = lambda shuffled: neuroml.maturity_lock(WIRING, rate=0.05, tolerance=0.01, shuffled=shuffled, **SHORT)
    real, control = (run(tx(shuffled), answers, np.ones(60))[0][-1] for shuffled in (False, True))
    assert not np.allclose(real, control)
    np.testing.assert_array_equal(np.sort(real), np.sort(control))
