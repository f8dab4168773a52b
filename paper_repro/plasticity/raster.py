"""A raster of resets: which hidden neuron is given a fresh start when, on input-permuted MNIST.

    python -m paper_repro.plasticity.raster [--tasks 10]

One seed, 5,000 images a task, one by one; SGD and the settings of the benchmark's methods. Writes `results/raster.png`,
and beside it how many neurons each rule replaced in each layer.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import commands, plots, runner, suite
from neuroml.streams.dataset import Dataset
from neuroml.streams.sources import load

RULES = ("cbp", "redo", "self_normalized_resets")
TITLES = ("continual backpropagation", "ReDo", "self-normalized resets")


def resets(job: runner.Job, data: Dataset) -> dict[str, np.ndarray]:
    """Returns {population: [steps, neurons]}: whether a step gave a neuron a fresh start, for seed 0."""
    one, key = job.experiment, jax.random.key(0)
    settings = {name: jnp.float32(value) for name, value in job.hyperparameters.items()}

    @jax.jit
    def whole(data):
        stream, state = one.begin(key, settings, data)

        def step(state, now, phase):
            state, _ = one.step(settings, stream, phase, state, now)
            return state, state.opt_state.rule.renewed

        phase = lambda state, number: jax.lax.scan(
            lambda s, now: step(s, now, number), state, one.order(key, stream, number)
        )
        return jax.lax.scan(phase, state, jnp.arange(stream.phases))[1]

    return {name: np.asarray(which).reshape(-1, which.shape[-1]) for name, which in whole(data).items()}


def draw(found: Mapping[str, Mapping[str, np.ndarray]], each: int, path: Path) -> None:
    """Draws a dot for each reset: a column a rule, a row a hidden layer, lines where a task begins."""
    layers = list(next(iter(found.values())))
    with plots.canvas(path, 2.3 * len(found), 1.5 * len(layers), []) as figure:
        axes = figure.subplots(len(layers), len(found), squeeze=False, sharex=True, sharey="row")
        for column, by_layer, title in zip(axes.T, found.values(), TITLES, strict=True):
            column[0].set_title(title, loc="left")
            for ax, which in zip(column, by_layer.values(), strict=True):
                step, neuron = np.nonzero(which)
                ax.plot(step / 1000, neuron, ".", color="black", markersize=1.2, rasterized=True)
                for start in range(0, len(which), each):
                    ax.axvline(start / 1000, color="0.85", linewidth=0.6, zorder=0)
            column[-1].set_xlabel("thousand steps")
        for ax, number in zip(axes[:, 0], range(1, len(layers) + 1), strict=True):
            ax.set_ylabel(f"neuron of layer {number}")


def main() -> None:
    """Trains, counts and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/plasticity/results"))
    given = parser.parse_args()
    commands.prepare_jax()
    one = dataclasses.replace(suite.load("input_permuted_mnist"), tasks=given.tasks)
    data = load(one.data)
    found = {name: resets(runner.Job(one, "domain", name), data) for name in RULES}
    counts = {rule: {name: int(which.sum()) for name, which in layers.items()} for rule, layers in found.items()}
    (given.out / "raster.json").write_text(json.dumps({"tasks": given.tasks, "replaced": counts}, indent=1) + "\n")
    draw(found, one.examples or 0, given.out / "raster.png")
    print(counts)


if __name__ == "__main__":
    main()
