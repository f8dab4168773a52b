"""Steps a second of a batch-1 stream: one compiled scan against a Python loop of compiled steps.

    python -m paper_repro.plasticity.speed [--out paper_repro/plasticity/results]

Input-permuted MNIST, one seed, the second of two calls, so that nothing is compiled while it is timed. Writes
`speed.json`.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, results, suite
from benchmarks.jobs import Job
from neuroml.running import run
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
METHODS = ("sgd", "homeostasis", "cbp", "upgd")
TASKS = {"scan": 4, "loop": 1}  # of 5,000 steps


def steps_a_second(method: str, mode: str) -> float:
    """Returns how many training steps one seed takes in a second."""
    one = dataclasses.replace(suite.load("input_permuted_mnist"), tasks=TASKS[mode], inspected=0)
    job, data = Job(one, "domain", method), load(one.data)
    for _ in range(2):
        result = run(job.experiment, data, seeds=[0], hyperparameters=job.hyperparameters, steps_mode=mode)
    return TASKS[mode] * (one.examples or 0) / result.seconds


def work(out: Path) -> None:
    """Measures all methods in both modes, prints and writes what it found."""
    environment.prepare_jax()
    found = {}
    for method in METHODS:
        scan, loop = (steps_a_second(method, mode) for mode in ("scan", "loop"))
        found[method] = {"scan": round(scan), "loop": round(loop), "ratio": round(scan / loop, 1)}
        print(f"{method:12} {scan:8.0f} steps/s in a scan, {loop:8.0f} in a loop: {scan / loop:.1f} times")
    results.write_text(out / "speed.json", json.dumps(found, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
