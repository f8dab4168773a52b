"""A raster of resets: which hidden neuron is given a fresh start when, on input-permuted MNIST.

    python -m paper_repro.plasticity.raster [--tasks 10]

One seed, 5,000 images a task, one by one; SGD and the settings of the benchmark's methods. Writes `results/raster.png`,
and beside it how many neurons each rule replaced in each layer.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from benchmarks import commands, raster, suite
from benchmarks.jobs import Job
from neuroml.streams.sources import load

TITLES = {
    "cbp": "continual backpropagation",
    "redo": "ReDo",
    "self_normalized_resets": "self-normalized resets",
}


def main() -> None:
    """Trains, counts and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/plasticity/results"))
    given = parser.parse_args()
    commands.prepare_jax()
    one = dataclasses.replace(suite.load("input_permuted_mnist"), tasks=given.tasks)
    data = load(one.data)
    found = {name: raster.watched(Job(one, "domain", name), data, raster.renewed) for name in TITLES}
    counts = {rule: {name: int(which.sum()) for name, which in layers.items()} for rule, layers in found.items()}
    (given.out / "raster.json").write_text(json.dumps({"tasks": given.tasks, "replaced": counts}, indent=1) + "\n")
    raster.draw({title: [found[name]] for name, title in TITLES.items()}, one.examples or 0, given.out / "raster.png")
    print(counts)


if __name__ == "__main__":
    main()
