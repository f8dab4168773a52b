"""Pictures of results: accuracy along the stream, with 95 % Student-t intervals over seeds."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import summaries
from benchmarks.canvas import LETTER, canvas, finish, line
from benchmarks.groups import groups_of, is_joint, matrices_of, titled
from benchmarks.results import Record
from benchmarks.styles import Style, method_styles, task_styles
from neuroml.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy_over_tasks(records_by_scenario: Mapping[str, Sequence[Record]], path: Path | str) -> None:
    """Draws the average accuracy over the tasks seen so far: a panel a scenario, a line a method.

    Joint training, which has one phase, is a dashed line across. Runs that diverged are in no mean, and the
    legend counts them. Each panel has the scale that fits its lines.

    Args:
        records_by_scenario: Records of one suite for each scenario, in the order of the panels.
        path: Where the PNG goes; its folder is made.

    Raises:
        UsageError: There is nothing to draw, or a panel mixes suites, data sets or scenarios.
        NeuromlError: matplotlib is not installed.
        DataError: The file cannot be written.
    """
    panels = {scenario: groups_of(records) for scenario, records in records_by_scenario.items()}
    if not panels:
        raise UsageError("cannot draw: there are no records.")
    styles = method_styles(panels.values())
    with canvas(path, max(3.4, 0.4 + 2.2 * len(panels)), 2.1, styles.values()) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (scenario, groups) in zip(axes, panels.items(), strict=True):
            stacks = {label: matrices_of(group) for label, group in groups.items()}
            tasks = max(stack.shape[2] for stack in stacks.values())
            for label, stack in stacks.items():
                _stream_line(ax, stack, tasks, styles[label])
            finish(ax, summaries.TITLES.get(scenario, scenario), tasks)
            _fit(ax, [ax])
        axes[0].set_ylabel("average accuracy over\nthe tasks seen so far (%)")


def per_task(records: Sequence[Record], path: Path | str) -> None:
    """Draws the accuracy of each task from the phase that trained it to the end, a panel a method.

    The black line is the mean over the tasks seen so far. Joint training, which has one phase, has no panel.

    Args:
        records: Records of one suite, data set and scenario.
        path: Where the PNG goes; its folder is made.

    Raises:
        UsageError: There is nothing to draw, or the records mix suites, data sets or scenarios.
        NeuromlError: matplotlib is not installed.
        DataError: The file cannot be written.
    """
    stacks = {titled(label, group): matrices_of(group) for label, group in groups_of(records).items()}
    stacks = {title: stack for title, stack in stacks.items() if not is_joint(stack)}
    if not stacks:
        raise UsageError("cannot draw accuracy per task: every method was trained in one phase.")
    rows = math.ceil(len(stacks) / 4)
    columns = math.ceil(len(stacks) / rows)
    width = (3.4, 4.8, 7.0, 7.0)[columns - 1]
    tasks = max(stack.shape[2] for stack in stacks.values())
    *lines, mean_style = styles = task_styles(tasks)
    with canvas(path, width, 0.3 + 1.5 * rows, styles) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, (title, stack) in zip(axes.flat, stacks.items(), strict=False):
            phases = np.arange(stack.shape[1])
            for task, style in enumerate(lines[: stack.shape[2]]):
                line(ax, phases[task:] + 1, stack[:, task:, task], style)
            line(ax, phases + 1, _seen(stack), mean_style)
            finish(ax, textwrap.fill(title, int((width / columns - 0.3) / LETTER)), tasks)
        _fit(axes[0, 0], axes.flat)
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy (%)")
        for ax in axes.flat[: len(stacks) - columns]:
            ax.set_xlabel("")  # said below
        for ax in axes.flat[len(stacks) :]:
            ax.set_axis_off()


def _seen(matrices: np.ndarray) -> np.ndarray:
    """Returns the mean over the tasks seen so far, [seeds, phases]."""
    phases = range(matrices.shape[1])
    return np.stack([matrices[:, phase, : phase + 1].mean(axis=1) for phase in phases], axis=1)


def _stream_line(ax: "Axes", matrices: np.ndarray, tasks: int, style: Style) -> None:
    """Draws one method over the stream, or across it if it trained on all tasks at once."""
    if is_joint(matrices):
        mean = matrices[:, 0].mean(axis=1, keepdims=True)
        line(ax, np.array([1, tasks]), np.repeat(mean, 2, axis=1), style)
    else:
        line(ax, np.arange(matrices.shape[1]) + 1, _seen(matrices), style)


def _fit(ax: "Axes", axes: "Iterable[Axes]") -> None:
    """Sets the scale: from zero, or from a little below the lowest line if all stay in the upper half."""
    heights = [height for one in axes for line in one.lines for height in np.ravel(line.get_ydata())]
    lowest = min(filter(math.isfinite, heights), default=0)
    ax.set_ylim(0 if lowest < 50 else 5 * math.floor((lowest - 1) / 5), 100)
