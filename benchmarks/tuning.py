"""Choosing hyperparameters: the same number of trials for every method, on data and seeds that no result uses.

A trial is one value of a method's grid, with the mean of what the suite is about over the tuning seeds. A tenth of
the training images of each class stands in for the test set, which is not touched. All trials of a method are one
compiled program.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.jobs import Job, jobs_of
from benchmarks.suite import Suite
from neuroml.errors import UsageError, unknown
from neuroml.running import Result, run
from neuroml.streams.dataset import Dataset

# Tuning seeds start here; reported seeds count from 0 and never come so far.
FIRST_SEED = 1_000_000


def tune(suite: Suite, names: Sequence[str], scenarios: Sequence[str], data: Dataset, seeds: int, out: Path) -> str:
    """Tries the suite's grid for each method and scenario; returns the table of trials and writes it with the choices.

    Args:
      suite: the suite; `suite.grids[method] = {hyperparameter: values}`; several are tried together, value by value.
      names: methods.
      scenarios: scenarios.
      data: the data set with held-out training images as its test set: `Dataset.held_out()`.
      seeds: how many tuning seeds.
      out: folder for `SUITE.SCENARIO.json`, which is written after each method. Trials of other methods that it holds,
        of the same protocol, tasks and seeds and as many, stay.
    """
    if not suite.grids:
        raise UsageError(
            f"{suite.name} has no grids, so there is nothing to tune: add them to configs/{suite.name}.py."
        )
    for name in names:
        if name not in suite.grids:
            raise unknown(f"grid of {suite.name}", name, suite.grids)
    trials = {name: {len(values) for values in grid.values()} for name, grid in suite.grids.items()}
    if len(set().union(*trials.values())) != 1:  # of those that are not tuned now, too: their trials stand beside
        raise UsageError(f"every method must get the same number of trials; the grids of {suite.name} have {trials}.")
    lines = []
    for scenario in scenarios:
        found = []
        about = {"suite": suite.name, "scenario": scenario, "seeds": seeds, "first_seed": FIRST_SEED}
        about |= {"tasks": suite.tasks}
        about |= {"protocol": results.config_hash({**suite.protocol(), "measure": suite.measure})}
        for job in jobs_of(suite, names, [scenario]):
            found.append(_trials(job, data, seeds))
            _write(out / f"{suite.name}.{scenario}.json", about, found[-1])
        lines += [_table(suite, scenario, found)]
    return "\n".join(lines)


def _write(path: Path, about: dict[str, Any], row: dict[str, Any]) -> None:
    """Writes one method's trials in the place of its earlier ones, beside those of others about the same."""
    with results.alone(path):
        earlier = json.loads(path.read_text()) if path.exists() else {}
        kept = earlier.pop("methods", [])
        same = [one for one in kept if earlier == about and len(one["values"]) == len(row["values"])]
        rows = {one["method"]: one for one in same} | {row["method"]: row}
        text = json.dumps({**about, "methods": list(rows.values())}, indent=1, allow_nan=False)
        results.write_text(path, text + "\n")


def _trials(job: Job, data: Dataset, seeds: int) -> dict[str, Any]:
    grid = {name: list(values) for name, values in job.suite.grids[job.name].items()}
    settings = {**job.hyperparameters, **grid}
    tuning = range(FIRST_SEED, FIRST_SEED + seeds)
    result = run(job.experiment, data, seeds=tuning, hyperparameters=settings)
    diverged = (result.diverged[:, :, 0] >= 0).any(1)
    score = np.where(diverged, np.nan, _reached(job, result).mean(1))
    if np.isnan(score[~diverged]).any():
        raise UsageError(
            f"{job.name} has no {job.suite.measure}, by which {job.suite.name} would choose: leave it out."
        )
    trials = [trial[0] if len(trial) == 1 else list(trial) for trial in zip(*grid.values(), strict=True)]
    return {
        "method": job.name,
        "hyperparameter": ", ".join(grid),
        "values": trials,
        "accuracy": results.plain(score),
        "chosen": None if diverged.all() else trials[int(np.nanargmax(score))],
    }


def _reached(job: Job, result: Result) -> np.ndarray:
    """Returns what the suite is about: [trials, seeds]."""
    final = result.accuracy[:, :, -1].mean(-1)
    if not job.suite.is_online:
        return final
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of methods that have none
        online = np.nanmean(result.online_accuracy, (2, 3))  # idle steps of short tasks are NaN
    return online if job.suite.measure == "online_accuracy" else (online + final) / 2


def _named(trial: Any) -> str:
    return f"{trial:g}" if not isinstance(trial, list) else f"({', '.join(f'{value:g}' for value in trial)})"


def _table(suite: Suite, scenario: str, found: list[dict[str, Any]]) -> str:
    measure = suite.measure.replace("_", " ")
    about = f"{measure} in %, tests on held-out training images, chosen value in bold"
    lines = [f"{suite.name}, {scenario}-incremental: {about}", ""]
    for row in found:
        cells = [
            f"{'**' if value == row['chosen'] else ''}{_named(value)}: {'diverged' if a is None else f'{100 * a:.1f}'}"
            f"{'**' if value == row['chosen'] else ''}"
            for value, a in zip(row["values"], row["accuracy"], strict=True)
        ]
        nothing = "; nothing chosen" if row["chosen"] is None else ""
        lines.append(f"- {row['method']}, {row['hyperparameter']}: {', '.join(cells)}{nothing}")
    return "\n".join(lines) + "\n"
