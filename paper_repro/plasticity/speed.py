"""Steps a second of a batch-1 stream: one compiled scan against a Python loop of compiled steps.

    python -m paper_repro.plasticity.speed [--out paper_repro/plasticity/results]

Input-permuted MNIST, one seed, the second of two calls, so that nothing is compiled while it is timed, and a hundred
test images, so that it is steps that are. Beside them the smallest program that takes steps of SGD with this network:
one scan over images that lie ready, which measures nothing. Writes `speed.json`.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import environment, results, suite
from benchmarks.jobs import Job
from neuroml.running import run
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
METHODS = ("sgd", "homeostasis", "cbp", "upgd")
TASKS = {"scan": 4, "loop": 1}  # of 5,000 steps


def steps_a_second(method: str, mode: str) -> float:
    """Returns how many training steps one seed takes in a second."""
    one = dataclasses.replace(suite.load("input_permuted_mnist"), tasks=TASKS[mode], inspected=0)
    job, data = Job(one, "domain", method), _few_tests(load(one.data))
    for _ in range(2):
        result = run(job.experiment, data, seeds=[0], hyperparameters=job.hyperparameters, steps_mode=mode)
    return TASKS[mode] * (one.examples or 0) / result.seconds


def _few_tests(data: Dataset) -> Dataset:
    train, test = (data.train_x, data.train_y), (data.test_x[:100], data.test_y[:100])
    return Dataset.from_arrays(data.name, train, test, classes=data.classes, scale=data.scale)


def bare_steps_a_second() -> float:
    """Returns how many steps of SGD the smallest program takes in a second."""
    one = suite.load("input_permuted_mnist")
    experiment, number = Job(one, "domain", "sgd").experiment, TASKS["scan"] * (one.examples or 0)
    stream = experiment.stream(load(one.data), jax.random.key(0))
    task = experiment.task(stream)
    first = stream.train_batch(jnp.int32(0), jnp.arange(number) % stream.smallest)
    batches = jax.tree.map(lambda leaf: leaf[:, None], first)
    move = lambda weight, gradient: weight - 0.01 * gradient
    step = lambda params, batch: (jax.tree.map(move, params, jax.grad(task.loss)(params, batch)), None)
    program = jax.jit(lambda params: jax.lax.scan(step, params, batches)[0])
    params, _ = task.network.init(jax.random.key(0))
    jax.block_until_ready(program(params))
    start = time.perf_counter()
    jax.block_until_ready(program(params))
    return number / (time.perf_counter() - start)


def work(out: Path) -> None:
    """Measures all methods in both modes, prints and writes what it found."""
    environment.prepare_jax()
    bare = bare_steps_a_second()
    print(f"{'bare sgd':12} {bare:8.0f} steps/s in a scan")
    found: dict[str, dict[str, float]] = {"bare sgd": {"scan": round(bare)}}
    for method in METHODS:
        scan, loop = (steps_a_second(method, mode) for mode in ("scan", "loop"))
        found[method] = {"scan": round(scan), "loop": round(loop), "ratio": round(scan / loop, 1)}
        print(f"{method:12} {scan:8.0f} steps/s in a scan, {loop:8.0f} in a loop: {scan / loop:.1f} times")
    results.write_text(out / "speed.json", json.dumps(found, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
