"""Recovery curves: online accuracy around an injury, and a raster of what is repaired.

    python -m paper_repro.repair.curves [--injury 0.8] [--seeds 10] [--out paper_repro/repair/results]

Runs the methods of the suite `injury_recovery` and writes `recovery.json` (means of ten steps, for each seed; null for
one that diverged), `recovery.png` (means over seeds with 95 % intervals) and `raster.png` (seed 0).
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import environment, raster, results, suite
from benchmarks.canvas import canvas, line
from benchmarks.jobs import Job
from benchmarks.styles import method_style
from neuroml.running import run
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
WINDOW = 10  # steps
BEFORE, AFTER = 200, 500
REPAIRING = {"random_rebirth": "random rebirth", "nanotube": "nanotubes"}


def recovery(job: Job, data: Dataset, seeds: int) -> np.ndarray:
    """Returns online accuracy from `BEFORE` steps before the injury to `AFTER` after it, [seeds, windows].

    It is NaN for a seed that diverged.
    """
    found = run(job.experiment, data, seeds=range(seeds), hyperparameters=job.hyperparameters)
    steps = found.online_accuracy.reshape(seeds, -1)
    at = job.suite.injury_at
    curves = steps[:, at - BEFORE : at + AFTER].reshape(seeds, -1, WINDOW).mean(-1)
    return np.where(found.diverged[:, :1] < 0, curves, np.nan)


def titled(name: str, values: np.ndarray) -> str:
    """Returns the name and, if any, how many seeds diverged."""
    diverged = int(np.isnan(values).any(1).sum())
    return f"{name} (diverged {diverged}/{len(values)})" if diverged else name


def draw(curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws a line for each method, with 95 % intervals over the seeds that did not diverge."""
    styles = {
        name: method_style(name) | {"label": titled(name, values), "marker": None} for name, values in curves.items()
    }
    with canvas(path, 4.2, 2.6, styles.values()) as figure:
        ax = figure.subplots()
        for name, values in curves.items():
            middles = np.arange(len(values[0])) * WINDOW + WINDOW / 2 - BEFORE
            line(ax, middles, 100 * values, styles[name])
        ax.axvline(0, color="0.6", linewidth=1.0, zorder=0)
        ax.set_xlabel("steps after the injury")
        ax.set_ylabel("online accuracy (%)")


def work(injury: float, seeds: int, out: Path) -> None:
    """Runs, writes and draws."""
    environment.prepare_jax()
    one = dataclasses.replace(suite.load("injury_recovery"), injury=injury)
    data = load(one.data)
    curves = {name: recovery(Job(one, "domain", name), data, seeds) for name in one.methods}
    record = {"injury": injury, "steps_before": BEFORE, "window": WINDOW, "online_accuracy": curves}
    results.write_text(out / "recovery.json", json.dumps(results.plain(record)) + "\n")
    draw(curves, out / "recovery.png")
    watched = {
        title: [raster.watched(Job(one, "domain", name), data, raster.renewed)] for name, title in REPAIRING.items()
    }
    raster.draw(watched, (one.examples or 0) // one.batch_size, out / "raster.png", injury=one.injury_at)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, injury=0.8, seeds=10, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
