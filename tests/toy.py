"""Small fabricated data and experiments: every image is unique, classes differ in size."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import neuroml
from neuroml.experiment import Experiment
from neuroml.methods import methods
from neuroml.streams import scenarios
from neuroml.streams.dataset import Dataset
from neuroml.streams.stream import Batch

TRAIN = (5, 9, 4, 7, 6, 8)
TEST = (2, 3, 1, 2, 4, 5)


def dataset(train=TRAIN, test=TEST, shape=(4, 4, 1), seed=0):
    """Noisy images around a mean for each class, in random order."""
    random = np.random.default_rng(seed)
    means = random.integers(0, 256, (len(train), *shape))

    def part(counts):
        labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
        images = np.clip(means[labels] + random.integers(-60, 61, (labels.size, *shape)), 0, 255)
        return images.astype(np.uint8), labels

    data = Dataset.from_arrays("toy", part(train), part(test), classes=len(train))
    assert len(numbers(data)) == sum(train) + sum(test)
    return data


def numbers(data):
    """Returns {bytes of an image: (part, place, class)}."""
    parts = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    return {
        np.asarray(image).tobytes(): (part, place, int(label))
        for part, (images, labels) in parts.items()
        for place, (image, label) in enumerate(zip(images, labels, strict=True))
    }


@functools.cache
def experiment(method="naive", *, hidden=(6,), scenario="class", tasks=3, window=None, **settings):
    """A tiny experiment on `dataset()`, the same object (and so the same compiled program) for the same arguments.

    Two passes in batches of 4, so phases of 9 to 17 images differ in length.
    """
    recipe = methods[method] if isinstance(method, str) else method
    maker = scenarios.split(tasks, scenario)
    maker = maker if window is None else scenarios.blended(maker, window)
    length = {} if {"epochs", "iterations"} & settings.keys() else {"epochs": 2}
    network = lambda shape, outputs: neuroml.mlp(shape, hidden, outputs)
    return Experiment(recipe, network, maker, **{"batch_size": 4, "samples": 8, **length, **settings})


def settings_of(experiment, **given):
    """All hyperparameters of one run as numbers."""
    return {**experiment.method.hyperparameters, "learning_rate": 0.01, **given}


class ByHand(NamedTuple):
    """What a plain loop leaves behind."""

    state: Any
    accuracy: np.ndarray  # [phases, tasks]
    losses: list[list[float]]  # of each phase, as long as the phase
    online: list[list[float]]


def train_by_hand(experiment, data, seed, hyperparameters):
    """The experiment as a user would write it: a Python loop over host batches, and nothing but `Learner.step`."""
    key = jax.random.key(seed)
    hyper = {name: jnp.float32(value) for name, value in hyperparameters.items()}
    stream, state = jax.jit(experiment.begin)(key, hyper, data)
    order = jax.jit(experiment.order)
    finish = jax.jit(experiment.finish)
    step = jax.jit(experiment.learner(stream, hyper).step)
    accuracy, losses, online = [], [], []
    for phase in range(stream.phases):
        _, step_keys, positions = order(key, stream, jnp.int32(phase))
        steps = experiment.iterations or math.ceil(experiment.epochs * int(stream.size[phase]) / experiment.batch_size)
        infos = []
        for batch, step_key in zip(host_batches(stream, data, phase, positions[:steps]), step_keys, strict=False):
            state, info = step(state, batch, step_key)
            infos.append(info)
        assert len(infos) == steps
        state, row, _ = finish(key, hyper, stream, jnp.int32(phase), state)
        accuracy.append(np.asarray(row))
        losses.append([float(info.loss) for info in infos])
        online.append([float(info.accuracy) for info in infos])
    return ByHand(state, np.stack(accuracy), losses, online)


def host_batches(stream, data, phase, positions):
    """Yields batches made in numpy from the data on the host."""
    index, labels, active = (np.asarray(a) for a in (stream.index[phase], stream.labels, stream.active))
    images, classes = np.asarray(data.train_x), np.asarray(data.train_y)
    for where in index[np.asarray(positions)]:
        task = np.full(len(where), phase, np.int32)
        yield Batch(images[where], labels[task, classes[where]], task, active[task])
