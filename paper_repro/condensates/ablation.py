"""The factorial ablations of the projector's and of the memory's parts, on split MNIST in one pass.

    python -m paper_repro.condensates.ablation [--seeds 3] [--out paper_repro/condensates/results]

Projector: evaporation, binding by valence and hardening, each on and off, in all combinations; then, one at a time:
inert (strength 0), the content-free control, cores of low rank, of a share of the energy and of a number of bytes, and
the initialization of PyTorch. Memory, on few features and in batches of 32: a shell and slots, each on and off; slots
that coarsen. How soon a memory answers is its online accuracy.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import environment, suite
from neuroml.methods import methods
from neuroml.streams.sources import load
from paper_repro import ablations, scripts
from paper_repro.ablations import Changes, factorial

HOME = Path(__file__).parent / "results"
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


def work(seeds: int, out: Path) -> None:
    """Runs what is missing, and prints the tables."""
    environment.prepare_jax()
    data = load("mnist")
    for name, base in bases().items():
        jobs = ablations.variants(base, "class", name, ABLATIONS[name])
        ablations.run(jobs, data, range(seeds), out / FILES[name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=3, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
