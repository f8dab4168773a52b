"""Dendrites: each example is gated by the context that it gives away, and nobody names one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import dendrites, interventions
from neuroml.errors import UsageError
from neuroml.experiment import Experiment
from neuroml.learner import Task, make_learner
from neuroml.methods import methods
from neuroml.streams import scenarios
from neuroml.streams.dataset import Dataset
from neuroml.streams.stream import Batch

SHAPE, CLASSES = (3, 3, 1), 4
NETWORK = neuroml.mlp(SHAPE, [10, 6], CLASSES)
TASK = Task(NETWORK, 2.0)
ONE = Batch(jnp.zeros(SHAPE), jnp.int32(0), jnp.int32(0), jnp.ones(CLASSES, bool))
PLACES = jax.random.uniform(jax.random.key(9), (3, *SHAPE)) * 2


def batch(context, seed, size=8):
    """Examples near one of three places in input space."""
    noise, label = jax.random.split(jax.random.key(seed))
    x = PLACES[context] + 0.1 * jax.random.normal(noise, (size, *SHAPE))
    y = jax.random.randint(label, (size,), 0, CLASSES)
    return Batch(x, y, jnp.full(size, context), jnp.ones((size, CLASSES), bool))


@functools.cache
def made(transform=None, **settings):
    given = {"contexts": 5, "segments": 3, "radius": 0.2, "winners": 0.5} | settings
    return dendrites.dendritic(TASK, optax.adam(0.01) if transform is None else transform, ONE, **given)


@functools.cache
def trained(agent, steps=6):
    state, step = jax.jit(agent.init)(jax.random.key(0)), jax.jit(agent.step)
    for number in range(steps):
        state, info = step(state, batch(number % 3, number), jax.random.key(number))
    return state, info


def test_without_segments_and_with_all_winners_it_is_the_network_alone():
    (plain, first), (gated, second) = (
        trained(make_learner(TASK, optax.adam(0.01))),
        trained(made(segments=0, winners=1.0)),
    )
    assert not gated.params["dendrites"] and first == second
    jax.tree.map(np.testing.assert_array_equal, {name: gated.params[name] for name in plain.params}, plain.params)


def test_an_answer_is_the_equation_of_the_docstring():
    agent = made()
    state, _ = trained(agent)
    asked = batch(1, 50)
    answers = jax.jit(agent.predict)(state, asked)
    weights, context = jax.tree.map(np.asarray, state.params), np.asarray(agent.context(state, asked))
    places = np.asarray(state.opt_state.prototypes.place)
    for row, (image, where) in enumerate(zip(np.asarray(asked.x) / 2, context, strict=True)):
        x = image.ravel()
        for number in range(2):
            level = (places[where] - places[where].mean()) / places[where].std()
            layer, said = weights["layers"][number], level @ weights["dendrites"][number]
            opened = 1 / (1 + np.exp(-said[np.abs(said).argmax(0), np.arange(said.shape[1])]))
            x = np.maximum(x @ layer["kernel"] + layer["bias"], 0) * opened
            x = np.where(np.argsort(np.argsort(-x, kind="stable")) < len(x) // 2, x, 0)
        expected = x @ weights["head"]["kernel"] + weights["head"]["bias"]
        np.testing.assert_allclose(answers[row], expected, rtol=1e-4, atol=1e-5)


def test_each_context_is_found_and_an_example_finds_it_alone():
    agent = made()
    state, _ = trained(agent)
    context_of, predict = jax.jit(agent.context), jax.jit(agent.predict)
    found = [context_of(state, batch(context, 60 + context)) for context in range(3)]
    np.testing.assert_array_equal(found, [[context] * 8 for context in range(3)])
    mixed = jax.tree.map(lambda *rows: jnp.concatenate(rows), batch(0, 70), batch(2, 71))
    alone = [predict(state, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], mixed))[0] for i in range(16)]
    np.testing.assert_allclose(predict(state, mixed), alone, rtol=1e-5, atol=1e-6)
    places = state.opt_state.prototypes.place[:3].reshape(3, *SHAPE)
    np.testing.assert_allclose(places, PLACES / 2, atol=0.05)


def test_one_context_is_the_mean_of_all():
    state, _ = trained(made(contexts=1))
    np.testing.assert_allclose(state.opt_state.prototypes.place[0].reshape(SHAPE), PLACES.mean(0) / 2, atol=0.03)


def test_kernels_that_read_few_winners_start_larger():
    (plain, _), grown = NETWORK.init(jax.random.key(0)), made(winners=0.25).init(jax.random.key(0)).params
    for home, gain in ((("layers", 0), 1), (("layers", 1), 2), (("head",), 2)):
        one, other = plain, grown
        for step in home:
            one, other = one[step], other[step]
        np.testing.assert_allclose(other["kernel"], gain * one["kernel"], rtol=1e-6)
        np.testing.assert_array_equal(other["bias"], one["bias"])


def test_segments_that_lose_do_not_learn():
    agent = made(optax.sgd(0.1))
    start, (state, _) = jax.jit(agent.init)(jax.random.key(0)), trained(agent, steps=1)
    for before, after in zip(start.params["dendrites"].values(), state.params["dendrites"].values(), strict=True):
        moved = np.asarray(before != after).any(1)  # [segments, size]
        assert moved.any() and (moved.sum(0) <= 1).all()  # of a neuron's segments the strongest alone


def test_si_holds_the_network_and_not_the_segments():
    hyper = toy.numbers_of(toy.experiment("active_dendrites_si"))
    state, _ = toy.whole(toy.experiment("active_dendrites_si"))(jax.random.key(toy.SEED), hyper, toy.dataset())
    importance = state.opt_state.inner[0].inner_state.importance
    assert not jax.tree.leaves(importance.pop("dendrites")) and max(map(np.max, jax.tree.leaves(importance))) > 0


def test_permutations_are_found_and_counted_beside_the_accuracy():
    images = np.zeros((60, 6, 6, 1), np.uint8)
    images[:, :2] = 200 + np.random.default_rng(0).integers(0, 50, (60, 2, 6, 1))  # one place for all classes
    part = (images, np.arange(60) % 4)
    data = Dataset.from_arrays("bars", part, part, classes=4)
    given = {"batch_size": 10, "epochs": 2}
    network = lambda shape, outputs: neuroml.mlp(shape, [8], outputs)
    experiment = Experiment(methods["active_dendrites"], network, scenarios.permuted(3), **given)
    result = neuroml.run(experiment, data, seeds=[0], hyperparameters={"learning_rate": 0.01})
    np.testing.assert_array_equal(result.contexts[0, -1, :, :4], np.pad(60 * np.eye(3), ((0, 0), (0, 1))))
    np.testing.assert_array_equal(result.report["contexts used"], [[1, 2, 3]])


def test_vital_signs_and_lesions_reach_the_neurons():
    agent = made()
    state, _ = trained(agent)
    assert np.isfinite(list(jax.jit(agent.inspect)(state, batch(0, 1)).values())).all()
    hurt = interventions.injured(agent, NETWORK.wiring, 1.0, 0)
    state, _ = jax.jit(hurt.step)(jax.jit(hurt.init)(jax.random.key(0)), batch(0, 1), jax.random.key(1))
    assert not state.params["layers"][1]["kernel"].any() and state.params["dendrites"][0].all()


def test_neurons_that_answer_twice_have_segments_for_both():
    double = neuroml.mlp(SHAPE, [10], CLASSES, activation="crelu")
    agent = dendrites.dendritic(Task(double, 2.0), optax.sgd(0.1), ONE, contexts=2)
    state, _ = jax.jit(agent.step)(jax.jit(agent.init)(jax.random.key(0)), batch(0, 1), jax.random.key(1))
    assert state.params["dendrites"][0].shape == (1, 9, 20)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"contexts": 0}, "contexts=0"),
        ({"segments": -1}, "segments=-1"),
        ({"winners": 0.0}, r"winners=0\.0"),
        ({"winners": 1.5}, r"winners=1\.5"),
        ({"radius": -1.0}, r"radius=-1\.0"),
    ],
)
def test_numbers_out_of_range_are_named(settings, words):
    with pytest.raises(UsageError, match=words):
        made(**settings)


@pytest.mark.parametrize("network", [neuroml.mlp(SHAPE, [], CLASSES), neuroml.cnn((4, 4, 1), (2,), (3,), CLASSES)])
@pytest.mark.parametrize("segments", [0, 1])
def test_a_network_without_hidden_layers_or_with_convolutions_is_refused(network, segments):
    agent = dendrites.dendritic(Task(network, 1.0), optax.sgd(0.1), ONE, contexts=2, segments=segments)
    with pytest.raises(UsageError, match="hidden layers of a `neuroml.mlp`"):
        agent.init(jax.random.key(0))


def test_what_is_no_number_is_handed_on():
    agent = made()
    state, _ = trained(agent)
    layer = state.params["layers"][0]
    broken = {**layer, "kernel": layer["kernel"].at[:, 0].set(jnp.nan)}
    state = state._replace(params={**state.params, "layers": {**state.params["layers"], 0: broken}})
    assert jnp.isnan(jax.jit(agent.predict)(state, batch(1, 50))).any()
