"""The equal-bytes frontier on split MNIST online: condensates against replay, every byte charged.

    python -m paper_repro.condensates.frontier [--seeds 5] [--out paper_repro/condensates/results]

At each budget a method holds as much as fits: weights, optimizer and rule state, buffer, filters, statistics, and the
first images that condensates hold back until their filters are made, for which they have a quarter of the budget.
Replay is given two networks, so that a small one can leave its bytes to the buffer, and both are drawn: only the test
set could tell which of them is better. All else is the suite's. Classes come in an order drawn from the seed. What a
batch takes while it is learnt is not counted for anyone. Results are lines of JSON like those of `benchmarks run`, one
file a budget; what is there already is not run again, and what is there of other configurations or seeds is neither
printed nor drawn.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks import environment, results, runner, suite
from benchmarks.canvas import canvas
from benchmarks.jobs import Job
from benchmarks.statistics import mean_interval
from benchmarks.styles import method_styles
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load
from paper_repro import comparing, scripts

HOME = Path(__file__).parent / "results"
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


def name_of(record: results.Record) -> str:
    """Returns the method, and the network that replay was given."""
    if record["method"] == "condensate_memory":
        return record["method"]
    return f"{record['method']}, {'-'.join(map(str, record['config']['protocol']['hidden']))}"


def kept(records: Sequence[results.Record], asked: Sequence[Job], seeds: int) -> list[results.Record]:
    """Returns the newest records of these jobs and of the first seeds."""
    wanted = {(results.config_hash(job.config), job.name, seed) for job in asked for seed in range(seeds)}
    return [record for record in results.latest(records) if results.identity(record) in wanted]


def draw(rows: Mapping[str, Sequence[results.Record]], path: Path) -> None:
    """Draws accuracy against bytes, a line for each method and network over the budgets, with 95 % intervals."""
    lines: dict[str, list[list[results.Record]]] = {}
    for records in rows.values():
        for name, group in comparing.by_name(records, name_of).items():
            lines.setdefault(name, []).append(group)
    styles = method_styles([{name: sum(lines[name], []) for name in sorted(lines)}])
    with canvas(path, 3.6, 2.2, styles.values()) as figure:
        ax = figure.subplots()
        for name, line in lines.items():
            ends = [mean_interval(comparing.values(group, "accuracy").values()) for group in line]
            (mean, low, high), sizes = np.array(ends).T, [group[0]["bytes"] / 1e6 for group in line]
            ax.plot(sizes, mean, **styles[name])
            ax.fill_between(sizes, low, high, color=styles[name]["color"], alpha=0.16, linewidth=0)
        ax.set_xscale("log")
        ax.set_xlabel("memory in all (MB)")
        ax.set_ylabel("average accuracy (%)")


def work(seeds: int, out: Path) -> None:
    """Runs what is missing, prints a line for each point, and draws them."""
    environment.prepare_jax()
    base, data = dataclasses.replace(suite.load("split_mnist_online"), ordered=False), load("mnist")
    rows = {}
    for budget in BUDGETS:
        path, here = out / f"frontier.{budget}.jsonl", list(jobs(budget, base, data))
        for job in here:
            list(runner.run_job(job, data, range(seeds), path))
        rows[budget] = kept(results.read(path), here, seeds)
        for name, group in comparing.by_name(rows[budget], name_of).items():
            at = mean_interval(comparing.values(group, "accuracy").values())
            print(f"{budget:6} {at.mean:.2f} % {group[0]['bytes']:>9} bytes {name}", flush=True)
    draw(rows, out / "accuracy_by_bytes.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=5, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
