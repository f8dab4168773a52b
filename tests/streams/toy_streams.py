"""Streams over the toy data set, read as a learner would read them: compiled once, and returned in numpy."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroml.streams import scenarios

SCENARIOS = ("task", "domain", "class")
CLASSES, TRAIN, TEST = len(toy.TRAIN), sum(toy.TRAIN), sum(toy.TEST)
DATA = toy.dataset()
KNOWN = toy.numbers(DATA)
TASKS, WINDOW = 3, 8

# The same makers in every file, so that each is compiled once.
SPLIT = {(tasks, name): scenarios.split(tasks, name) for tasks in (2, 3) for name in SCENARIOS}
PERMUTED = {name: scenarios.permuted(TASKS, name, pad=1) for name in SCENARIOS}
ROTATED = scenarios.rotated(TASKS, "class", largest=90.0)
RELABELLED = scenarios.label_permuted(TASKS)
JOINT = {name: scenarios.joint(SPLIT[3, name]) for name in SCENARIOS}
BLENDED = {window: scenarios.blended(SPLIT[3, "class"], window) for window in (0, WINDOW)}

some_seeds = [given(seed=st.integers(0, 2**32 - 1)), settings(max_examples=10, deadline=None, derandomize=True)]


def for_some_seeds(test):
    return functools.reduce(lambda inner, wrap: wrap(inner), reversed(some_seeds), test)


class Seen(NamedTuple):
    """All that a stream shows, in numpy: a list of training batches and one of test batches."""

    stream: Any
    train: list[Any]
    test: list[Any]


@jax.jit
def rows(stream):
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
    train, (test, real) = jax.tree.map(np.asarray, rows(stream))
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
