"""Neurons that compete: the learner is the layer `KWinners` behind each hidden layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import interventions
from neuroml.competing import competing
from neuroml.errors import UsageError
from neuroml.learner import Task, make_learner
from neuroml.methods import methods
from neuroml.streams.stream import Batch

NETWORK = neuroml.mlp((3, 3, 1), [10, 6], 4)
TASK = Task(NETWORK, 2.0)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def batch(seed, size=8):
    pixels, labels = jax.random.split(jax.random.key(seed))
    x, y = jax.random.normal(pixels, (size, 3, 3, 1)), jax.random.randint(labels, (size,), 0, 4)
    return Batch(x, y, jnp.zeros(size, jnp.int32), jnp.ones((size, 4), bool))


@functools.cache
def trained(**given):
    agent = competing(TASK, OPTIMIZER, **given) if given else make_learner(TASK, OPTIMIZER)
    state, step = jax.jit(agent.init)(jax.random.key(0)), jax.jit(agent.step)
    for number in range(3):
        state, info = step(state, batch(number), jax.random.key(number))
    return agent, state, info


def test_where_all_may_win_it_is_the_network_alone():
    (_, plain, first), (agent, state, second) = trained(), trained(winners=1.0, strength=3.0)
    assert first == second
    jax.tree.map(np.testing.assert_array_equal, state.params, plain.params)
    np.testing.assert_array_equal(
        agent.predict(state, batch(9)), make_learner(TASK, OPTIMIZER).predict(plain, batch(9))
    )


@pytest.mark.parametrize("shuffled", [False, True])
def test_it_is_k_winners_behind_each_hidden_layer(shuffled):
    given = {"strength": 0.5, "decay": 0.7, "shuffled": shuffled}
    layers = [neuroml.KWinners(size, winners, **given) for size, winners in ((10, 3), (6, 2))]

    def ask(params, x, update):
        after = lambda number, answers: layers[number](answers, update=update)
        return NETWORK.apply(params, {}, x / 2, after=after)[0]

    params, _ = NETWORK.init(jax.random.key(0))
    moments = OPTIMIZER.init(params)
    for number in range(3):
        one = batch(number)
        cost = lambda params, one=one: optax.softmax_cross_entropy_with_integer_labels(
            ask(params, one.x, False), one.y
        ).mean()
        updates, moments = OPTIMIZER.update(jax.grad(cost)(params), moments, params)
        ask(params, one.x, True)
        params = optax.apply_updates(params, updates)
    agent, state, _ = trained(winners=0.3, **given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, params)
    for number, layer in enumerate(layers):
        np.testing.assert_allclose(state.opt_state.excitability[number], layer.excitability[...], rtol=1e-5)
    np.testing.assert_allclose(agent.predict(state, batch(9)), ask(params, batch(9).x, False), rtol=1e-4, atol=1e-5)
    assert all((np.asarray(h) != 0).sum(1).max() <= most for h, most in zip(inputs(agent, state), (3, 2), strict=True))


def inputs(agent, state):
    found = agent.capture(state, batch(9))
    return found["layers"][1], found["head"]


def test_excitability_and_its_control_choose_other_winners():
    states = [trained(winners=0.3, strength=s, shuffled=c)[1] for s, c in ((0.0, False), (2.0, False), (2.0, True))]
    heads = {tuple(np.ravel(state.params["head"]["kernel"])) for state in states}
    assert len(heads) == 3


def test_what_is_no_number_reaches_the_loss():
    agent, state, _ = trained(winners=0.3)
    layer = state.params["layers"][0]
    broken = {**layer, "kernel": layer["kernel"].at[:, 0].set(jnp.nan)}
    params = {**state.params, "layers": {**state.params["layers"], 0: broken}}
    assert np.isnan(jax.jit(agent.predict)(state._replace(params=params), batch(0))).any()


def test_both_answers_of_a_neuron_compete():
    task = Task(neuroml.mlp((3, 3, 1), [10], 4, activation="crelu"), 2.0)
    agent = competing(task, OPTIMIZER, winners=0.25)
    state, _ = jax.jit(agent.step)(agent.init(jax.random.key(0)), batch(0), jax.random.key(0))
    assert state.opt_state.excitability[0].shape == (20,)
    assert ((np.asarray(agent.capture(state, batch(1))["head"]) != 0).sum(1) == 5).all()


def test_one_neuron_at_least_answers():
    agent, state, _ = trained(winners=1e-3)
    assert all(((np.asarray(h) != 0).sum(1) <= 1).all() and np.asarray(h).any() for h in inputs(agent, state))


def test_vital_signs_and_lesions_reach_the_neurons():
    agent, state, _ = trained(winners=0.3)
    assert np.isfinite(list(agent.inspect(state, batch(9)).values())).all()
    hurt = interventions.injured(agent, NETWORK.wiring, 1.0, 0)
    state, _ = jax.jit(hurt.step)(jax.jit(hurt.init)(jax.random.key(0)), batch(0), jax.random.key(1))
    assert not np.asarray(inputs(hurt, state)[0]).any()


@pytest.mark.parametrize(("name", "value"), [("winners", 0.0), ("winners", 1.5), ("strength", -1.0), ("decay", 1.0)])
def test_a_number_out_of_range_is_named(name, value):
    with pytest.raises(UsageError, match=f"{name}.*{name}={value}"):
        competing(TASK, OPTIMIZER, **{"winners": 0.5, name: value})


def test_a_share_that_is_none_is_refused_before_anything_runs_and_all_is_one():
    method = methods["k_winners"]
    method.check({**method.hyperparameters, "winners": 1.0})
    for name, value in (("winners", 1.5), ("winners", 0.0), ("strength", -1.0), ("decay", 1.0)):
        with pytest.raises(UsageError, match=rf"needs a `{name}` in .*, but {name}={value}"):
            method.check({**method.hyperparameters, name: value})


def test_a_network_without_hidden_layers_is_refused():
    with pytest.raises(UsageError, match="has none"):
        competing(Task(neuroml.mlp((3, 3, 1), [], 4), 2.0), OPTIMIZER, winners=0.5).init(jax.random.key(0))
