"""The programs of an experiment: all of it in one, or its steps, compiled once for a number of runs.

The runs are shared out among the local devices. A CPU counts as one; `jax_num_cpu_devices` makes it more.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from neuroml.experiment import Experiment, Row
from neuroml.streams.dataset import Dataset


def one_run(experiment: Experiment) -> tuple[Any, dict[str, Any]]:
    """Returns the shapes of a key and of one setting of the hyperparameters."""
    names = (*experiment.method.hyperparameters, "learning_rate")
    key = jax.eval_shape(lambda: jax.random.key(0))
    return key, {name: jax.ShapeDtypeStruct((), jnp.float32) for name in names}


class Shapes(NamedTuple):
    """The shapes of a tree of arrays, hashable: what a compiled program depends on."""

    structure: Any
    leaves: tuple[tuple[tuple[int, ...], Any], ...]

    @classmethod
    def of(cls, tree: Any) -> "Shapes":
        """Returns the shapes of `tree`."""
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def restored(self) -> Any:
        """Returns the tree, with `jax.ShapeDtypeStruct` in the place of arrays."""
        return self.structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves])


def in_one(
    experiment: Experiment, keys: Any, settings: Any, data: Dataset, seeds_mode: str
) -> tuple[Row, float, float]:
    """Runs the whole experiment as one program; returns its rows, [runs, ...], and seconds to run and to compile."""
    runs = keys.size + -keys.size % len(devices_for(experiment, keys.size))  # every device takes as many
    pad = lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], runs - keys.size, axis=0)])
    arguments = (pad(keys), jax.tree.map(pad, settings), data)
    start = time.perf_counter()
    program = _program(experiment, seeds_mode, runs, Shapes.of(arguments))
    compiled = time.perf_counter()
    rows = jax.block_until_ready(program(*arguments))
    rows = jax.tree.map(lambda leaf: leaf[: keys.size], rows)
    return rows, time.perf_counter() - compiled, compiled - start


@functools.lru_cache(maxsize=8)
def _program(experiment: Experiment, seeds_mode: str, runs: int, shapes: Shapes) -> Any:
    left = lambda key, hyper, data: experiment.whole(key, hyper, data)[1]

    def every_run(keys, settings, data):
        if seeds_mode == "vmap":
            return jax.vmap(left, in_axes=(0, 0, None))(keys, settings, data)
        return jax.lax.map(lambda run: left(run[0], run[1], data), (keys, settings))

    program: Any = jax.jit(_over_devices(every_run, devices_for(experiment, runs)))
    return program.lower(*shapes.restored()).compile(_compiler_options())


def _compiler_options() -> dict[str, Any]:
    """On CPU, LLVM's heavier passes double the compile time and gain nothing: the time is in the matrix library."""
    asked = jax.config.values.get("jax_disable_most_optimizations")  # then JAX sets a level of its own
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" and not asked else {}


def devices_for(experiment: Experiment, runs: int) -> list[Any]:
    """Returns the devices that share out so many runs.

    On CPU a method with a learner of its own takes one. With two runs of `condensate_memory` side by side in one
    process (jaxlib 0.10.2, 3,600 features) statistics came out wrong; one at a time they are right. The cause is not
    known.
    """
    alone = experiment.method.learner is not None and jax.default_backend() == "cpu"
    return jax.local_devices()[: 1 if alone else runs]


def _over_devices(function: Callable, devices: list[Any]) -> Callable:
    """Shards the runs over devices."""
    if len(devices) == 1:
        return function
    mesh = Mesh(np.array(devices), ("runs",))
    split, everywhere = PartitionSpec("runs"), PartitionSpec()
    return jax.shard_map(function, mesh=mesh, in_specs=(split, split, everywhere), out_specs=split, check_vma=False)


def by_steps(
    experiment: Experiment, keys: Any, settings: Any, data: Dataset, seeds_mode: str
) -> tuple[Row, float, float]:
    """Runs a Python loop of compiled steps, seeds one after the other or in one batch; returns what `in_one` does."""
    width = keys.size if seeds_mode == "vmap" else 1
    one = Shapes.of((keys[:1], jax.tree.map(lambda leaf: leaf[:1], settings), data))
    programs = _programs(experiment, one, seeds_mode == "vmap")
    start = time.perf_counter()
    parts = []
    for first in range(0, keys.size, width):
        group = lambda leaf, first=first: leaf[first : first + width]
        parts.append(programs.run(group(keys), jax.tree.map(group, settings), data))
    rows = jax.block_until_ready(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts))
    # Each piece compiles at its first call; a loop is too long for that to show, and it is not told apart.
    return rows, time.perf_counter() - start, 0.0


@functools.lru_cache(maxsize=8)
def _programs(experiment: Experiment, shapes: Shapes, batched: bool) -> "_Programs":
    return _Programs(experiment, shapes, jax.vmap if batched else _alone)


def _alone(function: Callable, in_axes: Any, out_axes: Any) -> Callable:
    """As `jax.vmap` over a batch of one, where a `lax.cond` would compute both of its branches."""

    def mapped(change, axes, trees):
        one = lambda axis, tree: tree if axis is None else jax.tree.map(change, tree)
        return jax.tree.map(one, axes, trees, is_leaf=lambda axis: axis is None)

    def of_one(*arguments):
        found = function(*mapped(lambda leaf: leaf[0], in_axes, arguments))
        return mapped(lambda leaf: leaf[None], out_axes, found)

    return of_one


class _Programs:
    """The pieces of an experiment, each compiled for a batch of runs; the data set is never copied for a run."""

    def __init__(self, experiment: Experiment, shapes: Shapes, batch: Callable):
        stream, _ = jax.eval_shape(experiment.begin, *one_run(experiment), shapes.restored()[2])
        axes = dataclasses.replace(jax.tree.map(lambda _: 0, stream), data=None)
        options = {"compiler_options": _compiler_options()}
        compiled = lambda f, i, o, **more: jax.jit(batch(f, in_axes=i, out_axes=o), **options, **more)
        self.begin = compiled(experiment.begin, (0, 0, None), (axes, 0))
        self.order = compiled(experiment.order, (0, axes, None), (None, 0, 0))
        self.step = compiled(experiment.step, (0, axes, None, 0, (None, 0, 0)), 0, donate_argnums=3)
        self.finish = compiled(experiment.finish, (0, 0, axes, None, 0), 0)
        self.length = compiled(experiment.length, (axes, None), 0)
        self.phases = stream.phases

    def run(self, keys: Any, settings: Any, data: Dataset) -> Row:
        """Trains a batch of runs; what the phases leave behind is [runs, phases, ...]."""
        stream, state = self.begin(keys, settings, data)
        rows = []
        for number in range(self.phases):
            state, row = self.phase(keys, settings, stream, jnp.int32(number), state)
            rows.append(row)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *rows)

    def phase(self, key, hyper, stream, number, state):
        """Trains one phase; returns the state and what the phase leaves behind, each [runs, ...]."""
        steps, step_keys, positions = self.order(key, stream, number)
        infos = []
        for i in range(steps.size):
            state, info = self.step(hyper, stream, number, state, (steps[i], step_keys[:, i], positions[:, i]))
            infos.append(info)
        info = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *infos)
        state, found = self.finish(key, hyper, stream, number, state)
        return state, Row(found, info.loss, info.accuracy, self.length(stream, number))
