"""An experiment trains each phase for its own length, shows each example as often, and tests when it was told to."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy_experiments import DATA, make

import neuroml
from neuroml.streams import scenarios

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")

SMALLEST = 9  # of two classes of DATA together


# --- length ---


@functools.cache
def ragged():
    """A run over phases of different length, with rules that would notice an idle step, and the same by hand."""
    experiment = toy.experiment("everything")
    result = neuroml.run(experiment, DATA, seeds=[toy.SEED], hyperparameters={"learning_rate": 0.01})
    return result, toy.trained_by_hand(experiment, toy.SEED)


def test_ragged_phases_end_where_a_hand_made_loop_ends():
    result, by_hand = ragged()
    assert [len(losses) for losses in by_hand.losses] == [6, 9, 6]
    np.testing.assert_allclose(result.accuracy[0], by_hand.accuracy, atol=1e-6)
    for name in ("loss", "online_accuracy"):
        curves = getattr(result, name)[0]
        wanted = by_hand.losses if name == "loss" else by_hand.online
        for curve, own in zip(curves, wanted, strict=True):
            np.testing.assert_allclose(curve[: len(own)], own, rtol=1e-3, atol=1e-5)


def test_curves_are_nan_at_idle_steps_and_nowhere_else():
    result, by_hand = ragged()
    idle = np.arange(result.loss.shape[-1]) >= np.array([len(losses) for losses in by_hand.losses])[:, None]
    assert idle.any()
    np.testing.assert_array_equal(np.isnan(result.loss[0]), idle)
    np.testing.assert_array_equal(np.isnan(result.online_accuracy[0]), idle)


def test_an_idle_step_changes_nothing_at_all():
    experiment = toy.experiment("everything")
    hyper, phase = toy.numbers_of(experiment), jnp.int32(0)
    stream, state = jax.jit(experiment.begin)(jax.random.key(toy.SEED), hyper, DATA)
    _, keys, positions = jax.jit(experiment.order)(jax.random.key(toy.SEED), stream, phase)
    length = int(experiment.length(stream, phase))
    assert length < experiment.steps(stream) == len(keys)
    take = jax.jit(experiment.step)
    last, _ = take(hyper, stream, phase, state, (jnp.int32(length - 1), keys[-1], positions[-1]))
    idle, info = take(hyper, stream, phase, state, (jnp.int32(length), keys[-1], positions[-1]))
    jax.tree.map(np.testing.assert_array_equal, idle, state)
    assert np.isnan(info.loss) and np.isnan(info.accuracy)
    assert not np.array_equal(jax.tree.leaves(last.params)[0], jax.tree.leaves(state.params)[0])


@pytest.mark.parametrize("epochs", [1, 3])
def test_each_example_is_used_in_each_epoch(epochs):
    experiment = toy.experiment(epochs=epochs)
    stream = experiment.stream(DATA, jax.random.key(0))
    for phase, size in enumerate(np.asarray(stream.size)):
        _, _, positions = experiment.order(jax.random.key(0), stream, jnp.int32(phase))
        steps = int(experiment.length(stream, jnp.int32(phase)))
        assert steps == math.ceil(epochs * size / 4) <= experiment.steps(stream)
        used = np.ravel(positions[:steps])[: epochs * size]
        np.testing.assert_array_equal(np.bincount(used), np.full(size, epochs))


def test_iterations_are_the_steps_of_every_phase():
    experiment = toy.experiment(iterations=7)
    stream = experiment.stream(DATA, jax.random.key(0))
    assert stream.ragged and experiment.steps(stream) == 7
    assert [int(experiment.length(stream, jnp.int32(phase))) for phase in range(3)] == [7, 7, 7]


def test_seeds_differ_in_all_they_draw():
    experiment = toy.experiment("everything")
    hyper = toy.numbers_of(experiment)
    (one, first), (two, second) = (jax.jit(experiment.begin)(jax.random.key(s), hyper, DATA) for s in (0, 1))
    assert not np.array_equal(one.labels, two.labels)
    kernel = lambda state: state.params["head"]["kernel"]
    assert not np.array_equal(kernel(first), kernel(second))
    # Equal seeds are alike also as trees with static parts, so that programs for one take the other.
    again = jax.eval_shape(experiment.begin, jax.random.key(0), hyper, DATA)[1]
    assert jax.tree.structure(again) == jax.tree.structure(first)


def test_phases_and_steps_have_keys_of_their_own():
    experiment = toy.experiment()
    stream = experiment.stream(DATA, jax.random.key(0))
    all_keys = [experiment.order(jax.random.key(s), stream, jnp.int32(p))[1] for s in (0, 1) for p in range(3)]
    numbers = jax.random.key_data(jnp.concatenate(all_keys))
    assert len({tuple(row) for row in np.asarray(numbers)}) == len(numbers)


def test_joint_training_is_one_phase_over_everything():
    experiment = toy.experiment("joint", epochs=3)
    stream = experiment.stream(DATA, jax.random.key(0))
    assert (stream.phases, stream.tasks, experiment.steps(stream)) == (1, 3, math.ceil(3 * 39 / 4))
    assert np.asarray(stream.seen).all()


@pytest.mark.parametrize("samples, wanted", [(4, 4), (1000, SMALLEST)])
def test_a_consolidation_sees_different_examples_of_its_own_phase(samples, wanted):
    seen = []

    def importance(predict, params, examples, key):
        seen.append(examples)
        return jax.tree.map(jnp.ones_like, params)

    method = dataclasses.replace(neuroml.methods.methods["ewc"], importance=lambda given: importance)
    experiment = dataclasses.replace(toy.experiment(), method=method, samples=samples)
    key, hyper, phase = jax.random.key(0), toy.numbers_of(experiment), jnp.int32(1)
    stream, state = jax.jit(experiment.begin)(key, hyper, DATA)
    after, _ = experiment.finish(key, hyper, stream, phase, state)
    (examples,) = seen
    found = [toy.numbers(DATA)[np.asarray(image).tobytes()] for image in examples.x]
    assert len({place for _, place, _ in found}) == wanted and {part for part, _, _ in found} == {"train"}
    order = np.argsort(np.asarray(stream.labels)[0])
    assert {c for *_, c in found} <= set(order[2:4]) and (np.asarray(examples.task) == 1).all()
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(after.opt_state[0].importance))


def _probes(maker, method="naive", number=6):
    """Returns the tasks of the examples on which vital signs are taken, [phases, number], and their positions."""
    experiment = make(method=neuroml.methods.methods[method], maker=maker, inspected=number)
    stream, key = experiment.stream(DATA, jax.random.key(0)), jax.random.key(0)
    batches = [experiment._probe(key, stream, jnp.int32(phase)) for phase in range(stream.phases)]
    return stream, batches


def test_vital_signs_of_a_task_are_taken_on_the_first_examples_of_its_row():
    stream, batches = _probes(scenarios.split(3))
    for phase, batch in enumerate(batches):
        jax.tree.map(np.testing.assert_array_equal, batch, stream.train_batch(phase, jnp.arange(6)))


def test_vital_signs_over_several_tasks_are_taken_on_examples_of_all_of_them():
    _, (batch,) = _probes(scenarios.split(3), "joint", 39)  # a row sorted by task
    assert len({image.tobytes() for image in np.asarray(batch.x)}) == 39
    _, (batch,) = _probes(scenarios.split(3), "joint", 12)
    assert set(batch.task.tolist()) == {0, 1, 2}
    stream, (first, *_) = _probes(scenarios.blended(scenarios.split(3), 8), number=8)  # a row in the order of time
    early = stream.train_batch(0, jnp.arange(8))
    assert not np.array_equal(first.x, early.x) and first.x.shape == early.x.shape


# --- when it is tested ---


@pytest.mark.parametrize("method", ["naive", "joint", "ewc"])
def test_tests_at_the_ends_are_some_of_those_of_every_phase(method):
    run = lambda evaluation: neuroml.run(
        toy.experiment(method, evaluation=evaluation), DATA, seeds=[toy.SEED], hyperparameters={"learning_rate": 0.01}
    )
    ends, every = run("ends"), run("all")
    tested = np.eye(3, dtype=bool) if method != "joint" else np.zeros((1, 3), bool)
    tested[-1] = True
    np.testing.assert_array_equal(np.isfinite(ends.accuracy[0]), tested)
    assert np.isfinite(every.accuracy).all() and len(np.unique(every.accuracy)) > 1
    np.testing.assert_array_equal(ends.accuracy[0][tested], every.accuracy[0][tested])
    np.testing.assert_array_equal(ends.loss, every.loss)  # it changes nothing that is learnt
    assert (ends.bytes, ends.flops) == (every.bytes, every.flops)
