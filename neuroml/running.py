"""Driving an experiment: one compiled program over seeds and hyperparameters, or a loop of compiled steps.

    steps   "scan": the whole run is one program. "loop": a Python loop of compiled, donated steps, for convolutions on
            CPU, which XLA runs 17 to 40 times slower inside a scan.
    seeds   "vmap": all runs in one batch. "map": one after the other, each bit-equal to a run of its own; as fast on
            CPU, and compiled in half the time.

Results are equal bit for bit only within one mode, machine and software set; across them they agree to rounding, which
training amplifies.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neuroml.cost import uses
from neuroml.errors import UsageError, unknown
from neuroml.experiment import Experiment, Row
from neuroml.programs import Shapes, by_steps, in_one, one_run
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
    drive = in_one if steps_mode == "scan" else by_steps
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


@functools.lru_cache(maxsize=32)
def _priced(experiment: Experiment, shapes: Shapes) -> tuple[int, float]:
    return experiment.cost(*one_run(experiment), shapes.restored())


def _cost(experiment: Experiment, data: Dataset) -> tuple[int, float]:
    return _priced(experiment, Shapes.of(data))


def _convolves(experiment: Experiment, data: Dataset) -> bool:
    def answer(key, hyperparameters, data):
        stream, state = experiment.begin(key, hyperparameters, data)
        agent = experiment.learner(stream, hyperparameters)
        return agent.predict(state, stream.test_batch(jnp.int32(0))[0])

    return uses("conv_general_dilated", answer, *one_run(experiment), Shapes.of(data).restored())


def _first_divergence(rows: Row) -> np.ndarray:
    """Returns [..., 2]: phase and step of the first loss that is not finite, or of a phase that ended so; else -1."""
    *lead, phases, steps = rows.loss.shape
    taken = np.arange(steps) < rows.steps[..., None]
    bad = ~np.isfinite(rows.loss) & taken
    bad |= ~rows.findings.finite[..., None] & (np.arange(steps) == rows.steps[..., None] - 1)
    flat = bad.reshape(*lead, phases * steps)
    first = np.where(flat.any(-1), flat.argmax(-1), -1)
    return np.where(first[..., None] < 0, -1, np.stack(np.divmod(first, steps), axis=-1))
