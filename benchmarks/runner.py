"""Runs a suite: drives its experiments seed by seed, and writes each result as soon as it is there."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import results
from benchmarks.jobs import Job
from benchmarks.records import record_of
from neuroml.errors import UsageError
from neuroml.programs import devices_for
from neuroml.running import choose_modes, run
from neuroml.streams.dataset import Dataset


def run_job(
    job: Job,
    data: Dataset,
    seeds: Sequence[int],
    path: Path,
    report: Callable[[int], None] = lambda runs: None,
    *,
    fresh: bool = False,
) -> Iterator[dict[str, Any]]:
    """Runs a job for the seeds that its file does not hold yet, and yields the new records, already written.

    Args:
      job: what to run.
      data: the data set.
      seeds: which seeds.
      path: the result file.
      report: called with the number of seeds that have just been finished.
      fresh: also runs the seeds that the file holds; of two results the later one counts.
    """
    config = job.config
    identity = results.config_hash(config)
    finished = results.finished(path, lambda record: _has_all(record, job))
    done = {seed for known, name, seed in finished if (known, name) == (identity, job.name)}
    todo = [seed for seed in seeds if fresh or seed not in done]
    if len(todo) < len(seeds):
        report(len(seeds) - len(todo))
    _require_injury(job, data)
    for group in _groups(job, data, todo):
        result = run(job.experiment, data, seeds=group, hyperparameters=job.hyperparameters)
        records = [record_of(job, identity, seed, i, result) for i, seed in enumerate(group)]
        results.append(path, records)
        report(len(group))
        yield from records


def _has_all(record: results.Record, job: Job) -> bool:
    """Says whether a record holds what the suite is about, which is no part of its configuration."""
    return not job.suite.is_online or bool(record.get("online_by_task"))


def _require_injury(job: Job, data: Dataset) -> None:
    """Refuses an injury that would come after the last step."""
    if job.experiment.intervene is None:
        return
    stream = jax.eval_shape(lambda key: job.experiment.stream(data, key), jax.random.key(0))
    steps = job.experiment.steps(stream) * stream.phases
    if job.suite.injury_at >= steps:
        raise UsageError(f"injury_at={job.suite.injury_at}: {job.suite.name} has {steps} steps, counted from 0.")


def _groups(job: Job, data: Dataset, seeds: list[int]) -> Iterator[list[int]]:
    """Splits the seeds into calls: all at once where they are vmapped, else as many as there are devices."""
    if not seeds:
        return
    together = choose_modes(job.experiment, data)[1] == "vmap"
    width = len(seeds) if together else len(devices_for(job.experiment, len(seeds)))
    for first in range(0, len(seeds), width):
        yield seeds[first : first + width]
