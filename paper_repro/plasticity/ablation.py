"""The factorial ablation of homeostasis, on the first 100,000 steps of input-permuted MNIST.

    python -m paper_repro.plasticity.ablation [--seeds 3] [--tasks 20] [--out paper_repro/plasticity/results]

Adapting inputs, decorrelated hidden layers and anchored weights, each on and off, in all combinations; with all off it
is the optimizer. Then, one at a time: inputs that do not anneal anew after a shift, and steps that surprise scales.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

from benchmarks import commands, results, runner, suite
from benchmarks.jobs import Job
from benchmarks.summaries import summarize
from benchmarks.tables import markdown
from neuroml.methods import methods
from neuroml.streams.sources import load

METHOD = "homeostasis"
OFF = {"adapts": False, "strength": 0.0, "anchoring": 0.0}
OTHERS = ({"shift": 1e9}, {"surprise": 1.0})


def variants(base: suite.Suite) -> list[suite.Suite]:
    """Returns the suite with every combination of the parts, and with what is not among them changed."""
    choices = itertools.product(*(({}, {name: value}) for name, value in OFF.items()))
    factorial = [{name: value for part in parts for name, value in part.items()} for parts in choices]
    of = lambda given: {f"{METHOD}.{name}": value for name, value in given.items()}
    return [suite.change(base, of(given), {METHOD: methods[METHOD]}) for given in (*factorial, *OTHERS)]


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/plasticity/results"))
    given = parser.parse_args()
    commands.prepare_jax()
    base = dataclasses.replace(suite.load("input_permuted_mnist"), tasks=given.tasks)
    data, path = load(base.data), given.out / "ablation.domain.jsonl"
    for one in variants(base):
        for record in runner.run_job(Job(one, "domain", METHOD), data, range(given.seeds), path):
            print(record["config"]["hyperparameters"], record["metrics"]["online_accuracy"], flush=True)
    print(markdown(summarize(results.latest(results.read(path)))))


if __name__ == "__main__":
    main()
