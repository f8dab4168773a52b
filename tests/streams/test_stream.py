"""Batches take every example once a pass, and accuracy is what a plain loop over the test images counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroml.streams import scenarios
from neuroml.streams.stream import steps_of

DATA = toy.dataset()
BATCH, STEPS = 4, 12  # 48 positions: at least two passes and a bit over phases of 9 to 17 examples


@functools.cache
def maker(scenario="class", window=None):
    split = scenarios.split(3, scenario)
    return jax.jit(split if window is None else scenarios.blended(split, window))


@jax.jit
def order(stream, key, phase):
    return stream.order(key, phase, STEPS, BATCH)


@given(seed=st.integers(0, 2**32 - 1), phase=st.integers(0, 2))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_each_pass_takes_each_example_once_and_no_padding(seed, phase):
    stream = maker()(DATA, jax.random.key(seed))
    size = int(stream.size[phase])
    positions = np.asarray(order(stream, jax.random.key(seed + 1), jnp.int32(phase)))
    assert positions.shape == (STEPS, BATCH)
    passes = [positions.ravel()[start : start + size] for start in range(0, positions.size, size)]
    for whole in passes[:-1]:
        assert sorted(whole) == list(range(size))
    assert len(set(passes[-1])) == len(passes[-1]) and passes[-1].max() < size  # the last pass stops midway
    assert len({tuple(whole) for whole in passes}) == len(passes)


def test_orders_follow_the_key():
    stream = maker()(DATA, jax.random.key(0))
    first, again, other = (order(stream, jax.random.key(seed), jnp.int32(1)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_place_of_an_order_is_as_likely():
    stream = maker()(DATA, jax.random.key(0))
    size = int(stream.size[0])
    keys = jax.vmap(jax.random.key)(jnp.arange(500))
    firsts = jax.jit(jax.vmap(lambda key: stream.order(key, jnp.int32(0), 1, 1)))(keys)
    assert np.bincount(np.ravel(firsts), minlength=size).min() > 0.5 * 500 / size


def test_a_stream_without_boundaries_is_read_in_its_order_in_time():
    stream = maker(window=4)(toy.dataset(train=(5, 9, 4, 7, 6, 9)), jax.random.key(0))
    assert np.asarray(stream.size).tolist() == [14, 14, 12]
    for phase, size in ((0, 14), (2, 12)):
        positions = order(stream, jax.random.key(1), jnp.int32(phase))
        np.testing.assert_array_equal(np.ravel(positions), np.arange(STEPS * BATCH) % size)


def test_steps_cover_the_epochs_of_the_largest_phase():
    stream = maker()(DATA, jax.random.key(0))
    assert stream.index.shape[1] == 17
    assert [steps_of(stream, 4, epochs) for epochs in (1, 2, 4)] == [5, 9, 17]
    assert steps_of(stream, 17, 3) == 3


# --- accuracy ---


def outputs_for(stream, batch):
    """Made-up outputs: the right one most of the time, else one that the image decides."""
    brightness = batch.x.reshape(len(batch.y), -1).astype(jnp.float32)
    noise = jnp.sin(brightness @ jnp.linspace(1, 7, 16 * stream.outputs).reshape(16, -1))
    return noise + 0.6 * jax.nn.one_hot(batch.y, stream.outputs)


def accuracy_by_hand(stream, outputs, phase):
    """Counts image by image which allowed output is largest; all in numpy, from the outputs of padded test sets."""
    labels, active, seen = np.asarray(stream.labels), np.asarray(stream.active), np.asarray(stream.seen)
    test_index, classes = np.asarray(stream.test_index), np.asarray(stream.data.test_y)
    rates = []
    for task in range(stream.tasks):
        right, size = 0, int(stream.test_size[task])
        for place in range(size):
            allowed = [o for o in range(stream.outputs) if active[task, o] and seen[phase, o]]
            values = outputs[task][place]
            best = max(allowed, key=lambda o, values=values: values[o], default=None)
            finite = all(np.isfinite(values[o]) for o in allowed)
            right += finite and best == labels[task, classes[test_index[task, place]]]
        rates.append(right / size)
    return np.array(rates, np.float32)


def evaluate(stream, predict):
    """Returns accuracies [phases, tasks] and all outputs [tasks, width, outputs]."""
    accuracy = jax.jit(jax.vmap(lambda phase: stream.evaluate(predict, phase)))(jnp.arange(stream.phases))
    outputs = jax.jit(jax.vmap(lambda task: predict(stream.test_batch(task)[0])))(jnp.arange(stream.tasks))
    return np.asarray(accuracy), np.asarray(outputs)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_accuracy_is_what_a_plain_loop_counts(scenario):
    stream = maker(scenario)(DATA, jax.random.key(3))
    accuracy, outputs = evaluate(stream, functools.partial(outputs_for, stream))
    by_hand = np.stack([accuracy_by_hand(stream, outputs, phase) for phase in range(3)])
    np.testing.assert_allclose(accuracy, by_hand, rtol=1e-6)
    assert len(np.unique(accuracy)) >= 3  # neither all right nor all wrong


def test_a_class_that_has_not_come_yet_is_wrong():
    stream = maker("class")(DATA, jax.random.key(0))
    oracle = lambda batch: jax.nn.one_hot(batch.y, stream.outputs)
    accuracy, _ = evaluate(stream, oracle)
    np.testing.assert_array_equal(accuracy, np.tril(np.ones((3, 3))))
    # Nor is it right where every allowed output is as small as a switched-off one.
    nothing = lambda batch: jnp.full((len(batch.y), stream.outputs), -2e9)
    assert not np.triu(evaluate(stream, nothing)[0], k=1).any()


def test_with_one_head_a_task_only_its_outputs_answer():
    stream = maker("task")(DATA, jax.random.key(0))
    # The other tasks' outputs are larger, among its own the right one is.
    shouting = lambda batch: jax.nn.one_hot(batch.y, stream.outputs) + 100 * ~stream.active[batch.task]
    np.testing.assert_array_equal(evaluate(stream, shouting)[0], np.ones((3, 3)))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_an_output_that_is_no_number_is_wrong(bad):
    stream = maker("domain")(DATA, jax.random.key(3))

    def predict(batch):
        right = jax.nn.one_hot(batch.y, stream.outputs)
        odd = batch.x.reshape(len(batch.y), -1)[:, 0] % 2 == 1
        return jnp.where(odd[:, None] & (right == 1), bad, right)

    accuracy, outputs = evaluate(stream, predict)
    np.testing.assert_allclose(accuracy[0], accuracy_by_hand(stream, outputs, 0), rtol=1e-6)
    assert 0 < accuracy.mean() < 1


def test_padded_rows_do_not_count():
    stream = maker("domain")(DATA, jax.random.key(3))
    padding = stream.test_index.shape[1] - np.asarray(stream.test_size)
    assert padding.max() > 0
    counter = jnp.arange(stream.test_index.shape[1])
    for wanted in (0.0, 1.0):  # real rows are all wrong, padding all right; and the other way round

        def predict(batch, wanted=wanted):
            task = batch.task[0]
            right = (counter < stream.test_size[task]) == bool(wanted)
            return jnp.where(right[:, None], 1, -1) * jax.nn.one_hot(batch.y, stream.outputs)

        np.testing.assert_array_equal(evaluate(stream, predict)[0], np.full((3, 3), wanted))


# --- survey ---


def survey(stream, measure, wanted=None):
    return jax.tree.map(np.asarray, jax.jit(lambda wanted: stream.survey(measure, wanted))(wanted))


def brightness(task, batch, real):
    """Made-up: the task, and the mean of its real test images, which a padded row would change."""
    mean = jnp.sum(batch.x.reshape(len(real), -1).mean(1) * real) / real.sum()
    return jnp.stack([jnp.float32(task), jnp.float32(batch.task.min()), mean])


def test_a_survey_measures_each_task_on_its_own_real_test_images():
    stream = maker("domain")(DATA, jax.random.key(3))
    found = survey(stream, brightness)
    assert found.shape == (3, 3)
    for task in range(3):
        images = np.asarray(DATA.test_x)[np.asarray(stream.test_index[task, : int(stream.test_size[task])])]
        np.testing.assert_allclose(found[task], [task, task, images.mean()], rtol=1e-5)
    assert len(set(found[:, 2])) == 3
    padding = lambda task, batch, real: (~real).sum().astype(jnp.float32)
    widths = stream.test_index.shape[1] - np.asarray(stream.test_size)
    np.testing.assert_array_equal(survey(stream, padding), widths)


@pytest.mark.parametrize("wanted", [(True, False, True), (False, True, False), (False,) * 3, (True,) * 3])
def test_a_survey_leaves_out_what_is_not_wanted(wanted):
    stream = maker("domain")(DATA, jax.random.key(3))
    wanted = np.array(wanted)
    found, whole = survey(stream, brightness, wanted), survey(stream, brightness)
    np.testing.assert_array_equal(found[wanted], whole[wanted])
    assert np.isnan(found[~wanted]).all() and np.isfinite(whole).all()


def test_what_is_not_wanted_takes_no_time():
    stream, seen = maker("domain")(DATA, jax.random.key(3)), []

    def measure(task, batch, real):
        jax.debug.callback(lambda task: seen.append(int(task)), task)
        return real.sum().astype(jnp.float32)

    survey(stream, measure, np.array([True, False, True]))
    jax.effects_barrier()
    assert sorted(seen) == [0, 2]


def test_accuracy_on_wanted_tasks_only():
    stream = maker("class")(DATA, jax.random.key(3))
    predict, phase, wanted = functools.partial(outputs_for, stream), jnp.int32(2), jnp.array([False, True, True])
    some, whole = (jax.jit(stream.evaluate, static_argnums=0)(predict, phase, w) for w in (wanted, None))
    np.testing.assert_array_equal(some[1:], whole[1:])
    assert np.isnan(some[0]) and np.isfinite(whole[0])
