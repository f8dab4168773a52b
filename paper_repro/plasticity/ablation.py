"""The factorial ablation of homeostasis, on the first 100,000 steps of input-permuted MNIST.

    python -m paper_repro.plasticity.ablation [--seeds 3] [--tasks 20] [--out paper_repro/plasticity/results]

Adapting inputs, decorrelated hidden layers and anchored weights, each on and off, in all combinations; with all off it
is the optimizer. Where inputs do not adapt they are standardized, as those of all other methods are. Then, one at a
time: inputs that do not anneal anew after a shift, steps that surprise scales, and the content-free controls: one mean
and spread for all inputs, the inverse moment of other inputs, weights drawn towards the start of others, or to zero.
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
CHANGES = [
    *ablations.factorial({"adapts": False}, {"strength": 0.0}, {"anchoring": 0.0}),
    {"shift": 1e9},
    {"surprise": 1.0},
    {"pooled": True},
    {"shuffled_inputs": True},
    {"form": "shuffled"},
    {"form": "zero"},
]


def work(seeds: int, tasks: int, out: Path) -> None:
    """Runs what is missing, and prints the table."""
    environment.prepare_jax()
    base = suite.change(suite.load("input_permuted_mnist"), {"tasks": tasks}, {METHOD: methods[METHOD]})
    jobs = ablations.variants(base, "domain", METHOD, CHANGES)
    ablations.run(jobs, load(base.data), range(seeds), out / "ablation.domain.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=3, tasks=20, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
