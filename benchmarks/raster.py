"""Rasters: which neuron is born, dies, or is given a fresh start when, over the steps of one run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.canvas import canvas
from benchmarks.jobs import Job
from neuroml.streams.dataset import Dataset

Events = Mapping[str, np.ndarray]  # population: bool [steps, neurons]
MARKS = {".": "black", "x": "#D55E00"}  # of the first kind of event in a panel, and of the second


def renewed(opt_state: Any) -> dict[str, jax.Array]:
    """Returns which neurons the last update replaced, wherever in the state the rule is that replaces them."""
    return _rule(opt_state).renewed


def alive(opt_state: Any) -> dict[str, jax.Array]:
    """Returns which neurons of a network that grows are alive."""
    return {name: one.alive for name, one in _rule(opt_state).neurons.items()}


def watched(
    job: Job, data: Dataset, seen: Callable[[Any], Mapping[str, jax.Array]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Runs a method, and returns {population: bool [steps, neurons]}: what `seen` says of its state after each step."""
    one, key = job.experiment, jax.random.key(seed)
    settings = {name: jnp.float32(value) for name, value in job.hyperparameters.items()}

    @jax.jit
    def whole(data):
        stream, state = one.begin(key, settings, data)

        def step(state, now, phase):
            state, _ = one.step(settings, stream, phase, state, now)
            return state, dict(seen(state.opt_state))

        def phase(state, number):
            state, rows = jax.lax.scan(lambda s, now: step(s, now, number), state, one.order(key, stream, number))
            return one.finish(key, settings, stream, number, state)[0], rows

        return jax.lax.scan(phase, state, jnp.arange(stream.phases))[1]

    return {name: np.asarray(which).reshape(-1, which.shape[-1]) for name, which in whole(data).items()}


def births_and_deaths(living: Events) -> list[Events]:
    """Returns the steps at which neurons come to life, and those at which they die, from who is alive after each step.

    >>> born, died = births_and_deaths({"hidden": np.array([[True, False], [True, True], [False, True]])})
    >>> np.argwhere(born["hidden"]).tolist(), np.argwhere(died["hidden"]).tolist()
    ([[1, 1]], [[2, 0]])
    """
    before = {name: np.vstack([which[:1], which[:-1]]) for name, which in living.items()}
    born = {name: which & ~before[name] for name, which in living.items()}
    return [born, {name: before[name] & ~which for name, which in living.items()}]


def draw(panels: Mapping[str, Sequence[Events]], each: int, path: Path, injury: int | None = None) -> None:
    """Draws a mark for each event: a column a panel, a row a population, lines where a task begins.

    Args:
      panels: by title, one or two kinds of events, the second in another colour.
      each: steps of a task.
      path: of the picture.
      injury: the step of an injury, drawn as a line.
    """
    layers = list(next(iter(panels.values()))[0])
    with canvas(path, 2.3 * len(panels), 1.5 * len(layers), []) as figure:
        axes = figure.subplots(len(layers), len(panels), squeeze=False, sharex=True, sharey="row")
        for column, (title, kinds) in zip(axes.T, panels.items(), strict=True):
            column[0].set_title(title, loc="left")
            for ax, name in zip(column, layers, strict=True):
                for which, (mark, color) in zip(kinds, MARKS.items(), strict=False):
                    step, neuron = np.nonzero(which[name])
                    ax.plot(step / 1000, neuron, mark, color=color, markersize=1.8, rasterized=True)
                for start in range(0, len(kinds[0][name]), each):
                    ax.axvline(start / 1000, color="0.85", linewidth=0.6, zorder=0)
                if injury is not None:
                    ax.axvline(injury / 1000, color="#D55E00", linewidth=1.0, zorder=0)
            column[-1].set_xlabel("thousand steps")
        for ax, number in zip(axes[:, 0], range(1, len(layers) + 1), strict=True):
            ax.set_ylabel(f"neuron of layer {number}")


def _rule(opt_state: Any) -> Any:
    replaces = lambda node: hasattr(node, "renewed")
    return next(node for node in jax.tree.leaves(opt_state, is_leaf=replaces) if replaces(node))
