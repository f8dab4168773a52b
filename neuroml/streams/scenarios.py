"""Scenarios: ways to make a stream of tasks out of one data set.

Each function returns a `Maker`, `(data, key) -> Stream`, a pure function that runs inside jit: class orders,
permutations and angles come from the key, so every seed of a vmapped experiment has its own.

"task": one head a task, and the network is told which. "domain": the tasks share their outputs. "class": one head for
all classes, and nobody says which task it is (van de Ven et al. 2022, Nature Machine Intelligence 4:1185).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from neuroml.errors import UsageError
from neuroml.streams.dataset import Dataset
from neuroml.streams.layout import SCENARIOS, Maker, as_it_is, check, heads, on_device, row_numbers
from neuroml.streams.repeated import label_permuted, permuted, random_labels, rotated
from neuroml.streams.stream import Stream

__all__ = [
    "SCENARIOS",
    "Maker",
    "blended",
    "joint",
    "label_permuted",
    "permuted",
    "random_labels",
    "rotated",
    "split",
]


def split(tasks: int = 5, scenario: str = "class", *, ordered: bool = False) -> Maker:
    """Splits the classes, in an order drawn from the key or `ordered` by number, into `tasks` groups of equal size.

    Output o stands for the o-th class of that order (task, class), or for the place within its task (domain).
    """
    check(scenario)

    def make(data: Dataset, key: PRNGKeyArray) -> Stream:
        if tasks < 1 or data.classes % tasks:
            raise UsageError(f"{data.classes} classes of {data.name} do not split into {tasks} equal tasks.")
        data, group = on_device(data), data.classes // tasks
        for part, counts in (("training", data.train_counts), ("test", data.test_counts)):
            if not any(sorted(counts)[:group]):
                empty = f"{counts.count(0)} classes of {data.name} have no {part} images"
                raise UsageError(f"{empty}, so a task of {group} may have none.")
        drawn = jnp.argsort(jax.random.permutation(key, data.classes))
        place = jnp.arange(data.classes) if ordered else drawn  # place of each class in the order
        index, size = _grouped(data.train_y, data.train_counts, place, tasks)
        test_index, test_size = _grouped(data.test_y, data.test_counts, place, tasks)
        outputs = group if scenario == "domain" else data.classes
        active, seen = heads(scenario, tasks, group, outputs)
        return Stream(
            data=data,
            index=index,
            task=row_numbers(index),
            size=size,
            test_index=test_index,
            test_size=test_size,
            labels=jnp.tile(place % outputs, (tasks, 1)),
            active=active,
            seen=seen,
            settings=(),
            view=as_it_is,
            scenario=scenario,
            boundaries=True,
            total=sum(data.train_counts),
            smallest=sum(sorted(data.train_counts)[:group]),
        )

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


def _grouped(labels: Array, counts: tuple[int, ...], place: Array, tasks: int) -> tuple[Array, Array]:
    """Returns [tasks, width] indices of the examples of each task, padded, and [tasks] their numbers."""
    group = len(counts) // tasks
    width = sum(sorted(counts)[-group:])
    by_task = jnp.argsort(place[labels] // group, stable=True)
    size = jnp.zeros(tasks, jnp.int32).at[place // group].add(jnp.array(counts, jnp.int32))
    start = jnp.cumsum(size) - size
    column = jnp.arange(width)
    return by_task[jnp.minimum(start[:, None] + column, labels.size - 1)].astype(jnp.int32), size


def _in_a_row(stream: Stream) -> tuple[Array, Array]:
    """Returns the real training examples of all phases in order: indices and tasks, each [total]."""
    real = jnp.arange(stream.index.shape[1]) < stream.size[:, None]
    kept = jnp.argsort(~real.reshape(-1), stable=True)[: stream.total]
    return stream.index.reshape(-1)[kept], stream.task.reshape(-1)[kept]
