"""Every scenario uses every training image as promised, keeps test images out, and labels all of them right."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroml.errors import UsageError
from neuroml.streams import scenarios
from neuroml.streams.stream import steps_of

SCENARIOS = ("task", "domain", "class")
CLASSES, TRAIN, TEST = len(toy.TRAIN), sum(toy.TRAIN), sum(toy.TEST)
DATA = toy.dataset()
KNOWN = toy.numbers(DATA)
some_seeds = [given(seed=st.integers(0, 2**32 - 1)), settings(max_examples=10, deadline=None, derandomize=True)]


def for_some_seeds(test):
    return functools.reduce(lambda inner, wrap: wrap(inner), reversed(some_seeds), test)


class Seen(NamedTuple):
    """All that a stream shows, in numpy: a list of training batches and one of test batches."""

    stream: Any
    train: list[Any]
    test: list[Any]


@jax.jit
def _rows(stream):
    train = lambda phase: stream.train_batch(phase, jnp.arange(stream.index.shape[1]))
    return jax.vmap(train)(jnp.arange(stream.phases)), jax.vmap(stream.test_batch)(jnp.arange(stream.tasks))


@functools.cache
def compiled(maker):
    return jax.jit(maker)


def over_keys(maker, read, count, data=DATA):
    """Returns what `read(stream)` gives for the streams of many keys, in numpy."""
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: read(maker(data, key))))(keys))


def look(maker, seed, data=DATA):
    """Makes a stream inside jit, and reads it as a learner would."""
    stream = compiled(maker)(data, jax.random.key(seed))
    train, (test, real) = jax.tree.map(np.asarray, _rows(stream))
    row = lambda batch, i, kept: jax.tree.map(lambda leaf: leaf[i][kept], batch)
    size = np.asarray(stream.size)
    return Seen(
        stream,
        [row(train, i, slice(size[i])) for i in range(stream.phases)],
        [row(test, i, real[i]) for i in range(stream.tasks)],
    )


def identify(images):
    """Returns part, place and class of each image; KeyError for one that is not in the data set as it is."""
    found = [KNOWN[image.tobytes()] for image in images]
    return {part for part, _, _ in found}, [place for _, place, _ in found], np.array([c for *_, c in found])


SPLIT = {(tasks, name): scenarios.split(tasks, name) for tasks in (2, 3) for name in SCENARIOS}


def order_of(tasks, seed):
    """The classes in the order of their outputs in the class-incremental stream of the same key."""
    labels = look(SPLIT[tasks, "class"], seed).stream.labels
    return np.argsort(np.asarray(labels)[0])


# --- split ---


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


# --- permuted, rotated, label_permuted ---

TASKS = 3
PERMUTED = {name: scenarios.permuted(TASKS, name, pad=1) for name in SCENARIOS}
ROTATED = scenarios.rotated(TASKS, "class", largest=90.0)
RELABELLED = scenarios.label_permuted(TASKS)


@pytest.mark.parametrize("scenario", SCENARIOS)
@for_some_seeds
def test_permuted_shuffles_pixels_and_nothing_else(scenario, seed):
    stream, train, test = look(PERMUTED[scenario], seed)
    permutations = np.asarray(stream.settings)
    np.testing.assert_array_equal(np.sort(permutations, axis=1), np.tile(np.arange(36), (TASKS, 1)))
    assert len({tuple(row) for row in permutations}) == TASKS
    assert tuple(range(36)) not in {tuple(row) for row in permutations}
    for batches, part, total in ((train, "train", TRAIN), (test, "test", TEST)):
        for task, batch in enumerate(batches):
            padded = np.empty_like(batch.x.reshape(total, 36))
            padded[:, permutations[task]] = batch.x.reshape(total, 36)
            padded = padded.reshape(total, 6, 6, 1)
            parts, where, classes = identify(padded[:, 1:-1, 1:-1])
            assert parts == {part} and sorted(where) == list(range(total))
            assert not np.delete(np.delete(padded, slice(1, 5), 1), slice(1, 5), 2).any()
            np.testing.assert_array_equal(batch.y, classes + (0 if scenario == "domain" else task * CLASSES))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_repeated_streams_give_each_task_its_outputs(scenario):
    stream, train, _ = look(PERMUTED[scenario], 0)
    owner = np.zeros(CLASSES) if scenario == "domain" else np.repeat(np.arange(TASKS), CLASSES)
    assert stream.outputs == len(owner)
    assert not stream.ragged and stream.boundaries
    assert (stream.smallest, stream.total, stream.index.shape) == (TRAIN, TASKS * TRAIN, (TASKS, TRAIN))
    for task, batch in enumerate(train):
        active = owner == task if scenario == "task" else owner >= 0
        np.testing.assert_array_equal(batch.active, np.tile(active, (TRAIN, 1)))
        np.testing.assert_array_equal(stream.seen[task], owner <= task if scenario == "class" else owner >= 0)


@pytest.mark.parametrize("make", [scenarios.permuted, scenarios.rotated])
def test_tasks_that_share_a_head_are_told_apart_and_answer_alike(make):
    key = jax.random.key(0)
    told, untold = make(3, "task", shared_head=True)(DATA, key), make(3, "domain")(DATA, key)
    assert (told.scenario, told.outputs, untold.outputs) == ("task", DATA.classes, DATA.classes)
    for name in ("labels", "active", "seen", "settings", "index"):
        np.testing.assert_array_equal(getattr(told, name), getattr(untold, name))


def test_rotated_turns_by_the_angle_of_the_task():
    stream, train, _ = look(ROTATED, 0)
    images = np.asarray(DATA.train_x)
    turn = lambda degrees: np.asarray(stream.view(images, jnp.full(TRAIN, np.deg2rad(degrees))))
    assert turn(30).dtype == images.dtype
    np.testing.assert_array_equal(turn(0), images)
    quarter = turn(90)
    directions = [np.array_equal(quarter, np.rot90(images, way, axes=(1, 2))) for way in (1, -1)]
    assert sorted(directions) == [False, True]
    np.testing.assert_array_equal(turn(180), np.rot90(images, 2, axes=(1, 2)))
    angles = np.asarray(stream.settings)
    assert len(set(angles.tolist())) == TASKS and (0 <= angles).all() and (angles < np.pi / 2).all()
    for task, batch in enumerate(train):
        np.testing.assert_array_equal(batch.x, turn(np.rad2deg(angles[task])))
        np.testing.assert_array_equal(batch.y, np.asarray(DATA.train_y) + task * CLASSES)


def test_nearest_pixels_are_pixels_of_the_image():
    stream = look(scenarios.rotated(TASKS, interpolation="nearest"), 0).stream
    images = np.asarray(DATA.train_x)
    turned = np.asarray(stream.view(images, jnp.full(TRAIN, np.deg2rad(40))))
    assert all(
        set(one.ravel().tolist()) <= {0, *image.ravel().tolist()} for one, image in zip(turned, images, strict=True)
    )
    with pytest.raises(UsageError, match="'cubic'.*nearest"):
        scenarios.rotated(interpolation="cubic")


@for_some_seeds
def test_label_permuted_keeps_images_and_changes_their_names(seed):
    stream, train, test = look(RELABELLED, seed)
    names = np.asarray(stream.labels)
    np.testing.assert_array_equal(np.sort(names, axis=1), np.tile(np.arange(CLASSES), (TASKS, 1)))
    for batches, part in ((train, "train"), (test, "test")):
        for task, batch in enumerate(batches):
            parts, where, classes = identify(batch.x)
            assert parts == {part} and sorted(where) == list(range(TRAIN if part == "train" else TEST))
            np.testing.assert_array_equal(batch.y, names[task, classes])
    assert stream.scenario == "domain"


def test_label_permuted_tasks_differ():
    names = over_keys(RELABELLED, lambda stream: stream.labels, 20)
    assert len({tuple(row) for row in names.reshape(-1, CLASSES)}) > 50


# --- streams in short tasks, for plasticity ---

SHORT = scenarios.permuted(7, examples=11)
RANDOM = scenarios.random_labels(4, examples=9)


@for_some_seeds
def test_short_tasks_take_the_next_examples_of_endless_passes(seed):
    stream, train, _ = look(SHORT, seed)
    index = np.asarray(stream.index).reshape(-1)
    assert index.size == 77 and (stream.total, stream.smallest, stream.ragged) == (77, 11, False)
    assert sorted(index[:TRAIN]) == list(range(TRAIN))  # a whole pass before anything comes again
    assert len(set(index[TRAIN:].tolist())) == 77 - TRAIN
    np.testing.assert_array_equal(np.concatenate([b.y for b in train]), np.asarray(DATA.train_y)[index])
    assert not np.array_equal(index[:TRAIN], look(SHORT, seed + 1).stream.index.reshape(-1)[:TRAIN])


@for_some_seeds
def test_random_labels_keep_the_images_and_draw_a_label_for_each(seed):
    stream, train, test = look(RANDOM, seed)
    assert (stream.phases, stream.outputs, stream.total) == (4, CLASSES, 36)
    for batch, known in zip(train, test, strict=True):
        np.testing.assert_array_equal(batch.x, train[0].x)
        jax.tree.map(np.testing.assert_array_equal, batch, known)
    assert identify(train[0].x)[0] == {"train"} and len(set(identify(train[0].x)[1])) == 9


def test_random_labels_of_many_keys_share_the_images():
    """As a loop of compiled steps demands, which batches all of a stream but the data."""
    stream = jax.eval_shape(RANDOM, DATA, jax.random.key(0))
    axes = dataclasses.replace(jax.tree.map(lambda _: 0, stream), data=None)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    together = jax.jit(jax.vmap(lambda key: RANDOM(DATA, key), out_axes=axes))(keys)
    np.testing.assert_array_equal(together.data.train_x, DATA.train_x)
    for place, key in enumerate(keys):
        np.testing.assert_array_equal(together.index[place], RANDOM(DATA, key).index)


def test_random_labels_are_uniform_and_independent():
    labels = over_keys(RANDOM, lambda stream: _rows(stream)[0].y, 300)
    assert labels.shape == (300, 4, 9)
    counts = np.bincount(labels.reshape(-1), minlength=CLASSES)
    assert counts.size == CLASSES and counts.min() > 1650 and counts.max() < 1950  # 1,800, standard deviation 39
    assert abs((labels[:, 0] == labels[:, 1]).mean() - 1 / CLASSES) < 0.03


# --- joint ---

JOINT = {name: scenarios.joint(SPLIT[3, name]) for name in SCENARIOS}


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

WINDOW = 8
BLENDED = {window: scenarios.blended(SPLIT[3, "class"], window) for window in (0, WINDOW)}


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


# --- all of them ---

ALL = {
    "split": SPLIT[3, "class"],
    "permuted": PERMUTED["task"],
    "rotated": ROTATED,
    "label_permuted": RELABELLED,
    "joint": JOINT["domain"],
    "blended": BLENDED[WINDOW],
}
each = pytest.mark.parametrize("maker", ALL.values(), ids=ALL)


@each
def test_a_maker_vmapped_over_keys_is_the_maker_for_each_key(maker):
    together = over_keys(maker, lambda stream: jax.tree.leaves(stream)[4:], 3)  # all but the data
    for i in range(3):
        alone = jax.tree.leaves(compiled(maker)(DATA, jax.random.key(i)))[4:]
        jax.tree.map(np.testing.assert_array_equal, [leaf[i] for leaf in together], alone)


@each
def test_two_keys_make_two_streams_and_one_key_makes_one(maker):
    leaves = lambda seed: jax.tree.leaves(look(maker, seed)[1:])
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))
    assert same(0, 0)
    assert not same(0, 1)


@pytest.mark.parametrize("name", ["permuted", "blended"])
def test_a_stream_outside_jit_is_the_one_inside(name):
    maker = ALL[name]
    outside, inside = maker(DATA, jax.random.key(5)), compiled(maker)(DATA, jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, outside, inside)


@each
def test_no_test_image_is_shown_in_training(maker):
    stream, train, test = look(maker, 0)
    if maker not in (PERMUTED["task"], ROTATED):  # their images are changed
        assert identify(np.concatenate([batch.x for batch in train]))[0] == {"train"}
        assert identify(np.concatenate([batch.x for batch in test]))[0] == {"test"}
    for index, images in ((stream.index, TRAIN), (stream.test_index, TEST)):
        assert index.dtype == jnp.int32 and index.min() >= 0 and index.max() < images


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scenarios.split(4)(DATA, jax.random.key(0)), ("6 classes", "toy", "4 equal tasks")),
        (lambda: scenarios.split(0)(DATA, jax.random.key(0)), ("0 equal tasks",)),
        (lambda: scenarios.split(5, "clas"), ("'clas'", "'class'", "domain, task")),
        (lambda: scenarios.permuted(0), ("tasks=0",)),
        (lambda: scenarios.permuted(2, pad=-1), ("pad=-1",)),
        (lambda: scenarios.permuted(2, "tasks"), ("'tasks'", "'task'")),
        (lambda: scenarios.permuted(2, "class", shared_head=True), ("shared_head", "class")),
        (lambda: scenarios.rotated(2, "class", shared_head=True), ("shared_head", "class")),
        (lambda: scenarios.rotated(-1), ("tasks=-1",)),
        (lambda: scenarios.rotated(largest=-90.0), ("largest=-90.0",)),
        (lambda: scenarios.rotated(largest=float("nan")), ("largest=nan",)),
        (lambda: scenarios.label_permuted(0), ("tasks=0",)),
        (lambda: scenarios.permuted(2, examples=0), ("examples=0",)),
        (lambda: scenarios.random_labels(2, examples=0), ("examples=0",)),
        (lambda: scenarios.random_labels(2, examples=99)(DATA, jax.random.key(0)), ("examples=99", "39 training")),
        (lambda: scenarios.blended(SPLIT[3, "class"], -5), ("window=-5",)),
        (
            lambda: scenarios.split(3)(toy.dataset(train=(3, 3, 3, 3, 0, 0)), jax.random.key(0)),
            ("2 classes", "toy", "no training images"),
        ),
        (
            lambda: scenarios.split(3)(toy.dataset(test=(0, 1, 2, 0, 0, 1)), jax.random.key(0)),
            ("3 classes", "toy", "no test images"),
        ),
        (
            lambda: scenarios.blended(scenarios.split(6), 1)(toy.dataset(train=(1, 1, 1, 1, 1, 3)), jax.random.key(0)),
            ("8 training images", "toy", "6 phases"),
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(UsageError) as error:
        make()
    for word in words:
        assert word in str(error.value)
