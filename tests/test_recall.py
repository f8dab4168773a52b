"""Learners with a memory, in whole experiments on tiny data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import condensate, features, recall
from neuroml.errors import UsageError
from neuroml.experiment import Experiment
from neuroml.learner import Task, make_learner
from neuroml.method import Method
from neuroml.streams import scenarios
from neuroml.streams.dataset import Dataset

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")

DATA = toy.dataset()
EVEN = toy.dataset((8,) * 6, (4,) * 6)  # phases of 16 examples


def patterned():
    """Variations of one pattern, so that permuting the pixels shows: six classes, of 12 and 6 images."""
    random = np.random.default_rng(3)
    means = random.uniform(60, 200, (4, 4, 1)) * random.integers(0, 2, (4, 4, 1)) + random.normal(0, 25, (6, 4, 4, 1))

    def part(count):
        labels = random.permutation(np.repeat(np.arange(6), count))
        return np.clip(means[labels] + random.normal(0, 5, (labels.size, 4, 4, 1)) + 30, 0, 255).astype(
            np.uint8
        ), labels

    return Dataset.from_arrays("patterned", part(12), part(6), classes=6)


PATTERNED = patterned()
HYPER = {"ridge": 0.1, "shell_rate": 0.0, "radius": 1.0}
MADE = {
    "pixels": features.pixels(),
    "random": features.random_features(20),
    "patches": features.patch_condensates(4, size=3, samples=100, rounds=2),
}
WIDTHS = {"pixels": 16, "random": 20, "patches": 2 * 4 * 4}


def _fixed(at, given):
    made, own = MADE[given["features"]], bool(given["own_maps"])
    memory = condensate.make(
        WIDTHS[given["features"]],
        at.outputs,
        count=int(given["slots"]),
        keys=16 if own else None,
        maps="own" if own else "shared",
        ridge=given["ridge"],
        radius=given["radius"],
        nucleus=at.batch_size if own else 1,
        shell_rate=given["shell_rate"],
    )
    inner = recall.fixed(made, at.example, at.task.scale)
    keys = recall.of_features(features.pixels(), at.task.scale) if own else None
    contexts = int(given["slots"]) if own else 0
    represent = recall.of_features(made, at.task.scale)
    return recall.recall(inner, represent, memory, at.outputs, keys=keys, contexts=contexts)


def _trunk(at, given):
    inner = make_learner(at.task, at.optimizer)
    memory = condensate.make(6, at.outputs, ridge=given["ridge"], shell_rate=given["shell_rate"])
    return recall.recall(inner, recall.of_trunk(at.task, "head"), memory, at.outputs)


OPTIONS = {"features": "pixels", "own_maps": False, "slots": 1}
METHODS = {
    "fixed": Method(
        "fixed features", learner=_fixed, hyperparameters=HYPER, options=OPTIONS, prepares=lambda given: 12
    ),
    "trunk": Method("a network", learner=_trunk, hyperparameters=HYPER),
}


@functools.cache
def experiment(method="fixed", maker=None, batch_size=4, epochs=1, **options):
    network = lambda shape, outputs: neuroml.mlp(shape, (6,), outputs)
    maker = scenarios.split(3, "class") if maker is None else maker
    return Experiment(METHODS[method], network, maker, batch_size=batch_size, epochs=epochs, options=options)


def run(experiment, data=EVEN, seed=toy.SEED, **given):
    """Returns the state at the end, and what each phase found."""
    state, row = toy.whole(experiment)(jax.random.key(seed), toy.numbers_of(experiment, **given), data)
    return state, row.findings


@pytest.mark.parametrize("name", MADE)
def test_of_classes_that_come_one_after_the_other_none_is_forgotten(name):
    state, found = run(experiment(features=name), EVEN)
    assert found.accuracy[-1].min() > 0.4  # chance is 1/6
    assert found.accuracy[-1].mean() > 0.6
    assert found.report["purity"].shape == (3,) and found.report["slots"][-1] == 1
    assert state.opt_state.memory.seen == 48 and found.finite.all()


def test_features_are_fitted_to_the_first_examples_of_the_first_phase():
    made = experiment(features="patches")
    state, _ = run(made)
    key, hyper = jax.random.key(toy.SEED), toy.numbers_of(made)
    stream = made.stream(EVEN, key)
    first = stream.train_batch(jnp.int32(0), made.order(key, stream, jnp.int32(0))[2].reshape(-1)[:12])
    wanted = jax.jit(MADE["patches"].fit)(jax.random.fold_in(key, 3), first.x / EVEN.scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state.params, wanted)
    assert made.cost(key, hyper, EVEN)[0] > 4 * (32 * 17 + 9 * 4)  # the core and the dictionary are paid for


def test_batches_do_not_matter_to_a_core():
    found = [run(experiment(batch_size=size)) for size in (1, 4, 16)]
    for state, findings in found[1:]:
        weights = found[0][0].opt_state.memory.weights
        np.testing.assert_allclose(state.opt_state.memory.weights, weights, atol=1e-5 * jnp.abs(weights).max())
        np.testing.assert_array_equal(findings.accuracy, found[0][1].accuracy)


def test_nor_does_the_order_of_the_tasks():
    """Other class orders, the same classes: the last memory answers alike, up to who is which output."""
    one, two = (run(experiment(maker=scenarios.split(6, "class")), seed=seed)[1].accuracy[-1] for seed in (1, 2))
    np.testing.assert_allclose(sorted(one), sorted(two))


def agent_and_batch(method="fixed", **options):
    stream = experiment(method, **options).stream(EVEN, jax.random.key(toy.SEED))
    hyper = {**toy.numbers_of(experiment(method, **options)), "shell_rate": jnp.float32(0.5)}
    agent = experiment(method, **options).learner(stream, hyper)
    return agent, stream.train_batch(jnp.int32(0), jnp.arange(8))


def test_settling_twice_is_settling_once():
    agent, batch = agent_and_batch()
    state, _ = jax.jit(agent.step)(agent.init(jax.random.key(0)), batch, jax.random.key(1))
    settle = jax.jit(agent.settle)
    once = settle(state)
    assert (once.opt_state.memory.weights != 0).any() and (once.opt_state.memory.shell == 0).all()
    jax.tree.map(np.testing.assert_array_equal, settle(once), once)


def test_a_step_answers_before_it_absorbs():
    agent, batch = agent_and_batch()
    state = agent.init(jax.random.key(0))
    step = jax.jit(agent.step)
    state, info = step(state, batch, jax.random.key(1))
    np.testing.assert_allclose(info.loss, 1 / 6, rtol=1e-5)  # one output of six is wrong by 1
    _, later = step(state, batch, jax.random.key(1))  # the shell has learnt
    assert later.loss < info.loss and later.accuracy > info.accuracy


def test_the_trunk_learns_as_it_would_without_a_memory():
    agent, batch = agent_and_batch("trunk")
    plain = make_learner(Task(neuroml.mlp(EVEN.shape, (6,), 6), EVEN.scale), optax.adam(0.01))
    state, alone = agent.init(jax.random.key(0)), plain.init(jax.random.key(0))
    step, plain_step = jax.jit(agent.step), jax.jit(plain.step)
    for number in range(3):
        state, _ = step(state, batch, jax.random.key(number))
        alone, _ = plain_step(alone, batch, jax.random.key(number))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, alone.params)
    assert state.opt_state.memory.seen == 24


def test_the_trunk_may_be_asked_for_any_layer_by_its_path():
    task, (_, batch) = Task(neuroml.mlp(EVEN.shape, (6, 5), 6), EVEN.scale), agent_and_batch("trunk")
    params, _ = task.network.init(jax.random.key(0))
    captured = task.capture(params, batch)[1]
    np.testing.assert_array_equal(recall.of_trunk(task, "layers/1")(params, batch), captured["layers"][1])
    with pytest.raises(UsageError, match="layer 'haed'. Did you mean 'head'"):
        recall.of_trunk(task, "haed")(params, batch)


def test_contexts_that_the_input_gives_away_are_told_apart_and_counted():
    """Permuted pixels: each task has a slot of its own, found without being told, and all its test images go there."""
    made = experiment(maker=scenarios.permuted(3), own_maps=True, slots=5)
    state, found = run(made, PATTERNED, radius=1.0)
    counts = np.asarray(found.contexts[-1])
    assert counts.shape == (3, 5)
    np.testing.assert_array_equal(counts.sum(1), len(PATTERNED.test_y))
    assert (counts.max(1) / counts.sum(1) > 0.9).all() and len(set(counts.argmax(1))) == 3
    assert found.report["slots"].tolist() == [1, 2, 3]
    one = run(experiment(maker=scenarios.permuted(3), own_maps=True, slots=1), PATTERNED, radius=1.0)[1]
    assert found.accuracy[-1].mean() > 0.97 and one.accuracy[-1].mean() < 0.95


def test_without_contexts_there_is_nothing_to_count():
    assert run(experiment())[1].contexts.shape == (3, 3, 0)
