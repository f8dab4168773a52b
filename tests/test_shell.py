"""A shell is a network of its own, the core is untouched by it, and it may begin each task from the core."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml.errors import UsageError
from neuroml.learner import LearnerState, Task, inner_state, make_learner
from neuroml.shell import STARTS, shelled
from neuroml.streams.stream import Batch

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("shell")

TASK = Task(neuroml.mlp((4, 4, 1), [6], 3), 255.0)
CORE = make_learner(TASK, optax.chain(optax.sgd(0.1), neuroml.condensate_projector(scale=0.1)), activity=True)
SHELL = make_learner(TASK, optax.sgd(0.1, momentum=0.9))
KEY, END = jax.random.key(3), jax.random.key(4)


def batches(steps):
    random = np.random.default_rng(0)
    for _ in range(steps):
        x = random.integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)
        yield jax.tree.map(jnp.asarray, Batch(x, random.integers(0, 3, 5), np.zeros(5, int), np.ones((5, 3), bool)))


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one, other)


def trained(agent, steps=6, ends=(2, 5)):
    """Returns the states after each step, and what the steps said; a task ends after the steps in `ends`."""
    state, states, infos = agent.init(KEY), [], []
    for number, batch in enumerate(batches(steps)):
        state, info = agent.step(state, batch, jax.random.fold_in(KEY, number))
        if number in ends:
            state = agent.consolidate(state, batch, END)
        states.append(state)
        infos.append(info)
    return states, infos


AGENT = toy.compiled(shelled(CORE, SHELL))


def test_the_core_never_learns_of_the_shell():
    mine, _ = trained(AGENT)
    alone, _ = trained(toy.compiled(CORE))
    for one, other in zip(mine, alone, strict=True):
        same(inner_state(one), other)
    (batch,) = batches(1)
    same(AGENT.predict(mine[-1], batch), CORE.predict(alone[-1], batch))


@pytest.mark.parametrize("start", STARTS)
def test_the_shell_is_a_network_of_its_own_that_begins_each_task_where_it_is_told_to(start):
    states, infos = trained(toy.compiled(shelled(CORE, SHELL, start=start)))
    alone, cores = SHELL.init(KEY), toy.compiled(CORE).init(KEY)
    for number, (batch, state, info) in enumerate(zip(batches(6), states, infos, strict=True)):
        key = jax.random.fold_in(KEY, number)
        alone, said = SHELL.step(alone, batch, key)
        cores, _ = CORE.step(cores, batch, key)
        same(info, said)
        if number in (2, 5):
            cores = CORE.consolidate(cores, batch, END)
            fresh = TASK.network.init(jax.random.fold_in(END, 2))[0]
            begins = {"itself": alone.params, "core": cores.params, "fresh": fresh}
            alone = LearnerState(begins[start], alone.opt_state)  # momentum goes on
        same(state.opt_state.shell, alone)


def test_where_a_task_ends_the_rules_of_both_consolidate():
    states, _ = trained(toy.compiled(shelled(CORE, CORE)), steps=3)
    alone, _ = trained(toy.compiled(CORE), steps=3)
    same(states[-1].opt_state.shell, alone[-1])


def test_a_step_may_donate_the_state_of_a_shell_that_begins_from_its_core():
    agent, (batch,) = shelled(CORE, SHELL, start="core"), batches(1)
    state = agent.consolidate(agent.init(KEY), batch, END)
    state, info = jax.jit(agent.step, donate_argnums=0)(state, batch, KEY)
    assert np.isfinite(info.loss)


def test_an_unknown_start_is_named():
    with pytest.raises(UsageError, match="unknown start 'anew'"):
        shelled(CORE, SHELL, start="anew")


def test_a_shell_that_learns_as_the_core_does_says_what_the_core_would():
    _, mine = trained(toy.compiled(shelled(CORE, CORE)), steps=3)
    _, alone = trained(toy.compiled(CORE), steps=3)
    same(mine, alone)


def test_what_is_destroyed_is_destroyed_in_both():
    states, _ = trained(AGENT, steps=1)
    gone = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), states[0].params)
    gone["head"]["kernel"] = gone["head"]["kernel"].at[1].set(True)
    after = AGENT.destroy(states[0], gone)
    for params in (after.params, after.opt_state.shell.params):
        assert not params["head"]["kernel"][1].any() and params["head"]["kernel"][0].any()
    momentum = after.opt_state.shell.opt_state[0].trace["head"]["kernel"]
    assert not momentum[1].any() and momentum[0].any()


def test_both_are_prepared():
    ready = lambda agent, value: agent._replace(
        prepare=lambda state, examples, key: state._replace(params=jax.tree.map(lambda w: w + value, state.params))
    )
    agent = shelled(ready(CORE, 1.0), ready(SHELL, 2.0))
    (batch,) = batches(1)
    state = agent.prepare(agent.init(KEY), batch, KEY)
    drawn = TASK.network.init(KEY)[0]
    same(state.params, jax.tree.map(lambda w: w + 1, drawn))
    same(state.opt_state.shell.params, jax.tree.map(lambda w: w + 2, drawn))
