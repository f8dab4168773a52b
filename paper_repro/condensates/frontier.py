"""The equal-bytes frontier on split MNIST online: condensates against replay, every byte charged.

    python -m paper_repro.condensates.frontier [--seeds 5] [--out paper_repro/condensates/results]

At each budget a method holds as much as fits: weights, optimizer and rule state, buffer, filters, statistics, and the
first images that condensates hold back until their filters are made, for which they have a quarter of the budget.
Replay is given two networks, so that a small one can leave its bytes to the buffer; all else is the suite's. Classes
come in an order drawn from the seed. What a batch takes while it is learnt is not counted for anyone. Results are lines
of JSON like those of `benchmarks run`, one file a budget; what is there already is not run again.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from benchmarks import commands, inside, results, runner, suite, summaries
from benchmarks.jobs import Job
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load

BUDGETS = {"250kB": 250_000, "1MB": 1_000_000, "4MB": 4_000_000, "16MB": 16_000_000}
NETWORKS = {"250kB": [(50, 50)], "1MB": [(50, 50), (100, 100)], "4MB": [(100, 100), (400, 400)]}
NETWORKS["16MB"] = NETWORKS["4MB"]
FILTERS = 8  # the memory's filters come in steps of so many
HELD = 0.25  # share of the budget for the images that the memory holds back
BATCHES = {"250kB": 10, "1MB": 10, "4MB": 500, "16MB": 500}  # of the memory, which sums: no more than a tenth of all


def with_options(base: suite.Suite, name: str, **changed: int) -> suite.Suite:
    """Returns the suite with other options of a method."""
    return dataclasses.replace(base, options={**base.options, name: {**base.options.get(name, {}), **changed}})


def bytes_of(job: Job, data: Dataset) -> int:
    """Returns what a job holds, without running it."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    numbers = {name: jax.ShapeDtypeStruct((), np.float32) for name in job.hyperparameters}
    return job.experiment.cost(key, numbers, data)[0]


def largest(base: suite.Suite, name: str, option: str, step: int, budget: int, data: Dataset) -> Job | None:
    """Returns the job with the largest multiple of `step` as its option that fits the budget; None if none does."""

    def job(size: int) -> Job:
        return Job(with_options(base, name, **{option: size}), "class", name)

    fits = lambda count: bytes_of(job(step * count), data) <= budget
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return job(step * low) if low else None


def held_images(base: suite.Suite, budget: int, data: Dataset) -> int:
    """Returns how many images the memory may hold back: its usual number, or as many as their share has room for.

    An image is charged as in a buffer of replay, with its label, its task and its active outputs.
    """
    job = lambda **options: Job(with_options(base, "condensate_memory", **options), "class", "condensate_memory")
    usual = job().options["held_back"]
    each = (bytes_of(job(), data) - bytes_of(job(held_back=0), data)) / usual
    return min(usual, int(HELD * budget / each))


def jobs(name: str, base: suite.Suite, data: Dataset) -> Iterator[Job]:
    """Yields what runs at a budget."""
    budget = BUDGETS[name]
    for hidden in NETWORKS[name]:
        network = dataclasses.replace(base, hidden=hidden)
        for method in ("er", "derpp"):
            if found := largest(network, method, "capacity", 1, budget, data):
                yield found
    sums = dataclasses.replace(base, batch_sizes={**base.batch_sizes, "condensate_memory": BATCHES[name]})
    pool, held = 2 if budget < 1_000_000 else 3, held_images(sums, budget, data)
    memory = with_options(sums, "condensate_memory", pool=pool, held_back=held)
    if found := largest(memory, "condensate_memory", "width", FILTERS, budget, data):
        yield found


def best(rows: list[results.Record]) -> dict[str, tuple[float, list[float]]]:
    """Returns (bytes, accuracies of the seeds) of each method's best configuration at one budget."""
    found: dict[str, tuple[float, list[float]]] = {}
    for group in summaries.by_label(rows).values():
        method, accuracies = group[0]["method"], [row["metrics"]["accuracy"] for row in group]
        if method not in found or np.mean(accuracies) > np.mean(found[method][1]):
            found[method] = (group[0]["bytes"], accuracies)
    return found


def main() -> None:
    """Runs what is missing, prints a line for each point, and draws the best of each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/condensates/results"))
    given = parser.parse_args()
    commands.prepare_jax()
    base, data = dataclasses.replace(suite.load("split_mnist_online"), ordered=False), load("mnist")
    points: dict[str, list[tuple[float, list[float]]]] = {}
    for name in BUDGETS:
        path = given.out / f"frontier.{name}.jsonl"
        for job in jobs(name, base, data):
            list(runner.run_job(job, data, range(given.seeds), path))
        rows = results.latest(results.read(path))
        for label, group in summaries.by_label(rows).items():
            mean = np.mean([row["metrics"]["accuracy"] for row in group])
            print(f"{name:6} {100 * mean:.2f} % {group[0]['bytes']:>9} bytes {label}", flush=True)
        for method, point in best(rows).items():
            points.setdefault(method, []).append(point)
    inside.frontier(points, given.out / "accuracy_by_bytes.png")


if __name__ == "__main__":
    main()
