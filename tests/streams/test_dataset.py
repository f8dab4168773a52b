"""A data set is checked once, and is then a pytree with static counts."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml.errors import UsageError
from neuroml.streams.dataset import Dataset, every_nth

CLASSES = 3


def split(n, seed=0):
    """Random images, and labels that go round the classes."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 4, 5, 2), np.uint8)
    return images, np.arange(n) % CLASSES


@pytest.fixture
def dataset():
    return Dataset.from_arrays("toy", split(30), split(7, seed=1))


def test_from_arrays_counts_classes_and_keeps_pixels(dataset):
    images, labels = split(30)
    np.testing.assert_array_equal(dataset.train_x, images)
    np.testing.assert_array_equal(dataset.train_y, labels)
    assert (dataset.train_x.dtype, dataset.train_y.dtype) == (np.uint8, np.int32)
    assert (dataset.name, dataset.classes, dataset.scale, dataset.shape) == ("toy", 3, 255.0, (4, 5, 2))
    assert (dataset.train_counts, dataset.test_counts) == ((10, 10, 10), (3, 2, 2))


def test_a_missing_channel_axis_is_added():
    images, labels = split(6)
    dataset = Dataset.from_arrays("grey", (images[..., 0], labels), (images[..., 0], labels))
    assert dataset.train_x.shape == (6, 4, 5, 1)


def test_classes_without_images_are_counted_as_none():
    dataset = Dataset.from_arrays("toy", split(6), split(6), classes=5)
    assert dataset.train_counts == (2, 2, 2, 0, 0)


def test_jax_arrays_are_accepted():
    images, labels = split(6)
    pair = jnp.asarray(images), jnp.asarray(labels)
    assert Dataset.from_arrays("toy", pair, pair).train_counts == (2, 2, 2)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x, y: (x[:5], y), "5 images, but labels are [6]"),
        (lambda x, y: (x, y[:, None]), "labels are [6, 1]"),
        (lambda x, y: (x[0, 0], y), "[5, 2], not [n, H, W, C]"),
        (lambda x, y: (x[:0], y[:0]), "empty"),
        (lambda x, y: (x / 255, y), "float64, not uint8"),
        (lambda x, y: (x, y / 1), "labels are float64"),
        (lambda x, y: (x, y - 1), "a label is -1"),
        (lambda x, y: (x, y + 1), "a label is 3, but classes=3"),
    ],
)
@pytest.mark.parametrize("which", ["training", "test"])
def test_what_does_not_fit_is_named(change, words, which):
    good, bad = split(6), change(*split(6))
    train, test = (bad, good) if which == "training" else (good, bad)
    with pytest.raises(UsageError) as caught:
        Dataset.from_arrays("toy", train, test, classes=CLASSES)
    assert words in str(caught.value)
    assert f"toy, {which}" in str(caught.value)


def test_splits_must_agree_and_scale_must_cover_the_pixels():
    images, labels = split(6)
    with pytest.raises(UsageError, match="training images are .4, 5, 2., test images .4, 5, 1."):
        Dataset.from_arrays("toy", (images, labels), (images[..., :1], labels))
    with pytest.raises(UsageError, match="above scale=16"):
        Dataset.from_arrays("toy", (images, labels), (images, labels), scale=16.0)
    with pytest.raises(UsageError, match="scale is 0"):
        Dataset.from_arrays("toy", (images, labels), (images, labels), scale=0.0)


def test_jit_sees_static_counts_and_compiles_once(dataset):
    traces = []

    @jax.jit
    def first_class(data):
        traces.append(1)
        return jnp.arange(data.train_counts[0]), data.train_x[0] / data.scale

    for _ in range(2):
        index, image = first_class(dataset)
    assert index.shape == (10,)
    assert 0 <= image.min() and image.max() <= 1
    assert len(traces) == 1


def test_it_is_a_pytree_of_four_arrays(dataset):
    assert len(jax.tree.leaves(dataset)) == 4
    shapes = jax.tree.map(np.shape, dataset)  # leaves of any kind: vmap's axes, shapes, None
    assert (shapes.train_x, shapes.name) == ((30, 4, 5, 2), "toy")
    on_device = jax.device_put(dataset)
    assert on_device.train_x.dtype == jnp.uint8
    assert jax.tree.structure(on_device) == jax.tree.structure(dataset)


def test_it_is_frozen_and_can_be_pickled(dataset):
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"
    assert pickle.loads(pickle.dumps(dataset)).train_counts == dataset.train_counts


def test_held_out_splits_the_training_images_of_each_class(dataset):
    tuning = dataset.held_out(every=5)
    assert (tuning.train_counts, tuning.test_counts) == ((8, 8, 8), (2, 2, 2))
    assert (tuning.name, tuning.classes, tuning.scale) == ("toy", 3, 255.0)

    def images(x):
        return {image.tobytes() for image in x}

    assert not images(tuning.train_x) & images(tuning.test_x)
    assert images(tuning.train_x) | images(tuning.test_x) == images(dataset.train_x)
    assert not images(dataset.test_x) & (images(tuning.train_x) | images(tuning.test_x))
    np.testing.assert_array_equal(tuning.test_x, dataset.held_out(every=5).test_x)


@pytest.mark.parametrize("every, words", [(1, "nothing would be left"), (11, "Use 10 or fewer")])
def test_held_out_refuses_an_empty_side(dataset, every, words):
    with pytest.raises(UsageError, match=words):
        dataset.held_out(every)


def test_every_nth_counts_within_each_class():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    marked = every_nth(labels, 3)
    for label in range(7):
        places = np.flatnonzero(marked[labels == label])
        np.testing.assert_array_equal(places, np.arange(2, np.sum(labels == label), 3))
