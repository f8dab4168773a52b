"""What the makers of streams share: the type of a maker, who may answer when, and checks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from neuroml.errors import unknown
from neuroml.streams.dataset import Dataset
from neuroml.streams.stream import Stream

SCENARIOS = ("task", "domain", "class")
Maker = Callable[[Dataset, PRNGKeyArray], Stream]


def check(scenario: str) -> None:
    """Raises `UsageError` for a scenario that does not exist."""
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)


def on_device(data: Dataset) -> Dataset:
    """Puts arrays that are still numpy's on the device: those cannot be indexed inside jit."""
    return jax.tree.map(jnp.asarray, data)


def heads(scenario: str, tasks: int, group: int, outputs: int) -> tuple[Array, Array]:
    """Returns which outputs count in a task, and which may answer after a phase: both [tasks, outputs]."""
    owner, task = jnp.arange(outputs)[None, :] // group, jnp.arange(tasks)[:, None]
    everything = jnp.ones((tasks, outputs), bool)
    active = owner == task if scenario == "task" else everything
    return active, owner <= task if scenario == "class" else everything


def row_numbers(index: Array) -> Array:
    """Returns, for each entry of a table of indices, the number of its row."""
    return jnp.broadcast_to(jnp.arange(index.shape[0], dtype=jnp.int32)[:, None], index.shape)


def as_it_is(images: Array, settings: tuple) -> Array:
    """Returns the images: the view of a stream that has none."""
    del settings
    return images
