"""A stream of tasks: indices into arrays that stay on the device, plus a pure view of them.

A stream has *phases*, in which the network trains, and *tasks*, on which it is tested. In the usual case phase t trains
on task t; joint training is one phase over all tasks; in a blended stream phases are stretches of time in which tasks
pass into each other.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from neuroml import losses


class Batch(NamedTuple):
    """Examples as a learner sees them. `task` and `active` mean nothing to a network that is told nothing."""

    x: Array  # [batch, height, width, channels], in the data set's own dtype
    y: Array  # [batch] int32: which output is right
    task: Array  # [batch] int32
    active: Array  # [batch, outputs] bool: the outputs that count for this example in training


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "index", "task", "size", "test_index", "test_size", "labels", "active", "seen", "settings"],
    meta_fields=["view", "scenario", "boundaries", "total", "smallest"],
)
@dataclasses.dataclass(frozen=True)
class Stream:
    """Who sees what when. All arrays are small beside the data; rows are padded to one width, `size` says how far."""

    data: Any  # a Dataset; None in a tree of axis numbers
    index: Any  # [phases, width] int32 into the training set
    task: Any  # [phases, width] int32: the task of each of them
    size: Any  # [phases] int32: how many of the row are real
    test_index: Any  # [tasks, test width] int32 into the test set
    test_size: Any  # [tasks] int32
    labels: Any  # [tasks, classes] int32: which output stands for a class in a task
    active: Any  # [tasks, outputs] bool: outputs that count when a task is trained or tested
    seen: Any  # [phases, outputs] bool: outputs that may answer after a phase
    settings: Any  # per-task arrays [tasks, ...] that `view` reads
    view: Callable[[Array, Any], Array]  # (images [n, ...], settings of their tasks) -> images
    scenario: str  # "task", "domain" or "class"
    boundaries: bool  # whether a learner is told where a phase ends
    total: int  # training examples in all phases together
    smallest: int  # no phase has fewer training examples

    @property
    def phases(self) -> int:
        """Number of stretches of training."""
        return self.index.shape[0]

    @property
    def tasks(self) -> int:
        """Number of test sets."""
        return self.test_index.shape[0]

    @property
    def outputs(self) -> int:
        """Width of the network's head."""
        return self.active.shape[1]

    @property
    def ragged(self) -> bool:
        """Whether phases differ in size."""
        return self.phases * self.index.shape[1] != self.total

    def train_batch(self, phase: Int[Array, ""] | int, position: Int[Array, " batch"]) -> Batch:
        """Returns the training examples at `position`s of a phase's row."""
        where, task = self.index[phase, position], self.task[phase, position]
        return self._batch(self.data.train_x[where], self.data.train_y[where], task)

    def test_batch(self, task: Int[Array, ""] | int) -> tuple[Batch, Bool[Array, " n"]]:
        """Returns the (padded) test set of a task, and which of it is real."""
        where = self.test_index[task]
        batch = self._batch(self.data.test_x[where], self.data.test_y[where], jnp.full(where.shape, task))
        return batch, jnp.arange(where.size) < self.test_size[task]

    def example(self) -> Batch:
        """Returns one example without its batch axis, for shapes and dtypes."""
        return jax.tree.map(lambda leaf: leaf[0], self.train_batch(jnp.int32(0), jnp.zeros(1, jnp.int32)))

    def order(
        self, key: PRNGKeyArray, phase: Int[Array, ""] | int, steps: int, batch_size: int
    ) -> Int[Array, "steps batch"]:
        """Returns the positions that the batches of a phase take: pass after pass, each in a new random order.

        A stream without boundaries is an order in time: it is read as it is.
        """
        place, size = jnp.arange(steps * batch_size), self.size[phase]
        if not self.boundaries:
            return (place % size).reshape(steps, batch_size)
        width = self.index.shape[1]
        passes = -(-steps * batch_size // self.smallest)
        padding = jnp.arange(width) >= size
        shuffled = jnp.argsort(jax.random.uniform(key, (passes, width)) + 2 * padding, axis=1)
        return shuffled[place // size, place % size].reshape(steps, batch_size)

    def evaluate(
        self,
        predict: Callable[[Batch], Array],
        phase: Int[Array, ""] | int,
        wanted: Bool[Array, " tasks"] | None = None,
    ) -> Float[Array, " tasks"]:
        """Returns the accuracy on every `wanted` task, with arg-max over the outputs that may answer after `phase`.

        Tasks that are not wanted (default: all are) take no time and have accuracy NaN.
        """

        def accuracy(task, batch, real):
            allowed = self.active[task] & self.seen[phase]
            right = losses.correct(losses.mask_outputs(predict(batch), allowed), batch.y)
            # A class that has not come yet cannot be the answer: its output is off, and so it counts as wrong.
            right = right & allowed[batch.y]
            return jnp.sum(right & real) / jnp.sum(real)

        return self.survey(accuracy, wanted)

    def survey(self, measure: Callable[[Array, Batch, Array], Array], wanted: Array | None = None) -> Array:
        """Returns `measure(task, test batch, which of it is real)` for every `wanted` task, NaN for the others."""
        of = lambda task: measure(task, *self.test_batch(task))
        if wanted is None:
            return jax.lax.map(of, jnp.arange(self.tasks))
        shape = jax.eval_shape(of, jnp.int32(0))
        nothing = lambda task: jnp.full(shape.shape, jnp.nan, shape.dtype)
        return jax.lax.map(lambda task: jax.lax.cond(wanted[task], of, nothing, task), jnp.arange(self.tasks))

    def _batch(self, images: Array, labels: Array, task: Array) -> Batch:
        settings = jax.tree.map(lambda leaf: leaf[task], self.settings)
        return Batch(self.view(images, settings), self.labels[task, labels], task, self.active[task])


def steps_of(stream: Stream, batch_size: int, epochs: int) -> int:
    """Returns how many batches the largest phase needs for `epochs` passes, the last one filled up."""
    return -(-epochs * stream.index.shape[1] // batch_size)
