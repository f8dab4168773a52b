"""Learners that are told the task: networks do not meet, and silent neurons neither answer nor learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from benchmarks import suite
from benchmarks.jobs import jobs_of
from neuroml import contexts, surgery, units
from neuroml.errors import UsageError
from neuroml.learner import Task, make_learner
from neuroml.streams.stream import Batch

NET = neuroml.mlp((3, 3, 1), [10], 4)
TASK = Task(NET, 1.0)


def batch(task, n=6):
    x = jax.random.normal(jax.random.key(task), (n, 3, 3, 1))
    active = jnp.arange(4) // 2 == task % 2
    return Batch(x, jnp.arange(n) % 2 + 2 * (task % 2), jnp.full(n, task), jnp.tile(active, (n, 1)))


def taught(learner, task, steps=5):
    state = learner.init(jax.random.key(0))
    step = jax.jit(learner.step)
    for i in range(steps):
        state, _ = step(state, batch(task), jax.random.key(i))
    return state


def test_separate_networks_are_the_inner_learner_each_and_leave_the_others_alone():
    inner = make_learner(TASK, optax.adam(0.01))
    learner, inner = toy.compiled(contexts.separate(inner, 2)), toy.compiled(inner)
    start, after = learner.init(jax.random.key(0)), taught(learner, 1)
    alone = jax.vmap(inner.init)(jax.random.split(jax.random.key(0), 2))
    alone = jax.tree.map(lambda leaf: leaf[1], alone)
    for i in range(5):
        alone, _ = inner.step(alone, batch(1), jax.random.key(i))
    at = lambda number: lambda leaf: leaf[number]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), jax.tree.map(at(1), after), alone)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(at(0), after), jax.tree.map(at(0), start))
    np.testing.assert_allclose(learner.predict(after, batch(1)), inner.predict(alone, batch(1)), atol=1e-5)


def test_what_consolidates_or_settles_does_so_in_the_copy_of_its_task():
    ewc = optax.chain(neuroml.ewc(strength=1.0), optax.sgd(0.1))
    ones = lambda predict, params, examples, key: jax.tree.map(jnp.ones_like, params)
    learner = contexts.separate(make_learner(TASK, ewc, ones), 2)
    before = learner.init(jax.random.key(0))
    after = learner.consolidate(before, batch(1), jax.random.key(1))
    pairs = zip(*map(jax.tree.leaves, (before, after)), strict=True)
    changed = [np.any(a != b, axis=tuple(range(1, a.ndim))) for a, b in pairs]
    assert np.any(changed, axis=0).tolist() == [False, True]
    settling = make_learner(TASK, optax.sgd(0.1))._replace(
        settle=lambda state: state._replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    )
    settled = contexts.separate(settling, 2).settle(before._replace(opt_state=optax.EmptyState()))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a + 1, b), before.params, settled.params)


def test_a_stream_that_mixes_tasks_is_refused():
    mixed = toy.experiment("separate", scenario="task", window=4)
    with pytest.raises(UsageError, match="those of this stream mix tasks"):
        mixed.begin(jax.random.key(0), toy.numbers_of(mixed), toy.dataset())


def test_some_neurons_always_answer():
    off = contexts.gated(TASK, optax.sgd(0.1), 2, 0.97).init(jax.random.key(0)).opt_state.off["hidden_0"]
    assert off.sum(1).tolist() == [9, 9]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_silent_neurons_are_as_many_in_every_task_and_neither_answer_nor_learn(share):
    learner = toy.compiled(contexts.gated(TASK, optax.sgd(0.1), 3, share))
    start, after = learner.init(jax.random.key(0)), taught(learner, 1)
    off = start.opt_state.off["hidden_0"]
    np.testing.assert_array_equal(off.sum(1), round(10 * share))
    if share:
        assert len({tuple(row) for row in np.asarray(off)}) > 1, "every task silences the same neurons"
    silent = np.asarray(off[1])
    moved = np.asarray(abs(after.params["layers"][0]["kernel"] - start.params["layers"][0]["kernel"]).sum(0)) > 0
    assert not (moved & silent).any() and (moved.any() or share == 1)
    outgoing = np.asarray(abs(after.params["head"]["kernel"] - start.params["head"]["kernel"]).sum(1))
    assert not outgoing[silent].any(), "a silent neuron answered"
    found = units.find(NET.wiring(after.params), after.params)
    gone = surgery.entering(found, after.params, {"hidden_0": off[1]})
    cut = jax.tree.map(lambda leaf, out: jnp.where(out, 0, leaf), after.params, gone)
    np.testing.assert_allclose(learner.predict(after, batch(1)), TASK.predict(cut, batch(1)), rtol=1e-5)


def test_a_share_of_zero_is_the_plain_learner():
    plain, learner = make_learner(TASK, optax.adam(0.01)), contexts.gated(TASK, optax.adam(0.01), 2, 0.0)
    jax.tree.map(np.testing.assert_array_equal, taught(plain, 0).params, taught(learner, 0).params)


def test_gates_differ_between_seeds_of_one_vmap():
    learner = contexts.gated(TASK, optax.sgd(0.1), 2, 0.5)
    off = jax.vmap(learner.init)(jax.random.split(jax.random.key(0), 4)).opt_state.off["hidden_0"]
    assert len({row.tobytes() for row in np.asarray(off)}) == 4


def test_bad_input_is_named():
    with pytest.raises(UsageError, match=r"share=1\.0"):
        contexts.gated(TASK, optax.sgd(0.1), 2, 1.0)
    bare = TASK._replace(network=NET._replace(wiring=None))
    with pytest.raises(UsageError, match="no wiring"):
        contexts.gated(bare, optax.sgd(0.1), 2, 0.5).init(jax.random.key(0))
    normed = TASK._replace(network=neuroml.mlp((3, 3, 1), [10], 4, layer_norm=True))
    with pytest.raises(UsageError, match="norms/0/bias belongs to neurons.*silent neurons answer"):
        contexts.gated(normed, optax.sgd(0.1), 2, 0.5).init(jax.random.key(0))
    for scenario in ("class", "domain"):
        with pytest.raises(UsageError, match="xdg .*means nothing in a .*--scenario task"):
            jobs_of(suite.load("split_digits"), ["xdg"], [scenario])
    with pytest.raises(UsageError, match="separate .*of a suite that has it"):
        jobs_of(suite.load("split_mnist_online"), ["separate"], ["class"])
