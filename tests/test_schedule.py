"""Schedules consolidate as a user would by hand: every so many steps, or when the loss jumps."""

import dataclasses

import chex
import domains
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import cost, schedule
from neuroml.errors import MissingWordError, UsageError

START = {"w": jnp.array([1.0, -1.0]), "b": jnp.array(0.5)}
BATCHES = jax.random.normal(jax.random.key(5), (8, 4, 2))


def loss(params, batch):
    return jnp.mean((batch @ params["w"] + params["b"] - 1) ** 2)


def importance(params, batch):
    return jax.tree.map(jnp.square, jax.grad(loss)(params, batch))


def from_batch(params, *, batch, **_):
    return {"importance": importance(params, batch)}


@pytest.mark.parametrize("rule", ["ewc", "si"])
def test_every_is_consolidating_by_hand_after_so_many_updates(rule):
    make, words = {
        "ewc": (lambda: neuroml.ewc(2.0, decay=0.5), from_batch),
        "si": (lambda: neuroml.si(2.0), None),
    }[rule]
    by_itself = optax.chain(schedule.every(make(), 3, context=words), optax.sgd(0.1))
    by_hand = optax.chain(make(), optax.sgd(0.1))
    left, right = START, START
    left_state, right_state = by_itself.init(left), by_hand.init(right)
    update_left, update_right = jax.jit(by_itself.update), jax.jit(by_hand.update)
    for i, batch in enumerate(BATCHES):
        if i in (3, 6):
            right_state = neuroml.consolidate(right_state, right, **(from_batch(right, batch=batch) if words else {}))
        grads = jax.grad(loss)
        steps, left_state = update_left(grads(left, batch), left_state, left, batch=batch)
        left = optax.apply_updates(left, steps)
        steps, right_state = update_right(grads(right, batch), right_state, right)
        right = optax.apply_updates(right, steps)
        chex.assert_trees_all_close(left, right, rtol=1e-6)
        assert left_state[0].consolidations == i // 3
    chex.assert_trees_all_close(left_state[0].inner, right_state[0], rtol=1e-5)
    assert neuroml.penalty(left_state, left) > 1e-4
    assert neuroml.penalty(left_state, left) == pytest.approx(float(neuroml.penalty(right_state, right)), rel=1e-4)


def test_what_fires_now_and_then_is_charged_for_by_its_period():
    """And at a period that is not known while tracing for every step."""
    rule, w = neuroml.ewc(1.0), jnp.eye(10)
    product = lambda params, **_: {"importance": params @ params}

    def take(tx):
        return tx.update(w, tx.init(w), w, value=1.0)[0]

    of = lambda steps: cost.flops(lambda: take(schedule.every(rule, steps, context=product)))
    assert [of(1), of(10), of(jnp.int32(100))] == [2000, 200, 20]
    assert cost.flops(lambda steps: take(schedule.every(rule, steps, context=product)), 10) == 2000
    assert cost.flops(lambda: take(schedule.on_surprise(rule, context=product))) == 40  # at most once in 50 steps


def test_a_method_that_consolidates_every_so_many_steps_costs_less_the_rarer():
    price = lambda steps: _price(dataclasses.replace(toy.experiment("ewc_every"), options={"steps": steps}))
    often, seldom, hardly = price(1), price(10), price(1000)
    assert often > seldom > hardly >= _price(toy.experiment("naive"))
    np.testing.assert_allclose((often - hardly) / (seldom - hardly), (1 - 1e-3) / (0.1 - 1e-3))


def _price(experiment):
    return experiment.cost(jax.random.key(0), toy.numbers_of(experiment), toy.dataset())[1]


WHEN_TOLD = schedule.Detector(init=lambda: (), step=lambda state, *, task, **_: (task == 1, state))


def test_what_is_kept_is_what_was_there_before_the_step_that_fires():
    """And every rule inside is told, whatever the chain that was wrapped."""
    inner = optax.chain(neuroml.ewc(1.0), neuroml.si(1.0), optax.sgd(0.1))
    tx = schedule.scheduled(inner, WHEN_TOLD, context=lambda params, **_: {"importance": jnp.ones(2)})
    w, state = jnp.zeros(2), tx.init(jnp.zeros(2))
    for task in (0, 0, 1, 0):
        before = w
        steps, state = tx.update(jnp.ones(2), state, w, task=task)
        w = optax.apply_updates(w, steps)
        if task == 1:
            kept = before
    ewc, si = state.inner[:2]
    np.testing.assert_allclose(kept, -0.2, rtol=1e-6)
    np.testing.assert_array_equal(ewc.anchor, kept)
    np.testing.assert_array_equal(si.anchor, kept)
    assert ewc.importance.tolist() == [1, 1] and (si.importance > 0).all()
    assert state.consolidations == 1


def test_by_hand_still_reaches_the_rule_inside():
    for tx in (schedule.every(neuroml.ewc(2.0), 10), schedule.on_surprise(neuroml.ewc(2.0))):
        state = optax.chain(tx, optax.sgd(0.1)).init(jnp.zeros(2))
        state = neuroml.consolidate(state, jnp.zeros(2), importance=jnp.ones(2))
        assert neuroml.penalty(state, jnp.ones(2)) == 2
        assert "ewc" in neuroml.describe(state).lower()
        assert state[0].consolidations == 0  # this counts what the schedule did


def test_the_number_of_steps_may_differ_along_a_vmap():
    def fired(steps):
        tx = schedule.every(neuroml.si(1.0), steps)
        walk = lambda state, _: (tx.update(jnp.ones(2), state, jnp.ones(2))[1], None)
        return jax.lax.scan(walk, tx.init(jnp.ones(2)), length=13)[0].consolidations

    assert jax.vmap(fired)(jnp.array([1, 3, 6, 20])).tolist() == [12, 4, 2, 0]


def test_mistakes_are_named():
    for steps in (0, jnp.int32(0), jnp.float32(1.5), jnp.float32(jnp.inf)):
        with pytest.raises(UsageError, match=f"steps={steps} must be a whole number"):
            schedule.every(neuroml.si(1.0), steps)
    w = jnp.zeros(2)
    tx = optax.chain(schedule.on_surprise(neuroml.si(1.0)))
    with pytest.raises(MissingWordError, match="surprise needs `value`: the loss"):
        tx.update(w, tx.init(w), w)
    tx = schedule.every(neuroml.ewc(1.0), 2)  # without a context nobody gives it the importance
    with pytest.raises(MissingWordError, match="EWCState.consolidate needs `importance`"):
        tx.update(w, tx.init(w), w)
    tx = optax.masked(schedule.every(neuroml.ewc(1.0), 2, context=from_batch), {"w": True, "b": False})
    with pytest.raises(MissingWordError, match="`all_params`"):
        tx.update(START, tx.init(START), START, batch=BATCHES[0])
    tx.update(START, tx.init(START), START, batch=BATCHES[0], all_params=START)


def fires(losses, **settings):
    """Returns the steps at which `surprise` fires on a sequence of losses [..., steps]."""
    detector = schedule.surprise(**settings)

    def one(losses):
        step = lambda state, value: detector.step(state, value=value)[::-1]
        return jax.lax.scan(step, detector.init(), losses)[1]

    found = np.asarray(jnp.vectorize(one, signature="(n)->(n)")(jnp.asarray(losses, jnp.float32)))
    return [np.flatnonzero(row).tolist() for row in np.atleast_2d(found)]


def test_surprise_by_hand():
    settings = {"ratio": 2.0, "margin": 1.0, "patience": 3}
    # The short mean is the loss itself, the long one stays at 1: fires above 2 * 1 + 1.
    stiff = settings | {"fast_decay": 0.0, "slow_decay": 1.0}
    assert fires([[1.0, 1, 1, 2.9], [1, 1, 1, 3.1]], **stiff) == [[], [3]]
    # It begins anew after firing: in the three steps that follow nothing fires, and the first of them is the new level.
    assert fires([[1.0, 1, 1, 9, 1, 9, 9, 3.1], [1, 1, 1, 9, 9, 9, 9, 18.9]], **stiff) == [[3, 7], [3]]
    # Down it goes at once, so the fall from 9 is forgotten.
    assert fires([9.0, 9, 9, 1, 3.1], **stiff) == [[4]]
    # After 1, 1, 1, v the short mean is 1 + (v - 1) / 4, and the long one has gone up a quarter of that: v > 17 fires.
    soft = settings | {"fast_decay": 0.9, "slow_decay": 0.75}
    assert fires([[1.0, 1, 1, 16.9], [1, 1, 1, 17.1]], **soft) == [[], [3]]


NOISE = np.random.default_rng(0).lognormal(0.0, 0.5, (20, 2000))  # a heavy tail, as single batches have


def test_surprise_fires_once_at_a_jump_and_not_on_noise_or_decline():
    steps = np.arange(2000)
    calm = 0.3 * NOISE
    assert fires(calm) == [[]] * 20
    assert fires(2 * np.exp(-steps / 200) * NOISE**0.5) == [[]] * 20
    jump = calm + np.where(steps >= 1000, 2 * np.exp(-(steps - 1000.0).clip(0) / 50), 0)
    at = fires(jump)
    assert all(len(row) == 1 for row in at) and all(1000 <= row[0] < 1006 for row in at)
    assert fires(jump + 5) == [[]] * 20  # small beside a loss of 5


def test_losses_of_single_examples_are_no_surprise_to_who_looks_back_far_enough():
    """Most are near zero and a few are large, as with batches of one."""
    single = np.random.default_rng(1).gamma(0.2, 1.5, (10, 5000))
    assert all(fires(single))
    assert fires(single, fast_decay=0.98) == [[]] * 10
    jump = np.concatenate([single, single + 3], axis=1)
    assert all(row and 5000 <= row[0] < 5050 for row in fires(jump, fast_decay=0.98))


def test_a_loss_that_is_not_finite_is_passed_over():
    losses = [1.0, 1, 1, 3.1, 1]
    stiff = {"ratio": 2.0, "margin": 1.0, "patience": 3, "fast_decay": 0.0, "slow_decay": 1.0}
    assert fires([np.nan, *losses[:2], np.inf, *losses[2:]], **stiff) == [[5]] and fires(losses, **stiff) == [[3]]


@pytest.mark.parametrize(("gap", "patience", "expected"), [(30, 50, 1), (60, 50, 2), (60, 100, 1)])
def test_surprise_has_patience(gap, patience, expected):
    steps = np.arange(600)
    twice = 0.1 + 3 * ((steps >= 300) & (steps < 310)) + 3 * ((steps >= 300 + gap) & (steps < 310 + gap))
    (at,) = fires(twice, patience=patience)
    assert len(at) == expected and at[0] in range(300, 303)
    assert fires(twice, margin=float("inf")) == [[]], "never"
    early = 0.1 + 3 * ((steps >= 10) & (steps < 15))  # what comes first is no surprise
    assert fires(early, patience=patience) == [[]] != fires(early, patience=0)


@pytest.mark.parametrize(
    "settings",
    [{"fast_decay": 1.5}, {"slow_decay": -2.0}, {"patience": -5}, {"ratio": -1}, {"margin": float("nan")}],
    ids=str,
)
def test_settings_of_surprise_that_mean_nothing(settings):
    (name,) = settings
    with pytest.raises(UsageError, match=f"`{name}` in .*, but {name}="):
        schedule.surprise(**settings)


PHASE, SEEDS = 150, range(6)


@pytest.mark.parametrize("optimizer", [optax.adam(1e-2), optax.sgd(0.1)], ids=["adam", "sgd"])
def test_surprise_finds_the_changes_of_task_in_training(optimizer):
    """Tasks 0, 1, 0, 1 with nobody telling; in a chain, in a scan, in a vmap over seeds and strengths."""
    entropy = optax.softmax_cross_entropy_with_integer_labels

    def run(strength, params, batches):
        tx = optax.chain(schedule.on_surprise(neuroml.si(strength)), optimizer)

        def step(carry, batch):
            params, state = carry
            objective = lambda p: entropy(domains.network(p, batch[0]), batch[1]).mean()
            value, grads = jax.value_and_grad(objective)(params)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), (value, state[0].consolidations)

        return jax.lax.scan(step, (params, tx.init(params)), batches)[1]

    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    stream = lambda s: [b for i, t in enumerate((0, 1, 0, 1)) for b in domains.batches(s + 100 * i, t, PHASE, 16)]
    params, batches = stack([domains.weights(s) for s in SEEDS]), stack([stack(stream(s)) for s in SEEDS])
    over_seeds = jax.vmap(run, (None, 0, 0))
    losses, counts = jax.jit(jax.vmap(over_seeds, (0, None, None)))(jnp.array([0.0, 1.0]), params, batches)
    at = [np.flatnonzero(np.diff(row, prepend=0)).tolist() for row in np.asarray(counts[0])]
    changes = [PHASE, 2 * PHASE, 3 * PHASE]
    found = sum(any(change <= t < change + 5 for t in row) for row in at for change in changes)
    recall, precision = found / (len(changes) * len(SEEDS)), found / sum(map(len, at))
    returned = np.asarray(losses[:, :, 2 * PHASE : 2 * PHASE + 3]).mean((1, 2))  # to task 0, first batches
    print("recall", recall, "precision", precision, "loss at the return", returned)
    assert recall > 0.9 and precision > 0.9, at
    assert (np.asarray(counts[1, :, 2 * PHASE - 1]) == 1).all()
    assert returned[1] < 0.5 * returned[0]  # what it consolidated by itself, it remembers
