"""The factorial ablation of the projector's parts, and of its surroundings, on split MNIST in one pass.

    python -m paper_repro.condensates.ablation [--seeds 3] [--out paper_repro/condensates/results]

Evaporation, binding by valence and hardening, each on and off, in all combinations; then, one at a time: inert
(strength 0), the content-free control, a core of low rank, and the initialization of PyTorch.
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

PARTS = {"evaporation": 0.5, "binding": 0.5, "hardness": 0.5}
RULE = "condensate_projector"


def variants(base: suite.Suite) -> list[suite.Suite]:
    """Returns the suite with every combination of the parts, and with what surrounds them changed."""

    method = methods[RULE]

    def change(given):
        of = lambda known: {name: value for name, value in given.items() if name in known}
        merged = lambda table, known: {**table, RULE: {**table.get(RULE, {}), **of(known)}}
        return dataclasses.replace(
            base,
            hyperparameters=merged(base.hyperparameters, method.hyperparameters),
            options=merged(base.options, method.options),
            **of(("initialization",)),
        )

    chosen = itertools.product(*(({}, {name: value}) for name, value in PARTS.items()))
    factorial = [{name: value for part in parts for name, value in part.items()} for parts in chosen]
    others = [{"strength": 0.0}, {"shuffled": True}, {"rank": 100}, {"initialization": "torch"}]
    return [change(given) for given in factorial + others]


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/condensates/results"))
    given = parser.parse_args()
    commands.prepare_jax()
    data, path = load("mnist"), given.out / "ablation.class.jsonl"
    for one in variants(suite.load("split_mnist_one_pass")):
        for record in runner.run_job(Job(one, "class", RULE), data, range(given.seeds), path):
            print(record["config"]["hyperparameters"], record["metrics"]["accuracy"], flush=True)
    print(markdown(summarize(results.latest(results.read(path)))))


if __name__ == "__main__":
    main()
