"""Small fabricated data and experiments: every image is unique, classes differ in size."""

import dataclasses
import functools
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import neuroml
from neuroml.experiment import Experiment
from neuroml.methods import methods
from neuroml.streams import scenarios
from neuroml.streams.dataset import Dataset
from neuroml.streams.stream import Batch

TRAIN = (5, 9, 4, 7, 6, 8)
TEST = (2, 3, 1, 2, 4, 5)
FOLDER = pathlib.Path(__file__).parent
SEED = 6  # its class order gives the phases of `experiment()` 6, 9 and 6 steps


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


def _everything(at, given):
    ewc = neuroml.ewc(given["strength"])
    er = neuroml.er(at.task.loss, at.example, neuroml.memory.reservoir(12), batch_size=at.batch_size)
    return optax.chain(ewc, er, at.optimizer)


# One recipe that uses all a learner has: keys, batches, a memory, importance and consolidation.
EVERYTHING = dataclasses.replace(methods["ewc"], transform=_everything, hyperparameters={"strength": 100.0}, options={})


@functools.cache
def experiment(method="naive", *, hidden=(6,), scenario="class", tasks=3, window=None, **settings):
    """A tiny experiment on `dataset()`, the same object (and so the same compiled program) for the same arguments.

    Two passes in batches of 4, so phases of 9 to 17 images differ in length.
    """
    recipe = EVERYTHING if method == "everything" else methods[method]
    maker = scenarios.split(tasks, scenario)
    maker = maker if window is None else scenarios.blended(maker, window)
    length = {} if {"epochs", "iterations"} & settings.keys() else {"epochs": 2}
    network = lambda shape, outputs: neuroml.mlp(shape, hidden, outputs)
    return Experiment(recipe, network, maker, **{"batch_size": 4, "samples": 8, **length, **settings})


def numbers_of(experiment, **given):
    """All hyperparameters of one run, as the scalars that the methods of `Experiment` take."""
    full = {**experiment.method.hyperparameters, "learning_rate": 0.01, **given}
    return {name: jnp.float32(value) for name, value in full.items()}


def compiled(learner):
    """Returns the learner with each of its functions compiled: left alone, every operation is compiled by itself."""
    names = ("init", "step", "consolidate", "predict", "prepare", "settle", "inspect")
    return learner._replace(**{name: jax.jit(getattr(learner, name)) for name in names})


@functools.cache
def whole(experiment):
    """Returns `Experiment.whole`, compiled once for an experiment."""
    return jax.jit(experiment.whole)


class ByHand(NamedTuple):
    """What a plain loop leaves behind."""

    state: Any
    accuracy: np.ndarray  # [phases, tasks]
    losses: list[list[float]]  # of each phase, as long as the phase
    online: list[list[float]]


@functools.cache
def trained_by_hand(experiment, seed):
    """The experiment as a user would write it: a Python loop over host batches, and nothing but `Learner.step`."""
    data, key, hyper = dataset(), jax.random.key(seed), numbers_of(experiment)
    stream, state = jax.jit(experiment.begin)(key, hyper, data)
    order, finish, step = map(jax.jit, (experiment.order, experiment.finish, experiment.learner(stream, hyper).step))
    accuracy, losses, online = [], [], []
    for phase in range(stream.phases):
        _, step_keys, positions = order(key, stream, jnp.int32(phase))
        steps = experiment.iterations or math.ceil(experiment.epochs * int(stream.size[phase]) / experiment.batch_size)
        infos = []
        for batch, step_key in zip(host_batches(stream, data, phase, positions[:steps]), step_keys, strict=False):
            state, info = step(state, batch, step_key)
            infos.append(info)
        assert len(infos) == steps
        state, found = finish(key, hyper, stream, jnp.int32(phase), state)
        accuracy.append(np.asarray(found.accuracy))
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
