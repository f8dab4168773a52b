"""Driving an experiment: one compiled program over seeds and hyperparameters, or a loop of compiled steps.

    steps   "scan": the whole run is one program. "loop": a Python loop of compiled, donated steps, for convolutions on
            CPU, which XLA runs 17 to 40 times slower inside a scan.
    seeds   "vmap": all runs in one batch. "map": one after the other, each bit-equal to a run of its own; as fast on
            CPU, and compiled in half the time.

Either way the runs are shared out among the local devices. A CPU counts as one; `jax_num_cpu_devices` makes it more.

Results are equal bit for bit only within one mode, machine and software set; across them they agree to rounding, which
training amplifies.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from neuroml.cost import uses
from neuroml.errors import UsageError, unknown
from neuroml.experiment import Experiment, Row
from neuroml.streams.dataset import Dataset

STEPS_MODES = ("auto", "scan", "loop")
SEEDS_MODES = ("auto", "vmap", "map")


class Result(NamedTuple):
    """What `run` returns. Leading axes `...` are [seeds], or [settings, seeds] where hyperparameters were swept."""

    accuracy: np.ndarray  # [..., phases, tasks]; NaN where it was not tested
    report: dict[str, np.ndarray]  # [..., phases]: what the learner says of itself, the rules' `report`
    contexts: (
        np.ndarray
    )  # [..., phases, tasks, contexts]: test images of a task taken for each context that is inferred
    loss: np.ndarray  # [..., phases, steps], NaN beyond the end of a short phase
    online_accuracy: np.ndarray  # [..., phases, steps]: on each batch before it was learnt
    diverged: np.ndarray  # [..., 2] int: phase and step of the first non-finite loss, -1 where there was none
    bytes: int  # of one run: weights, optimizer and rule state, memories, first examples that are held back
    flops: float  # of the training of one run
    seconds: float  # wall time of one run: all runs together, divided by their number, compilation left out
    compile_seconds: float
    modes: dict[str, str]


def run(
    experiment: Experiment,
    data: Dataset,
    *,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Any],
    steps_mode: str = "auto",
    seeds_mode: str = "auto",
) -> Result:
    """Runs an experiment for every seed and every setting of the hyperparameters, compiled once.

    A second call with the same experiment and as many runs reuses the compiled program.

    Args:
      experiment: a `neuroml.Experiment`.
      data: the data set.
      seeds: one run each; a seed fixes class order, initial weights, batches and all the rest.
      hyperparameters: `learning_rate` and those of the method that differ from its own: numbers, or sequences of one
        length that are swept together.
      steps_mode: "scan", "loop" or "auto".
      seeds_mode: "vmap", "map" or "auto".

    Returns:
      A `Result`. A run whose loss is not finite goes on, and is marked in `diverged`; other runs are not touched.

    Raises:
      UsageError: no seeds, some that are no whole numbers, or the same twice; a name or mode that does not exist, a
        hyperparameter out of the method's limits, or a method that needs to be told where tasks end in a stream that
        does not tell.
    """
    keys, settings, shape = _runs(experiment, seeds, hyperparameters)
    data = jax.device_put(data)
    size, work = _cost(experiment, data)
    steps_mode, seeds_mode = choose_modes(experiment, data, steps_mode, seeds_mode)
    drive = _scan if steps_mode == "scan" else _loop
    rows, seconds, compile_seconds = drive(experiment, keys, settings, data, seeds_mode)
    rows = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:]), rows)
    return Result(
        accuracy=rows.findings.accuracy,
        report=rows.findings.report,
        contexts=rows.findings.contexts,
        loss=rows.loss,
        online_accuracy=rows.online,
        diverged=_first_divergence(rows),
        bytes=size,
        flops=work,
        seconds=seconds / keys.size,
        compile_seconds=compile_seconds,
        modes={"steps": steps_mode, "seeds": seeds_mode},
    )


def choose_modes(
    experiment: Experiment, data: Dataset, steps_mode: str = "auto", seeds_mode: str = "auto"
) -> tuple[str, str]:
    """Returns the modes, with what is left "auto" chosen by device and model, from measurements."""
    for mode, known in ((steps_mode, STEPS_MODES), (seeds_mode, SEEDS_MODES)):
        if mode not in known:
            raise unknown("mode", mode, known)
    on_cpu = jax.default_backend() == "cpu"
    if steps_mode == "auto":
        steps_mode = "loop" if on_cpu and _convolves(experiment, data) else "scan"
    if seeds_mode == "auto":
        seeds_mode = "map" if on_cpu else "vmap"
    return steps_mode, seeds_mode


def _runs(experiment: Experiment, seeds: Sequence[int], given: Mapping[str, Any]) -> tuple[Any, dict[str, Any], tuple]:
    """Returns keys [runs], hyperparameters {name: [runs]} and the leading shape of the results."""
    _check_seeds(seeds)
    known = {**experiment.method.hyperparameters, "learning_rate": None}
    for name in given:
        if name not in known:
            raise unknown("hyperparameter", name, known)
    if "learning_rate" not in given:
        raise UsageError("hyperparameters must say the learning_rate.")
    full = {**experiment.method.hyperparameters, **given}
    for name, value in full.items():
        if np.size(value) == 0:
            raise UsageError(f"{name} has no values to sweep.")
    experiment.method.check(full)
    lengths = {len(value) for value in full.values() if np.ndim(value)}
    if len(lengths) > 1:
        raise UsageError(f"hyperparameters that are swept together must have one length, not {sorted(lengths)}.")
    settings = lengths.pop() if lengths else 1
    spread = lambda v: jnp.repeat(jnp.broadcast_to(jnp.asarray(v, jnp.float32), (settings,)), len(seeds))
    keys = jax.vmap(jax.random.key)(jnp.tile(jnp.asarray(seeds, jnp.uint32), settings))
    swept = any(np.ndim(value) for value in full.values())
    return keys, {n: spread(v) for n, v in full.items()}, (settings, len(seeds)) if swept else (len(seeds),)


def _check_seeds(seeds: Any) -> None:
    if len(seeds) == 0:
        raise UsageError("no seeds: give at least one.")
    given = np.asarray(seeds)
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= 2**32:
        raise UsageError(f"seeds={seeds} must be whole numbers from 0 to 2**32 - 1.")
    if len(np.unique(given)) < given.size:
        raise UsageError(f"seeds={seeds} are not all different: the same run twice would make the error bar too small.")


def _one(experiment: Experiment) -> tuple[Any, dict[str, Any]]:
    """Returns the shapes of a key and of one setting of the hyperparameters."""
    names = (*experiment.method.hyperparameters, "learning_rate")
    key = jax.eval_shape(lambda: jax.random.key(0))
    return key, {name: jax.ShapeDtypeStruct((), jnp.float32) for name in names}


@functools.lru_cache(maxsize=32)
def _priced(experiment: Experiment, shapes: "_Shapes") -> tuple[int, float]:
    return experiment.cost(*_one(experiment), shapes.restored())


def _cost(experiment: Experiment, data: Dataset) -> tuple[int, float]:
    return _priced(experiment, _Shapes.of(data))


def _convolves(experiment: Experiment, data: Dataset) -> bool:
    def answer(key, hyperparameters, data):
        stream, state = experiment.begin(key, hyperparameters, data)
        agent = experiment.learner(stream, hyperparameters)
        return agent.predict(state, stream.test_batch(jnp.int32(0))[0])

    return uses("conv_general_dilated", answer, *_one(experiment), _Shapes.of(data).restored())


class _Shapes(NamedTuple):
    """The shapes of a tree of arrays, hashable: what a compiled program depends on."""

    structure: Any
    leaves: tuple[tuple[tuple[int, ...], Any], ...]

    @classmethod
    def of(cls, tree: Any) -> "_Shapes":
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def restored(self) -> Any:
        return self.structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves])


def _scan(experiment, keys, settings, data, seeds_mode):
    """The whole experiment as one program."""
    runs = keys.size + -keys.size % len(devices_for(experiment, keys.size))  # every device takes as many
    pad = lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], runs - keys.size, axis=0)])
    arguments = (pad(keys), jax.tree.map(pad, settings), data)
    start = time.perf_counter()
    program = _program(experiment, seeds_mode, runs, _Shapes.of(arguments))
    compiled = time.perf_counter()
    rows = jax.block_until_ready(program(*arguments))
    rows = jax.tree.map(lambda leaf: leaf[: keys.size], rows)
    return rows, time.perf_counter() - compiled, compiled - start


@functools.lru_cache(maxsize=8)
def _program(experiment: Experiment, seeds_mode: str, runs: int, shapes: _Shapes) -> Any:
    left = lambda key, hyper, data: experiment.whole(key, hyper, data)[1]

    def every_run(keys, settings, data):
        if seeds_mode == "vmap":
            return jax.vmap(left, in_axes=(0, 0, None))(keys, settings, data)
        return jax.lax.map(lambda run: left(run[0], run[1], data), (keys, settings))

    program: Any = jax.jit(_over_devices(every_run, devices_for(experiment, runs)))
    return program.lower(*shapes.restored()).compile(_compiler_options())


def _compiler_options() -> dict[str, Any]:
    """On CPU, LLVM's heavier passes double the compile time and gain nothing: the time is in the matrix library."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


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


def _loop(experiment, keys, settings, data, seeds_mode):
    """A Python loop of compiled steps, seeds one after the other or in one batch."""
    width = keys.size if seeds_mode == "vmap" else 1
    programs = _programs(experiment, _Shapes.of((keys[:1], jax.tree.map(lambda leaf: leaf[:1], settings), data)))
    start = time.perf_counter()
    parts = []
    for first in range(0, keys.size, width):
        group = lambda leaf, first=first: leaf[first : first + width]
        parts.append(programs.run(group(keys), jax.tree.map(group, settings), data))
    rows = jax.block_until_ready(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts))
    # Each piece compiles at its first call; a loop is too long for that to show, and it is not told apart.
    return rows, time.perf_counter() - start, 0.0


@functools.lru_cache(maxsize=8)
def _programs(experiment: Experiment, shapes: _Shapes) -> "_Programs":
    return _Programs(experiment, shapes)


class _Programs:
    """The pieces of an experiment, each compiled for a batch of runs; the data set is never copied for a run."""

    def __init__(self, experiment: Experiment, shapes: _Shapes):
        stream, _ = jax.eval_shape(experiment.begin, *_one(experiment), shapes.restored()[2])
        axes = dataclasses.replace(jax.tree.map(lambda _: 0, stream), data=None)
        options = {"compiler_options": _compiler_options()}
        compiled = lambda f, i, o, **more: jax.jit(jax.vmap(f, in_axes=i, out_axes=o), **options, **more)
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


def _first_divergence(rows: Row) -> np.ndarray:
    """Returns [..., 2]: phase and step of the first loss that is not finite, or of a phase that ended so; else -1."""
    *lead, phases, steps = rows.loss.shape
    taken = np.arange(steps) < rows.steps[..., None]
    bad = ~np.isfinite(rows.loss) & taken
    bad |= ~rows.findings.finite[..., None] & (np.arange(steps) == rows.steps[..., None] - 1)
    flat = bad.reshape(*lead, phases * steps)
    first = np.where(flat.any(-1), flat.argmax(-1), -1)
    return np.where(first[..., None] < 0, -1, np.stack(np.divmod(first, steps), axis=-1))
