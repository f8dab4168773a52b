"""Ablations: a method with its parts on and off, every setting over the same seeds."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results, runner, suite
from benchmarks.jobs import Job
from benchmarks.summaries import summarize
from benchmarks.tables import markdown
from neuroml.methods import methods
from neuroml.streams.dataset import Dataset
from paper_repro.comparing import PER_CENT

Changes = list[dict[str, Any]]


def factorial(*parts: dict[str, Any]) -> Changes:
    """Returns all combinations of parts that are there or not.

    >>> factorial({"a": 1}, {"b": 2})
    [{}, {'b': 2}, {'a': 1}, {'a': 1, 'b': 2}]
    """
    chosen = itertools.product(*(({}, part) for part in parts))
    return [{name: value for part in some for name, value in part.items()} for some in chosen]


def variants(base: suite.Suite, scenario: str, method: str, changes: Changes) -> list[Job]:
    """Returns a job for each of the changes, of the method or of the suite."""
    changed = (suite.change(base, given, {method: methods[method]}) for given in changes)
    return [Job(one, scenario, method) for one in changed]


def run(jobs: Iterable[Job], data: Dataset, seeds: Sequence[int], path: Path) -> None:
    """Runs what is missing, and prints the table."""
    for job in jobs:
        for record in runner.run_job(job, data, seeds, path):
            found = {name: record["metrics"][name] for name in PER_CENT if name in record["metrics"]}
            print(record["config"]["hyperparameters"], found, flush=True)
    print(markdown(summarize(results.latest(results.read(path)))))
