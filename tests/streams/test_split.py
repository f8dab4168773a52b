"""A split stream shows every class in one task, in an order drawn from the key, with the labels of its scenario."""

import numpy as np
import pytest
import toy
from toy_streams import CLASSES, SCENARIOS, SPLIT, TEST, TRAIN, for_some_seeds, identify, look, over_keys

from neuroml.streams import scenarios
from neuroml.streams.stream import steps_of


def order_of(tasks, seed):
    """The classes in the order of their outputs in the class-incremental stream of the same key."""
    labels = look(SPLIT[tasks, "class"], seed).stream.labels
    return np.argsort(np.asarray(labels)[0])


@for_some_seeds
def test_the_class_order_is_a_permutation_drawn_from_the_key(seed):
    order = order_of(3, seed)
    assert sorted(order) == list(range(CLASSES))
    np.testing.assert_array_equal(order, order_of(3, seed))
    np.testing.assert_array_equal(order, order_of(2, seed))  # whatever the number of tasks


def test_an_ordered_split_has_the_classes_by_number_whatever_the_key():
    for seed in range(3):
        labels = look(scenarios.split(3, "class", ordered=True), seed).stream.labels
        np.testing.assert_array_equal(labels[0], np.arange(CLASSES))


def test_every_class_order_comes_equally_often():
    labels = over_keys(SPLIT[3, "class"], lambda stream: stream.labels[0], 1200)
    for place in range(CLASSES):
        counts = np.bincount(labels[:, place], minlength=CLASSES)
        assert counts.min() > 140 and counts.max() < 260  # 200 expected, standard deviation 13


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
@for_some_seeds
def test_split_shows_every_image_once_in_its_task_with_its_label(tasks, scenario, seed):
    stream, train, test = look(SPLIT[tasks, scenario], seed)
    group, place = CLASSES // tasks, np.argsort(order_of(tasks, seed))
    for batches, part, total in ((train, "train", TRAIN), (test, "test", TEST)):
        places = []
        for task, batch in enumerate(batches):
            parts, where, classes = identify(batch.x)
            assert parts == {part}
            places += where
            assert set(classes) == set(np.flatnonzero(place // group == task))
            np.testing.assert_array_equal(batch.task, task)
            np.testing.assert_array_equal(batch.y, place[classes] % group if scenario == "domain" else place[classes])
            outputs = np.arange(group if scenario == "domain" else CLASSES)
            active = outputs // group == task if scenario == "task" else outputs >= 0
            np.testing.assert_array_equal(batch.active, np.tile(active, (len(where), 1)))
        assert sorted(places) == list(range(total))


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
@for_some_seeds
def test_what_split_says_of_itself_is_true(tasks, scenario, seed):
    stream, train, test = look(SPLIT[tasks, scenario], seed)
    sizes = [len(batch.y) for batch in train]
    assert (stream.phases, stream.tasks) == (tasks, tasks)
    assert stream.outputs == (CLASSES // tasks if scenario == "domain" else CLASSES)
    assert (stream.total, sum(sizes)) == (TRAIN, TRAIN)
    assert 0 < stream.smallest <= min(sizes) and stream.index.shape[1] >= max(sizes)
    assert stream.ragged and stream.boundaries and stream.scenario == scenario
    assert steps_of(stream, batch_size=4, epochs=3) * 4 >= 3 * max(sizes)
    assert [len(batch.y) for batch in test] == np.asarray(stream.test_size).tolist()
    met = np.zeros(CLASSES, bool)
    for phase, batch in enumerate(train):
        met[np.unique(batch.y)] = True
        wanted = met if scenario == "class" else np.ones(stream.outputs, bool)
        np.testing.assert_array_equal(stream.seen[phase], wanted)


def test_the_bounds_of_split_are_tight():
    # Over many orders, some phase is as small, and some as large, as the static shapes allow for.
    size = over_keys(SPLIT[3, "class"], lambda stream: stream.size, 200)
    stream = look(SPLIT[3, "class"], 0).stream
    assert (size.min(), size.max()) == (stream.smallest, stream.index.shape[1]) == (9, 17)


def test_equal_classes_leave_no_padding():
    stream, *_ = look(SPLIT[2, "class"], 0, toy.dataset(train=(4,) * 6))
    assert not stream.ragged
    assert (stream.smallest, stream.index.shape) == (12, (2, 12))
