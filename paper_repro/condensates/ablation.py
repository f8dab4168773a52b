"""The factorial ablations of the projector's and of the memory's parts, on split MNIST in one pass.

    python -m paper_repro.condensates.ablation [--seeds 3] [--out paper_repro/condensates/results]

Projector: evaporation, binding by valence and hardening, each on and off, in all combinations; then, one at a time:
inert (strength 0), the content-free control, cores of low rank, of a share of the energy and of a number of bytes, and
the initialization of PyTorch. Memory, on few features and in batches of 32: a shell and slots, each on and off; slots
that coarsen. How soon a memory answers is its online accuracy.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import commands, results, runner, suite
from benchmarks.jobs import Job
from benchmarks.summaries import summarize
from benchmarks.tables import markdown
from neuroml.methods import methods
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load

Changes = list[dict[str, Any]]


def factorial(*parts: dict[str, Any]) -> Changes:
    """Returns all combinations of parts that are there or not.

    >>> factorial({"a": 1}, {"b": 2})
    [{}, {'b': 2}, {'a': 1}, {'a': 1, 'b': 2}]
    """
    chosen = itertools.product(*(({}, part) for part in parts))
    return [{name: value for part in some for name, value in part.items()} for some in chosen]


SLOTS = {"slots": 200, "mix": 0.5, "linker": 0.3}
ABLATIONS: Mapping[str, Changes] = {
    "condensate_projector": [
        *factorial({"evaporation": 0.5}, {"binding": 0.5}, {"hardness": 0.5}),
        {"strength": 0.0},
        {"shuffled": True},
        {"rank": 100},
        {"kept": 0.99},
        {"max_bytes": 1_000_000},
        {"initialization": "torch"},
    ],
    "condensate_memory": [
        *factorial({"shell_rate": 1.0}, SLOTS),
        {**SLOTS, "tension": 100},
        {"shell_rate": 1.0, **SLOTS, "tension": 100},
    ],
}
FILES = {"condensate_projector": "ablation.class.jsonl", "condensate_memory": "ablation_memory.class.jsonl"}


def bases() -> dict[str, suite.Suite]:
    """Returns the suite that each ablation starts from."""
    whole = suite.load("split_mnist_one_pass")
    small = suite.change(whole, {"condensate_memory.width": 50}, methods)
    return {
        "condensate_projector": whole,
        "condensate_memory": dataclasses.replace(small, measure="online_accuracy", batch_sizes={}),
    }


def ablate(name: str, data: Dataset, seeds: range, path: Path) -> None:
    """Runs what is missing of one ablation, and prints its table."""
    base = bases()[name]
    for given in ABLATIONS[name]:
        of = {key if key == "initialization" else f"{name}.{key}": value for key, value in given.items()}
        one = suite.change(base, of, {name: methods[name]})
        for record in runner.run_job(Job(one, "class", name), data, seeds, path):
            print(record["config"]["hyperparameters"], record["metrics"]["accuracy"], flush=True)
    print(markdown(summarize(results.latest(results.read(path)))))


def main() -> None:
    """Runs what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/condensates/results"))
    given = parser.parse_args()
    commands.prepare_jax()
    data = load("mnist")
    for name, file in FILES.items():
        ablate(name, data, range(given.seeds), given.out / file)


if __name__ == "__main__":
    main()
