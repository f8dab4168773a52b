"""A stream of toy images for tests of the suites about learning on and on, and its records."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import toy

from benchmarks import results, runner, suite
from benchmarks.jobs import Job

DATA = toy.dataset()
SMALL = dataclasses.replace(
    suite.load("input_permuted_mnist"), tasks=4, examples=8, hidden=(6, 5), inspected=8, hyperparameters={}
)


def records(name, one=None):
    return _records(name) if one is None else _run(name, one)


def first_losses(name, one):
    """Returns the losses of the first task: a program of steps alone, which compiles in half the time of a run."""
    job = Job(one, "domain", name)
    experiment = job.experiment
    numbers = {**experiment.method.hyperparameters, **job.hyperparameters}

    def steps(key, numbers):
        stream, state = experiment.begin(key, numbers, DATA)
        take = lambda state, now: experiment.step(numbers, stream, jnp.int32(0), state, now)
        return jax.lax.scan(take, state, experiment.order(key, stream, jnp.int32(0)))[1].loss

    return jax.jit(steps)(jax.random.key(0), jax.tree.map(jnp.float32, numbers))


@functools.cache
def _records(name):
    return _run(name, SMALL)


def _run(name, one):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        list(runner.run_job(Job(one, "domain", name), DATA, [0, 1], path))
        return results.read(path)
