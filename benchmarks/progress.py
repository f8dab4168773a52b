"""Jobs under a progress bar: what a person who waits for them is told, and which of their results count."""

import contextlib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import logging, results, runner, summaries
from benchmarks.jobs import Job, file_of
from benchmarks.results import Record
from neuroml.streams.dataset import Dataset


def run_jobs(
    jobs: Sequence[Job], data: Dataset, seeds: Sequence[int], out: Path, usual: str, *, fresh: bool, wandb: str
) -> list[Record]:
    """Runs the jobs under a progress bar; returns the newest records of the configurations and seeds asked for."""
    sink = logging.sink(wandb)
    found = []
    with _progress(jobs, len(seeds)) as advance:
        for job in jobs:
            path = file_of(out, job, usual)
            report = functools.partial(advance, job)
            for record in runner.run_job(job, data, seeds, path, report, fresh=fresh):
                sink(record)
            wanted = {(results.config_hash(job.config), job.name, seed) for seed in seeds}
            newest = results.latest(results.read(path))
            found.extend(record for record in newest if results.identity(record) in wanted)
            summaries.write_csv(path.with_suffix(".csv"), summaries.summarize(newest))
    _tell_of_old_code(found)
    return found


def _progress(jobs: Sequence[Job], seeds: int) -> Any:
    """Returns a context whose value, `advance(job, runs)`, moves a bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    @contextlib.contextmanager
    def bars():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=len(jobs) * seeds)

            def advance(job, runs):
                progress.update(bar, advance=runs, description=f"{job.scenario:6} {job.name}")

            yield advance

    return bars()


def _tell_of_old_code(records: Sequence[Record]) -> None:
    revisions = {record["git"]["revision"] for record in records}
    if len(revisions) > 1:
        print(
            f"these results come from {len(revisions)} revisions of the code; --fresh runs all of them anew.",
            file=sys.stderr,
        )
    if changed := sum(bool(record["git"].get("dirty")) for record in records):
        print(f"{changed} of these results come from source that was changed and not committed.", file=sys.stderr)
