"""Rotated MNIST at the angles that the authors' own code drew: SGD and SI, theirs and ours side by side.

    python -m paper_repro.buzzega_2020_rotated.angles [--out paper_repro/buzzega_2020_rotated/results]

Reads `authors_code.json`, what their code gave (its first lines say how it was run), runs two seeds of ours at the same
angles, and writes `same_angles.json`.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from benchmarks import environment, results, suite
from benchmarks.jobs import Job
from neuroml.running import run
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent
METHODS = {"sgd": "naive", "si": "si"}  # theirs: ours


def at_angles(job: Job, data: Dataset, degrees: Sequence[float], seeds: int = 2) -> list[float]:
    """Returns our accuracy at the end, in % for each seed, where task k is turned by `degrees[k]` counter-clockwise."""
    one, turned = job.experiment, -jnp.deg2rad(jnp.array(degrees, jnp.float32))  # ours turns clockwise
    maker = lambda data, key: dataclasses.replace(one.maker(data, key), settings=turned)
    there = dataclasses.replace(one, maker=maker)
    found = run(there, data, seeds=range(seeds), hyperparameters=job.hyperparameters)
    return [round(100 * float(accuracy), 2) for accuracy in found.accuracy[:, -1].mean(-1)]


def compared(theirs: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Returns a run of the authors' code beside ours."""
    job = Job(suite.load("rotated_mnist_20"), "domain", METHODS[theirs["model"]])
    ours = at_angles(job, data, theirs["angles"])
    return {"method": job.name, "their_seed": theirs["seed"], "theirs": round(theirs["accuracy"], 2), "ours": ours}


def work(out: Path) -> None:
    """Runs, prints and writes."""
    environment.prepare_jax()
    data, rows = load("mnist"), []
    for theirs in json.loads((HOME / "authors_code.json").read_text())["runs"]:
        if theirs["model"] in METHODS:
            rows.append(compared(theirs, data))
            print(rows[-1], flush=True)
    results.write_text(out / "same_angles.json", json.dumps({"runs": rows}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME / "results")


if __name__ == "__main__":
    sys.exit(main())
