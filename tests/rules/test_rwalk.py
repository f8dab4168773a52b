"""RWalk: a walk written out in numpy, the scale of both measures, and scores that are averaged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError

START = {"b": jnp.array([0.3]), "w": jnp.array([1.0, -2.0, 0.5])}
DAMPING, DECAY, RATE = 0.05, 0.8, 0.1


def loss(params):
    return jnp.sum(jnp.cos(3 * params["w"] * params["b"]) + params["w"] ** 2) + params["b"].sum() ** 4


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)])


def walk(tx, params, state, steps):
    """Returns weights and state after some steps, the weights on the way and the gradients there."""
    places, gradients = [flat(params)], []
    for _ in range(steps):
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        places.append(flat(params))
        gradients.append(flat(grads))
    return params, state, np.array(places), np.array(gradients)


def by_hand(fisher, places, gradients, every):
    """Returns the running Fisher diagonal after the walk, and the walk's score, interval by interval."""
    path, count = np.zeros(4), len(gradients)
    for first in range(0, count, every):
        end = min(first + every, count)
        for t in range(first, end):
            fisher = DECAY * fisher + (1 - DECAY) * gradients[t] ** 2
        credit = sum(-gradients[t] * (places[t + 1] - places[t]) for t in range(first, end))
        path += np.maximum(credit, 0) / (fisher * (places[end] - places[first]) ** 2 / 2 + DAMPING)
    return fisher, path


@pytest.mark.parametrize("every", [1, 3, 100])
def test_two_walks_are_those_of_numpy(every):
    """Seven steps: two intervals of three and one that the consolidation closes early. Without a pull, and with one."""
    tx = optax.chain(neuroml.rwalk(0.02, decay=DECAY, damping=DAMPING, every=every), optax.sgd(RATE, momentum=0.5))
    params, state, places, gradients = walk(tx, START, tx.init(START), 7)
    fisher, first = by_hand(np.zeros(4), places, gradients, every)
    state = neuroml.consolidate(state, params)
    np.testing.assert_allclose(flat(state[0].fisher), fisher, rtol=1e-4)
    np.testing.assert_allclose(flat(state[0].score), first / 2, rtol=1e-3, atol=1e-6)
    expected = fisher / fisher.max() + first / first.max()
    np.testing.assert_allclose(flat(state[0].importance), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(flat(state[0].anchor), places[-1])
    state = (state[0]._replace(count=jnp.int32(0)), *state[1:])  # intervals of this walk begin with it, as by hand
    params, state, places, gradients = walk(tx, params, state, 6)
    fisher, second = by_hand(fisher, places, gradients, every)
    state = neuroml.consolidate(state, params)
    np.testing.assert_allclose(flat(state[0].fisher), fisher, rtol=1e-3)
    np.testing.assert_allclose(flat(state[0].score), first / 4 + second / 2, rtol=1e-3, atol=1e-5)


def test_the_longer_the_interval_the_less_a_detour_earns():
    """There and back with opposite gradients: each step earns, the whole way is rewarded once."""
    scores = {}
    for every in (1, 2):
        rule = neuroml.rwalk(1.0, decay=0.0, damping=1.0, every=every)
        w = jnp.array([0.0])
        _, state = rule.update(jnp.array([1.0]), rule.init(w), w)
        _, state = rule.update(jnp.array([-1.0]), state, jnp.array([-1.0]))
        scores[every] = float(neuroml.consolidate(state, jnp.array([0.0])).score[0])
    assert scores[1] == pytest.approx(2 * (1 / (0.5 + 1)) / 2)
    assert scores[2] == pytest.approx((2 / (0 + 1)) / 2)


def test_a_walk_uphill_earns_nothing():
    rule = neuroml.rwalk(1.0)
    w = jnp.array([0.0])
    _, state = rule.update(jnp.array([1.0]), rule.init(w), w)
    state = neuroml.consolidate(state, jnp.array([2.0]))
    assert state.score.tolist() == [0.0] and state.importance.tolist() == [1.0]  # what the Fisher diagonal says


def test_the_pull_goes_to_the_anchor():
    rule = neuroml.rwalk(0.5)
    w = jnp.array([1.0, 1.0])
    _, state = rule.update(jnp.array([2.0, 1.0]), rule.init(w), w)
    state = neuroml.consolidate(state, w)  # nothing moved, so F / max(F) alone counts: 1 and 1/4
    pulled, _ = rule.update(jnp.zeros(2), state, w + 3)
    np.testing.assert_allclose(pulled, [2 * 0.5 * 1 * 3, 2 * 0.5 * 0.25 * 3], rtol=1e-6)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(UsageError, match="every=0"):
        neuroml.rwalk(1.0, every=0)


def test_a_gradient_that_is_no_number_changes_no_score():
    tx, params = neuroml.rwalk(1.0, decay=0.5), jnp.zeros(2)
    state = tx.init(params)
    for step, gradient in enumerate(([1.0, 1.0], [jnp.nan, 1.0], [1.0, jnp.inf], [1.0, 1.0])):
        _, state = tx.update(jnp.array(gradient), state, params - step)
    np.testing.assert_allclose(state.fisher, [0.875, 0.875])
    state = neuroml.consolidate(state, params - 4.0)
    assert np.isfinite(state.importance).all() and (state.score > 0).all()
