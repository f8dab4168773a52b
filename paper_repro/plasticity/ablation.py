"""The factorial ablation of homeostasis, on the first 100,000 steps of input-permuted MNIST.

    python -m paper_repro.plasticity.ablation [--seeds 3] [--tasks 20] [--out paper_repro/plasticity/results]

Adapting inputs, decorrelated hidden layers and anchored weights, each on and off, in all combinations; with all off it
is the optimizer, and sees pixels from 0 to 1, which nothing standardizes: the worth of adapting is that over none.
Then, one at a time: inputs that do not anneal anew after a shift, and steps that surprise scales.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, suite
from neuroml.methods import methods
from neuroml.streams.sources import load
from paper_repro import ablations, scripts

HOME = Path(__file__).parent / "results"
METHOD = "homeostasis"
SETTINGS = {"learning_rate": 0.005, "anchoring": 6e-3}  # as chosen before the suite standardized its images
CHANGES = [
    *ablations.factorial({"adapts": False}, {"strength": 0.0}, {"anchoring": 0.0}),
    {"shift": 1e9},
    {"surprise": 1.0},
]


def work(seeds: int, tasks: int, out: Path) -> None:
    """Runs what is missing, and prints the table."""
    environment.prepare_jax()
    given = {"standardized": (0.0, 1.0), "tasks": tasks} | {
        f"{METHOD}.{name}": value for name, value in SETTINGS.items()
    }
    base = suite.change(suite.load("input_permuted_mnist"), given, {METHOD: methods[METHOD]})
    jobs = ablations.variants(base, "domain", METHOD, CHANGES)
    ablations.run(jobs, load(base.data), range(seeds), out / "ablation.domain.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=3, tasks=20, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
