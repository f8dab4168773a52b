"""A raster of resets: which hidden neuron is given a fresh start when, on input-permuted MNIST.

    python -m paper_repro.plasticity.raster [--tasks 10] [--out paper_repro/plasticity/results]

One seed, 5,000 images a task, one by one; SGD and the settings of the benchmark's methods. Writes `raster.png`,
and beside it how many neurons each rule replaced in each layer.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, raster, results, suite
from benchmarks.jobs import Job
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
TITLES = {
    "cbp": "continual backpropagation",
    "redo": "ReDo",
    "self_normalized_resets": "self-normalized resets",
}


def work(tasks: int, out: Path) -> None:
    """Trains, counts and draws."""
    environment.prepare_jax()
    one = dataclasses.replace(suite.load("input_permuted_mnist"), tasks=tasks)
    data = load(one.data)
    found = {name: raster.watched(Job(one, "domain", name), data, raster.renewed) for name in TITLES}
    counts = {rule: {name: int(which.sum()) for name, which in layers.items()} for rule, layers in found.items()}
    results.write_text(out / "raster.json", json.dumps({"tasks": tasks, "replaced": counts}, indent=1) + "\n")
    raster.draw({title: [found[name]] for name, title in TITLES.items()}, one.examples or 0, out / "raster.png")
    print(counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, tasks=10, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
