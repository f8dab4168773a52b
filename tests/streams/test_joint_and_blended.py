"""Streams made of the tasks of another: all of them in one phase, or blended into each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy_streams import BLENDED, JOINT, SCENARIOS, SPLIT, TRAIN, WINDOW, for_some_seeds, identify, look, over_keys

from neuroml.streams import scenarios

# --- joint ---


@pytest.mark.parametrize("scenario", SCENARIOS)
@for_some_seeds
def test_joint_is_one_phase_with_all_that_the_tasks_have(scenario, seed):
    (together, (all_of_it,), test), apart = look(JOINT[scenario], seed), look(SPLIT[3, scenario], seed)
    for name, parts in zip(all_of_it._fields, zip(*apart.train, strict=True), strict=True):
        np.testing.assert_array_equal(getattr(all_of_it, name), np.concatenate(parts))
    jax.tree.map(np.testing.assert_array_equal, test, apart.test)
    np.testing.assert_array_equal(together.seen, np.asarray(apart.stream.seen)[-1:])
    assert (together.phases, together.tasks, together.smallest, together.total) == (1, 3, TRAIN, TRAIN)
    assert together.index.shape == (1, TRAIN) and not together.ragged


def test_joint_over_a_blended_stream_is_shuffled_like_any_other():
    stream = look(scenarios.joint(BLENDED[0]), 0).stream
    positions = np.asarray(stream.order(jax.random.key(1), jnp.int32(0), 1, TRAIN)[0])
    assert sorted(positions) == list(range(TRAIN))
    assert np.any(np.diff(np.asarray(stream.task)[0, positions]) < 0)


# --- blended ---


def in_time(maker, seed):
    """Returns the stream, the task of each example in the order of time, and where its tasks would end."""
    seen, apart = look(maker, seed), look(SPLIT[3, "class"], seed)
    return seen, np.concatenate([batch.task for batch in seen.train]), np.cumsum(apart.stream.size)[:-1]


@pytest.mark.parametrize("window", [0, WINDOW])
@for_some_seeds
def test_blended_shows_every_example_once_with_its_label(window, seed):
    stream, train, test = look(BLENDED[window], seed)
    apart = look(SPLIT[3, "class"], seed)
    key = lambda batches: sorted(
        (image.tobytes(), int(y), int(task)) for batch in batches for image, y, task in zip(*batch[:3], strict=True)
    )
    assert key(train) == key(apart.train)
    jax.tree.map(np.testing.assert_array_equal, test, apart.test)
    sizes = np.asarray(stream.size)
    assert set(sizes[:-1]) == {13} and sizes[-1] == 13 and stream.phases == 3
    assert not stream.boundaries and (stream.smallest, stream.total) == (13, TRAIN)


def test_blended_phases_are_equal_but_for_the_last():
    data = toy.dataset(train=(5, 9, 4, 7, 6, 9))  # 40 do not split into three
    stream, train, _ = look(BLENDED[0], 0, data)
    assert np.asarray(stream.size).tolist() == [14, 14, 12]
    assert (stream.smallest, stream.total) == (12, 40) and stream.ragged
    assert len({image.tobytes() for batch in train for image in batch.x}) == 40


@for_some_seeds
def test_without_a_window_tasks_come_one_after_the_other(seed):
    _, tasks, ends = in_time(BLENDED[0], seed)
    np.testing.assert_array_equal(tasks, np.searchsorted(ends, np.arange(TRAIN), side="right"))


def test_examples_of_a_task_come_in_random_order():
    first, second = (look(BLENDED[0], seed).train[0].x for seed in (0, 1))
    places = identify(first)[1]
    assert places != sorted(places)
    assert not np.array_equal(first, second)


@for_some_seeds
def test_outside_the_window_a_blended_stream_is_pure(seed):
    _, tasks, ends = in_time(BLENDED[WINDOW], seed)
    far = (np.abs(np.arange(TRAIN)[:, None] + 0.5 - ends) > WINDOW).all(1)
    assert far.any()
    sequential = np.searchsorted(ends, np.arange(TRAIN), side="right")
    np.testing.assert_array_equal(tasks[far], sequential[far])


def test_inside_the_window_the_next_task_grows_smoothly():
    even = toy.dataset(train=(20,) * 6)  # tasks end at 40 and 80, whatever the key
    maker = scenarios.blended(SPLIT[3, "class"], 20)
    tasks = over_keys(maker, lambda stream: stream.task.reshape(-1), 400, even)
    share = (tasks[:, 20:60] == 1).mean(0).reshape(10, 4).mean(1)  # around the end of the first task
    assert share[0] == 0 and share[-1] == 1
    assert np.all(np.diff(share) >= 0) and np.all(np.diff(share) < 0.4)
    assert abs(share[4:6].mean() - 0.5) < 0.03
    assert np.sum((share > 0.02) & (share < 0.98)) >= 4


@for_some_seeds
def test_in_a_blended_stream_outputs_may_answer_once_their_task_has_begun(seed):
    stream, train, _ = look(BLENDED[WINDOW], seed)
    place = np.asarray(stream.labels)[0]
    met = 0
    for phase, batch in enumerate(train):
        met = max(met, batch.task.max())
        np.testing.assert_array_equal(np.asarray(stream.seen)[phase, place], place // 2 <= met)
