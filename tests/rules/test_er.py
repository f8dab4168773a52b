"""ER: the replayed gradient by hand, and what may be replayed when."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import memory
from neuroml.errors import MissingWordError, UsageError

W = jnp.array([1.0, 2.0])


def loss(w, batch):  # its gradient is the mean example, so that what was replayed can be read off
    return jnp.mean(batch @ w)


def make(store=None, **kwargs):
    rule = neuroml.er(loss, jnp.zeros(2), store or memory.ring(4), **{"batch_size": 8, **kwargs})
    return rule, rule.init(W)


def rows(*values):
    return jnp.array([[value, 10 * value] for value in values], jnp.float32)


def replayed(rule, state, key, batch=None):
    """Returns what the update adds to a gradient of zero, and the state after it."""
    batch = rows(0.0) if batch is None else batch
    return rule.update(jnp.zeros(2), state, W, batch=batch, key=key)


def test_the_gradient_on_stored_examples_is_added(key):
    rule, state = make(strength=0.5)
    added, state = rule.update(jnp.array([7.0, 7.0]), state, W, batch=rows(3.0, 3.0), key=key)
    assert added.tolist() == [7, 7]  # nothing was stored: a batch is not replayed at its own step
    added, state = rule.update(jnp.array([7.0, 7.0]), state, W, batch=rows(5.0), key=key)
    assert added.tolist() == [7 + 0.5 * 3, 7 + 0.5 * 30]
    assert state.memory.items[:3, 0].tolist() == [3, 3, 5]


def test_replay_is_uniform_over_what_is_stored(key):
    rule, state = make(batch_size=4000)
    _, state = replayed(rule, state, key, rows(1.0, 3.0, 8.0))
    added, _ = replayed(rule, state, key)
    spread = np.std([1, 3, 8]) / np.sqrt(4000)
    assert abs(added[0] - 4) < 5 * spread  # the empty fourth slot, a zero, would make it 3
    other, _ = replayed(rule, state, jax.random.fold_in(key, 1))
    assert added[0] != other[0]


def test_the_penalty_is_the_replayed_loss_of_the_same_key(key):
    rule, state = make(strength=2.0, batch_size=1)
    _, state = replayed(rule, state, key, rows(1.0, 3.0, 8.0))
    for i in range(5):
        draw = jax.random.fold_in(key, i)
        added, _ = replayed(rule, state, draw)
        np.testing.assert_allclose(neuroml.penalty(state, W, key=draw), added @ W)


def test_past_replays_nothing_of_the_current_task(key):
    rule, state = make(replay="past")
    for value in (3.0, 3.0):
        added, state = replayed(rule, state, key, rows(value))
        assert added.tolist() == [0, 0]
    state = neuroml.consolidate(state, W)
    for value in (5.0, 5.0):  # the ring now holds two old examples and two new ones
        added, state = replayed(rule, state, key, rows(value))
        assert added.tolist() == [3, 30]
    state = neuroml.consolidate(state, W)
    draws = [replayed(rule, state, jax.random.fold_in(key, i))[0][0] for i in range(20)]
    assert abs(np.mean(draws) - 4) < 5 / np.sqrt(20 * 8)  # each draw is 3 or 5: standard deviation 1


@pytest.mark.parametrize(("weighting", "weights"), [("tasks", (1, 2, 3)), ("constant", (1, 1, 1))])
def test_weighting_by_tasks_counts_consolidations(weighting, weights, key):
    rule, state = make(replay="past", weighting=weighting, strength=0.5)
    _, state = replayed(rule, state, key, rows(3.0))
    for weight in weights:
        state = neuroml.consolidate(state, W)
        added, _ = replayed(rule, state, key)
        assert added[0] == 0.5 * weight * 3
        assert neuroml.penalty(state, W, key=key) == 0.5 * weight * (3 * 1 + 30 * 2)


@pytest.mark.parametrize("replay", ["stored", "past"])
def test_before_anything_is_stored_a_loss_without_gradient_at_blank_examples_does_no_harm(replay, key):
    """Blank examples are zeros, where normalized inputs (x / ||x||) are not a number."""
    unit = lambda w, x: jnp.mean(x / jnp.linalg.norm(x, axis=-1, keepdims=True) @ w)
    rule = neuroml.er(unit, jnp.zeros(2), memory.ring(4), batch_size=2, replay=replay)
    added, state = rule.update(W, rule.init(W), W, batch=jnp.array([[3.0, 4.0]]), key=key)
    assert added.tolist() == W.tolist()
    assert neuroml.penalty(rule.init(W), W, key=key) == 0
    added, _ = rule.update(jnp.zeros(2), neuroml.consolidate(state, W), W, batch=jnp.array([[3.0, 4.0]]), key=key)
    np.testing.assert_allclose(added, [0.6, 0.8])


def test_inside_masked_it_needs_every_weight(key):
    params = {"w": W, "frozen": jnp.float32(3)}
    both = lambda params, batch: params["frozen"] * loss(params["w"], batch)
    tx = optax.masked(neuroml.er(both, jnp.zeros(2), memory.ring(2), batch_size=2), {"w": True, "frozen": False})
    state, zero = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    words = {"batch": rows(1.0), "key": key}
    with pytest.raises(MissingWordError, match="er runs the network and needs `all_params`"):
        tx.update(zero, state, params, **words)
    _, state = tx.update(zero, state, params, **words, all_params=params)
    added, _ = tx.update(zero, state, params, **words, all_params=params)
    assert added["w"].tolist() == [3 * 1, 3 * 10]
    assert added["frozen"] == 0


def test_examples_may_be_trees_and_keep_their_dtypes(key):
    example = {"x": jnp.zeros((2, 2), jnp.uint8), "y": jnp.int32(0)}
    pixel = lambda w, batch: jnp.mean(w * batch["x"].astype(jnp.float32).sum((1, 2)) * batch["y"])
    rule = neuroml.er(pixel, example, memory.reservoir(4), batch_size=2)
    batch = {"x": jnp.full((3, 2, 2), 200, jnp.uint8), "y": jnp.full(3, 2)}
    _, state = rule.update(W[0], rule.init(W[0]), W[0], batch=batch, key=key)
    assert state.memory.items["x"].dtype == jnp.uint8
    assert rule.update(jnp.float32(0), state, W[0], batch=batch, key=key)[0] == 4 * 200 * 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"replay": "pasts"}, "Did you mean 'past'"),
        ({"weighting": "task"}, "Did you mean 'tasks'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_cannot_be_is_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        make(**kwargs)
