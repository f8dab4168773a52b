"""Recovery curves: online accuracy around an injury, and a raster of what is repaired.

    python -m paper_repro.repair.curves [--injury 0.8] [--seeds 10]

Runs the methods of the suite `injury_recovery` and writes, to `results/`, `recovery.json` (means of ten steps, for each
seed), `recovery.png` (means over seeds with 95 % intervals) and `raster.png` (seed 0).
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from benchmarks import commands, plots, raster, results, suite
from benchmarks.jobs import Job
from neuroml.running import run
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load

HOME = Path(__file__).parent / "results"
WINDOW = 10  # steps
BEFORE, AFTER = 200, 500
REPAIRING = {"random_rebirth": "random rebirth", "nanotube": "nanotubes"}


def recovery(job: Job, data: Dataset, seeds: int) -> np.ndarray:
    """Returns online accuracy from `BEFORE` steps before the injury to `AFTER` after it, [seeds, windows]."""
    found = run(job.experiment, data, seeds=range(seeds), hyperparameters=job.hyperparameters)
    steps = found.online_accuracy.reshape(seeds, -1)
    at = job.suite.injury_at
    return steps[:, at - BEFORE : at + AFTER].reshape(seeds, -1, WINDOW).mean(-1)


def draw(curves: dict[str, list[list[float]]], path: Path) -> None:
    """Draws a line for each method, with 95 % intervals over seeds."""
    styles = {name: plots.method_style(name) | {"label": name, "marker": None} for name in curves}
    with plots.canvas(path, 4.2, 2.6, styles.values()) as figure:
        ax = figure.subplots()
        for name, values in curves.items():
            middles = np.arange(len(values[0])) * WINDOW + WINDOW / 2 - BEFORE
            plots.line(ax, middles, 100 * np.array(values), styles[name])
        ax.axvline(0, color="0.6", linewidth=1.0, zorder=0)
        ax.set_xlabel("steps after the injury")
        ax.set_ylabel("online accuracy (%)")


def main() -> None:
    """Runs, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--injury", type=float, default=0.8)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    commands.prepare_jax()
    one = dataclasses.replace(suite.load("injury_recovery"), injury=given.injury)
    data = load(one.data)
    curves = {name: recovery(Job(one, "domain", name), data, given.seeds).tolist() for name in one.methods}
    record = {"injury": given.injury, "steps_before": BEFORE, "window": WINDOW, "online_accuracy": curves}
    results.write_text(HOME / "recovery.json", json.dumps(record) + "\n")
    draw(curves, HOME / "recovery.png")
    watched = {
        title: [raster.watched(Job(one, "domain", name), data, raster.renewed)] for name, title in REPAIRING.items()
    }
    raster.draw(watched, (one.examples or 0) // one.batch_size, HOME / "raster.png", injury=one.injury_at)


if __name__ == "__main__":
    main()
