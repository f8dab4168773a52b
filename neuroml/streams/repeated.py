"""Scenarios that show the same images again and again: through another view, or under other labels, in each task."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from neuroml.errors import UsageError, unknown
from neuroml.streams.dataset import Dataset
from neuroml.streams.layout import Maker, as_it_is, check, heads, on_device, row_numbers
from neuroml.streams.stream import Stream

INTERPOLATION = {"nearest": 0, "bilinear": 1}


def permuted(
    tasks: int = 10,
    scenario: str = "domain",
    *,
    pad: int = 0,
    examples: int | None = None,
    shared_head: bool = False,
) -> Maker:
    """Shuffles the pixels of every image by one random permutation a task; all classes occur in all tasks.

    Args:
      tasks: number of permutations; none of them is the identity by construction.
      scenario: "domain" shares the outputs, "task" and "class" have outputs for every (task, class).
      pad: pixels of zeros added at each edge before the shuffle (van de Ven: 2, so that MNIST is 32 x 32).
      examples: training images of a task: the next so many of endless passes over all, each pass in a new random order
        (Elsayed and Mahmood 2024: 5,000). Default: all of them.
      shared_head: in the scenario "task", the tasks share their outputs and the network is only told which one it is
        (Masse et al. 2018).
    """
    if pad < 0:
        raise UsageError(f"pad={pad} must not be negative.")

    def settings(data, key):
        height, width, _ = data.shape
        pixels = (height + 2 * pad) * (width + 2 * pad)
        return jax.vmap(lambda k: jax.random.permutation(k, pixels))(jax.random.split(key, tasks))

    def view(images, permutation):
        images = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        pixels = images.reshape(images.shape[0], -1, images.shape[-1])
        return jnp.take_along_axis(pixels, permutation[:, :, None], axis=1).reshape(images.shape)

    return _repeated(tasks, scenario, settings, view, examples, shared_head)


def rotated(
    tasks: int = 20,
    scenario: str = "domain",
    *,
    largest: float = 180.0,
    interpolation: str = "bilinear",
    shared_head: bool = False,
) -> Maker:
    """Turns every image by one angle a task, uniform in [0, `largest`) degrees, in the image's dtype.

    Pixels are taken from between four others, "bilinear", or from the "nearest" one. `shared_head` as in `permuted`.
    """
    if not 0 <= largest < math.inf:
        raise UsageError(f"largest={largest} must be a number of degrees, at least 0.")
    if interpolation not in INTERPOLATION:
        raise unknown("interpolation", interpolation, INTERPOLATION)
    turn = functools.partial(_turn, order=INTERPOLATION[interpolation])

    def settings(data, key):
        return jax.random.uniform(key, (tasks,), maxval=jnp.deg2rad(largest))

    view = lambda images, angle: jax.vmap(turn)(images, angle)
    return _repeated(tasks, scenario, settings, view, shared_head=shared_head)


def label_permuted(tasks: int = 10, *, examples: int | None = None) -> Maker:
    """Keeps the images and shuffles what they are called, anew in each task (a domain-incremental stream).

    `examples` as in `permuted`.
    """
    base = _repeated(tasks, "domain", lambda data, key: (), as_it_is, examples)

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        draw = lambda k: jax.random.permutation(k, data.classes)
        return dataclasses.replace(base(data, key), labels=jax.vmap(draw)(jax.random.split(key, tasks)))

    return make


def random_labels(tasks: int = 50, *, examples: int = 1200) -> Maker:
    """Keeps a random set of training images, and gives every one of them a random label, anew in each task.

    What is tested is what was trained: there is nothing to generalize to. Reference: Kumar, Marklund, Van Roy 2023,
    "Maintaining plasticity in continual learning via regenerative regularization" (1,200 images of MNIST).
    """
    _check_numbers(tasks=tasks, examples=examples)

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        train = data.train_y.shape[0]
        if examples > train:
            raise UsageError(f"examples={examples}: {data.name} has {train} training images.")
        data = on_device(data)
        chosen = jax.random.permutation(jax.random.fold_in(key, 1), train)[:examples]
        drawn = jax.random.randint(key, (tasks, examples), 0, data.classes)
        rows, sizes = jnp.tile(chosen.astype(jnp.int32), (tasks, 1)), jnp.full(tasks, examples)
        outputs = jnp.ones((tasks, data.classes), bool)
        return Stream(
            data=_one_class_an_image(data),
            index=rows,
            task=row_numbers(rows),
            size=sizes,
            test_index=rows,
            test_size=sizes,
            labels=jnp.zeros((tasks, train), drawn.dtype).at[:, chosen].set(drawn),
            active=outputs,
            seen=outputs,
            settings=(),
            view=as_it_is,
            scenario="domain",
            boundaries=True,
            total=examples * tasks,
            smallest=examples,
        )

    return make


def _one_class_an_image(data: Dataset) -> Dataset:
    """Returns the training images, to be tested on too, each a class of its own, which every task names as it likes.

    They are the same for every key, so that runs in one batch share them.
    """
    own = jnp.arange(data.train_y.shape[0])
    return dataclasses.replace(data, train_y=own, test_x=data.train_x, test_y=own, test_counts=data.train_counts)


def _repeated(
    tasks: int,
    scenario: str,
    settings: Callable,
    view: Callable,
    examples: int | None = None,
    shared_head: bool = False,
) -> Maker:
    """All data, or the next so many `examples`, in every task, seen through a view of its own."""
    check(scenario)
    if shared_head and scenario == "class":
        raise UsageError("shared_head is for tasks that are told apart; class-incrementally each has its own outputs.")
    _check_numbers(tasks=tasks, examples=examples)
    answers = "domain" if shared_head else scenario

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        data, train, test = on_device(data), sum(data.train_counts), sum(data.test_counts)
        outputs = data.classes * (1 if answers == "domain" else tasks)
        active, seen = heads(answers, tasks, data.classes, outputs)
        width = train if examples is None else examples
        index = _in_turn(key, train, tasks, width) if examples else jnp.tile(jnp.arange(train), (tasks, 1))
        offset = jnp.arange(tasks)[:, None] * data.classes
        return Stream(
            data=data,
            index=index.astype(jnp.int32),
            task=row_numbers(index),
            size=jnp.full(tasks, width),
            test_index=jnp.tile(jnp.arange(test, dtype=jnp.int32), (tasks, 1)),
            test_size=jnp.full(tasks, test),
            labels=(offset + jnp.arange(data.classes)) % outputs,
            active=active,
            seen=seen,
            settings=settings(data, key),
            view=view,
            scenario=scenario,
            boundaries=True,
            total=width * tasks,
            smallest=width,
        )

    return make


def _check_numbers(**given: int | None) -> None:
    for name, value in given.items():
        if value is not None and value < 1:
            raise UsageError(f"{name}={value} must be at least 1.")


def _in_turn(key: PRNGKeyArray, train: int, tasks: int, examples: int) -> Array:
    """Returns [tasks, examples] indices: pass after pass over the training set, each in a new random order."""
    passes = -(-tasks * examples // train)
    draw = lambda k: jax.random.permutation(k, train)
    every = jax.vmap(draw)(jax.random.split(jax.random.fold_in(key, 1), passes)).reshape(-1)
    return every[: tasks * examples].reshape(tasks, examples)


def _turn(image: Array, angle: Array, *, order: int) -> Array:
    """Turns one image [height, width, channels] about its centre."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source = [cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2]
    turn = lambda plane: jax.scipy.ndimage.map_coordinates(plane.astype(jnp.float32), source, order=order)
    turned = jax.vmap(turn, in_axes=-1, out_axes=-1)(image)
    return (turned.round() if jnp.issubdtype(image.dtype, jnp.integer) else turned).astype(image.dtype)
