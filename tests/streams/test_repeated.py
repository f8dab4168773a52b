"""Streams that show the same images in every task: permuted, rotated, or with other labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_streams import (
    CLASSES,
    DATA,
    PERMUTED,
    RELABELLED,
    ROTATED,
    SCENARIOS,
    TASKS,
    TEST,
    TRAIN,
    for_some_seeds,
    identify,
    look,
    over_keys,
    rows,
)

from neuroml.errors import UsageError
from neuroml.streams import scenarios

# --- permuted, rotated, label_permuted ---


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
    labels = over_keys(RANDOM, lambda stream: rows(stream)[0].y, 300)
    assert labels.shape == (300, 4, 9)
    counts = np.bincount(labels.reshape(-1), minlength=CLASSES)
    assert counts.size == CLASSES and counts.min() > 1650 and counts.max() < 1950  # 1,800, standard deviation 39
    assert abs((labels[:, 0] == labels[:, 1]).mean() - 1 / CLASSES) < 0.03
