"""Settings of the repairing methods, chosen: six trials each on tuning seeds and held-out training images.

    python -m paper_repro.repair.trials [--out paper_repro/repair/results]

Half and four fifths of the neurons destroyed, learning rates as tuned before. Printed and kept in `trials.json`, for
both shares: batches until 95 % of the accuracy that *no repair* had before the injury on the same seed, on how many
seeds that never came (they count as all batches that were left of the task), and accuracy on all tasks at the end.
Chosen is, of the trials that keep at least as much as no repair, in the mean over the shares, the one that needs the
least part of its batches; where none keeps as much, the one that does of all. Half an hour on one core.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks import environment, results
from benchmarks.jobs import Job
from benchmarks.suite import change, load
from benchmarks.tuning import FIRST_SEED
from neuroml import online
from neuroml.methods import methods
from neuroml.running import Result, run
from neuroml.streams import sources
from neuroml.streams.dataset import Dataset
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
INJURIES, SEEDS = (0.5, 0.8), 10
GRIDS = {
    "random_rebirth": {"heals": ("silent", "destroyed"), "every": (1, 5, 20)},
    "schwann": {"rate": (0.03, 0.1, 0.3), "gain": (1.0, 2.0)},
    "nanotube": {"every": (1, 5), "noise": (0.1, 0.3, 1.0)},
}


def ran(data: Dataset, method: str, settings: dict, changes: dict, seeds: int = SEEDS) -> Result:
    """Returns the runs of one setting of a method on the tuning seeds, in the suite with these changes."""
    changed = changes | {f"{method}.{name}": value for name, value in settings.items()}
    job = Job(change(load("injury_recovery"), changed, methods), "domain", method)
    tuning = range(FIRST_SEED, FIRST_SEED + seeds)
    return run(job.experiment, data, seeds=tuning, hyperparameters=job.hyperparameters)


def found_in(result: Result, none: Result) -> dict:
    """Returns what runs come to in the mean over seeds, held to what no repair had before the injury."""
    back, unrecovered = recovery(result.online_accuracy, none.online_accuracy, load("injury_recovery").injury_at)
    return {"recovery_steps": back, "unrecovered": unrecovered, "accuracy": float(result.accuracy[:, -1].mean())}


def recovery(accuracy: np.ndarray, none: np.ndarray, at: int) -> tuple[float, int]:
    """Returns the mean steps to recover, and how many seeds did not: each of them took all that was left of its task.

    >>> runs = np.array([[[0.8] * 5 + [0.0] * 5 + [0.8] * 15], [[0.8] * 5 + [0.0] * 20]])
    >>> recovery(runs, runs, at=5)
    (17.5, 1)
    """
    left = accuracy.shape[-1] - at % accuracy.shape[-1]
    pairs = zip(accuracy, none, strict=True)
    steps = np.array([online.recovery_steps(one, at, uninjured=bar) for one, bar in pairs])
    lost = np.isnan(steps)
    return float(np.where(lost, left, steps).mean()), int(lost.sum())


def choose(trials: list[dict], none: dict) -> dict:
    """Returns the settings that are back soonest of those that keep as much as no repair; of all where none does."""
    kept = lambda one: mean(of["accuracy"] for of in one.values())
    sooner = lambda one: mean(of["recovery_steps"] / none[share]["recovery_steps"] for share, of in one.items())
    keeping = [one for one in trials if kept(one["found"]) >= kept(none)] or trials
    return min(keeping, key=lambda one: sooner(one["found"]))["settings"]


def work(out: Path) -> None:
    """Runs all trials and writes what was found and chosen."""
    environment.prepare_jax()
    data = sources.load("mnist").held_out()
    bars = {str(injury): ran(data, "none", {}, {"injury": injury}) for injury in INJURIES}
    none, found, chosen = {share: found_in(bar, bar) for share, bar in bars.items()}, [], {}
    print(json.dumps(none), flush=True)
    for method, grid in GRIDS.items():
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            runs = {share: ran(data, method, settings, {"injury": float(share)}) for share in bars}
            one = {share: found_in(runs[share], bar) for share, bar in bars.items()}
            found.append({"method": method, "settings": settings, "found": one})
            print(json.dumps(found[-1]), flush=True)
        chosen[method] = choose([one for one in found if one["method"] == method], none)
    print(json.dumps(chosen))
    record = {"seeds": SEEDS, "first_seed": FIRST_SEED, "none": none, "trials": found, "chosen": chosen}
    results.write_text(out / "trials.json", json.dumps(record, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
