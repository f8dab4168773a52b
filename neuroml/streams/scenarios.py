"""Scenarios: ways to make a stream of tasks out of one data set.

Each function returns a `Maker`, `(data, key) -> Stream`, a pure function that runs inside jit: class orders,
permutations and angles come from the key, so every seed of a vmapped experiment has its own.

"task": one head a task, and the network is told which. "domain": the tasks share their outputs. "class": one head for
all classes, and nobody says which task it is (van de Ven et al. 2022, Nature Machine Intelligence 4:1185).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from neuroml.errors import UsageError, unknown
from neuroml.streams.dataset import Dataset
from neuroml.streams.stream import Stream

SCENARIOS = ("task", "domain", "class")
Maker = Callable[[Dataset, PRNGKeyArray], Stream]


def split(tasks: int = 5, scenario: str = "class") -> Maker:
    """Splits the classes, in an order drawn from the key, into `tasks` groups of equal size.

    Output o stands for the o-th class of that order (task, class), or for the place within its task (domain).
    """
    _check(scenario)

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        if tasks < 1 or data.classes % tasks:
            raise UsageError(f"{data.classes} classes of {data.name} do not split into {tasks} equal tasks.")
        data, group = _on_device(data), data.classes // tasks
        for part, counts in (("training", data.train_counts), ("test", data.test_counts)):
            if not any(sorted(counts)[:group]):
                empty = f"{counts.count(0)} classes of {data.name} have no {part} images"
                raise UsageError(f"{empty}, so a task of {group} may have none.")
        place = jnp.argsort(jax.random.permutation(key, data.classes))  # place of each class in the order
        index, size = _grouped(data.train_y, data.train_counts, place, tasks)
        test_index, test_size = _grouped(data.test_y, data.test_counts, place, tasks)
        outputs = group if scenario == "domain" else data.classes
        active, seen = _heads(scenario, tasks, group, outputs)
        return Stream(
            data=data,
            index=index,
            task=_row_numbers(index),
            size=size,
            test_index=test_index,
            test_size=test_size,
            labels=jnp.tile(place % outputs, (tasks, 1)),
            active=active,
            seen=seen,
            settings=(),
            view=_as_it_is,
            scenario=scenario,
            boundaries=True,
            total=sum(data.train_counts),
            smallest=sum(sorted(data.train_counts)[:group]),
        )

    return make


def permuted(tasks: int = 10, scenario: str = "domain", *, pad: int = 0) -> Maker:
    """Shuffles the pixels of every image by one random permutation a task; all classes occur in all tasks.

    Args:
      tasks: number of permutations; none of them is the identity by construction.
      scenario: "domain" shares the outputs, "task" and "class" have outputs for every (task, class).
      pad: pixels of zeros added at each edge before the shuffle (van de Ven: 2, so that MNIST is 32 x 32).
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

    return _repeated(tasks, scenario, settings, view)


def rotated(tasks: int = 20, scenario: str = "domain", *, largest: float = 180.0) -> Maker:
    """Turns every image by one angle a task, uniform in [0, `largest`) degrees; bilinear, in the image's dtype."""

    def settings(data, key):
        return jax.random.uniform(key, (tasks,), maxval=jnp.deg2rad(largest))

    return _repeated(tasks, scenario, settings, lambda images, angle: jax.vmap(_turn)(images, angle))


def label_permuted(tasks: int = 10) -> Maker:
    """Keeps the images and shuffles what they are called, anew in each task (a domain-incremental stream)."""
    base = _repeated(tasks, "domain", lambda data, key: (), _as_it_is)

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        draw = lambda k: jax.random.permutation(k, data.classes)
        return dataclasses.replace(base(data, key), labels=jax.vmap(draw)(jax.random.split(key, tasks)))

    return make


def joint(maker: Maker) -> Maker:
    """Trains on all tasks at once, in one phase: the upper reference. Tests stay those of the tasks."""

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        stream = maker(data, key)
        index, task = _in_a_row(stream)
        return dataclasses.replace(
            stream,
            index=index[None],
            task=task[None],
            size=jnp.array([stream.total]),
            seen=stream.seen[-1:],
            boundaries=True,  # also over a blended stream, whose order in time would be kept otherwise
            smallest=stream.total,
        )

    return make


def blended(maker: Maker, window: int) -> Maker:
    """Lets each task pass into the next over about `window` examples, and tells nobody where.

    Every training example comes once. It is moved in time by a uniform draw from +-`window` / 2, so around the end of
    a task the share of the next one grows smoothly. As many phases as tasks, of equal length, only set when accuracy
    is measured.
    """
    if window < 0:
        raise UsageError(f"window={window} must not be negative.")

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        stream = maker(data, key)
        index, task = _in_a_row(stream)
        within, jitter = jax.random.uniform(jax.random.fold_in(key, 1), (2, stream.total))
        shuffled = jnp.argsort(task + within)  # tasks in order, examples of a task in random order
        time = jnp.argsort(jnp.arange(stream.total) + window * (jitter - 0.5))
        index, task = index[shuffled][time], task[shuffled][time]
        width = -(-stream.total // stream.phases)
        smallest = stream.total - width * (stream.phases - 1)
        if smallest < 1:
            given = f"{stream.total} training images of {data.name}"
            raise UsageError(f"{given} do not fill {stream.phases} phases.")
        fold = lambda row: jnp.pad(row, (0, width * stream.phases - stream.total)).reshape(stream.phases, width)
        size = jnp.minimum(width, stream.total - width * jnp.arange(stream.phases))
        newest = jax.lax.cummax(fold(task).max(axis=1))
        return dataclasses.replace(
            stream,
            index=fold(index),
            task=fold(task),
            size=size,
            seen=stream.seen[newest],
            boundaries=False,
            smallest=smallest,
        )

    return make


def _repeated(tasks: int, scenario: str, settings: Callable, view: Callable) -> Maker:
    """All data in every task, seen through a view of its own."""
    _check(scenario)
    if tasks < 1:
        raise UsageError(f"tasks={tasks} must be at least 1.")

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        data, train, test = _on_device(data), sum(data.train_counts), sum(data.test_counts)
        outputs = data.classes * (1 if scenario == "domain" else tasks)
        active, seen = _heads(scenario, tasks, data.classes, outputs)
        index = jnp.tile(jnp.arange(train, dtype=jnp.int32), (tasks, 1))
        offset = jnp.arange(tasks)[:, None] * data.classes
        return Stream(
            data=data,
            index=index,
            task=_row_numbers(index),
            size=jnp.full(tasks, train),
            test_index=jnp.tile(jnp.arange(test, dtype=jnp.int32), (tasks, 1)),
            test_size=jnp.full(tasks, test),
            labels=(offset + jnp.arange(data.classes)) % outputs,
            active=active,
            seen=seen,
            settings=settings(data, key),
            view=view,
            scenario=scenario,
            boundaries=True,
            total=train * tasks,
            smallest=train,
        )

    return make


def _on_device(data: Dataset) -> Dataset:
    """Puts arrays that are still numpy's on the device: those cannot be indexed inside jit."""
    return jax.tree.map(jnp.asarray, data)


def _grouped(labels: Array, counts: tuple[int, ...], place: Array, tasks: int) -> tuple[Array, Array]:
    """Returns [tasks, width] indices of the examples of each task, padded, and [tasks] their numbers."""
    group = len(counts) // tasks
    width = sum(sorted(counts)[-group:])
    by_task = jnp.argsort(place[labels] // group, stable=True)
    size = jnp.zeros(tasks, jnp.int32).at[place // group].add(jnp.array(counts, jnp.int32))
    start = jnp.cumsum(size) - size
    column = jnp.arange(width)
    return by_task[jnp.minimum(start[:, None] + column, labels.size - 1)].astype(jnp.int32), size


def _heads(scenario: str, tasks: int, group: int, outputs: int) -> tuple[Array, Array]:
    """Returns which outputs count in a task, and which may answer after a phase: both [tasks, outputs]."""
    owner, task = jnp.arange(outputs)[None, :] // group, jnp.arange(tasks)[:, None]
    everything = jnp.ones((tasks, outputs), bool)
    active = owner == task if scenario == "task" else everything
    return active, owner <= task if scenario == "class" else everything


def _in_a_row(stream: Stream) -> tuple[Array, Array]:
    """Returns the real training examples of all phases in order: indices and tasks, each [total]."""
    real = jnp.arange(stream.index.shape[1]) < stream.size[:, None]
    kept = jnp.argsort(~real.reshape(-1), stable=True)[: stream.total]
    return stream.index.reshape(-1)[kept], stream.task.reshape(-1)[kept]


def _row_numbers(index: Array) -> Array:
    return jnp.broadcast_to(jnp.arange(index.shape[0], dtype=jnp.int32)[:, None], index.shape)


def _as_it_is(images: Array, settings: tuple) -> Array:
    del settings
    return images


def _turn(image: Array, angle: Array) -> Array:
    """Turns one image [height, width, channels] about its centre."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source = [cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2]
    turn = lambda plane: jax.scipy.ndimage.map_coordinates(plane.astype(jnp.float32), source, order=1)
    turned = jax.vmap(turn, in_axes=-1, out_axes=-1)(image)
    return (turned.round() if jnp.issubdtype(image.dtype, jnp.integer) else turned).astype(image.dtype)


def _check(scenario: str) -> None:
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
