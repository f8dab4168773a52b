"""GDumb: what it trains is what a loop of one's own trains on its memory, and nothing else teaches it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import losses, memory
from neuroml.errors import UsageError
from neuroml.gdumb import gdumb
from neuroml.learner import Task
from neuroml.streams.stream import Batch

NET = neuroml.mlp((3, 3, 1), [5], 4)
TASK = Task(NET, 1.0)
EXAMPLE = Batch(jnp.zeros((3, 3, 1)), jnp.int32(0), jnp.int32(0), jnp.ones(4, bool))
KEY = jax.random.key(0)


def batch(*labels, seed=0):
    x = jax.random.normal(jax.random.key(seed), (len(labels), 3, 3, 1))
    return Batch(x, jnp.array(labels), jnp.zeros(len(labels), int), jnp.ones((len(labels), 4), bool))


def make(store=None, **given):
    kept = memory.ring(1) if store is None else store
    return toy.compiled(gdumb(TASK, optax.sgd(0.3), EXAMPLE, kept, **{"steps": 5, "batch_size": 2} | given))


def shown(learner, *batches):
    state = learner.init(KEY)
    for data in batches:
        state, _ = learner.step(state, data, jax.random.key(1))
    return state


def test_settling_trains_a_fresh_network_on_the_memory_alone_with_a_falling_rate():
    """A memory of one leaves nothing to chance; the rate of step i of 5 is written out."""
    learner, data = make(), batch(2, 1, seed=3)
    state = learner.settle(shown(learner, batch(0, 3), data))
    last = jax.tree.map(lambda leaf: leaf[-1:], data)
    loss = lambda params: losses.cross_entropy(NET.apply(params, {}, last.x)[0], last.y)
    params = NET.init(KEY)[0]
    for i in range(5):
        rate = 0.3 * (0.01 + 0.99 * (1 + np.cos(np.pi * i / 5)) / 2)
        params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, jax.grad(loss)(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, params)


def test_steps_only_store_and_report_of_the_network_as_it_is():
    learner, data = make(memory.ring(4)), batch(0, 1, 1)
    start = learner.init(KEY)
    state, info = learner.step(start, data, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, state.params, NET.init(KEY)[0])
    assert state.opt_state.memory.items.y[:3].tolist() == [0, 1, 1]
    logits = NET.apply(start.params, {}, data.x)[0]
    np.testing.assert_allclose(info.loss, -jax.nn.log_softmax(logits)[jnp.arange(3), data.y].mean(), rtol=1e-5)
    np.testing.assert_allclose(info.accuracy, (logits.argmax(1) == data.y).mean())


def test_settling_twice_is_settling_once_and_more_is_learnt_from_more():
    learner = make(memory.ring(8), steps=200, batch_size=4)
    state = learner.settle(shown(learner, batch(0, 1, seed=1)))
    again = learner.settle(state)
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    both = learner.settle(learner.step(state, batch(2, 3, seed=2), jax.random.key(1))[0])
    right = lambda state, data: (learner.predict(state, data).argmax(1) == data.y).mean()
    assert right(state, batch(0, 1, seed=1)) == 1 and right(state, batch(2, 3, seed=2)) == 0
    assert right(both, batch(0, 1, seed=1)) == 1 and right(both, batch(2, 3, seed=2)) == 1


def test_with_nothing_stored_settling_changes_nothing():
    learner = make()
    state = learner.init(KEY)
    jax.tree.map(np.testing.assert_array_equal, learner.settle(state), state)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_it_draws_by_the_generator_of_its_key(kind):
    """With a rate of 0 what settles is the fresh network of the same key."""
    learner = toy.compiled(gdumb(TASK, optax.sgd(0.0), EXAMPLE, memory.ring(1), steps=1, batch_size=1))
    state, _ = learner.step(learner.init(jax.random.key(0, impl=kind)), batch(1), jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), learner.settle(state).params, state.params)


@pytest.mark.parametrize("name", ["steps", "batch_size"])
def test_what_cannot_be_is_refused(name):
    with pytest.raises(UsageError, match=f"{name}=0"):
        make(**{name: 0})
