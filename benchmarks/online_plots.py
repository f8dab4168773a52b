"""Pictures of streams that are about learning and not about keeping: online accuracy along the stream."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import summaries
from benchmarks.canvas import canvas, finish, line
from benchmarks.groups import groups_of, is_joint, matrices_of
from benchmarks.results import Record
from benchmarks.styles import Style, method_styles
from neuroml.errors import UsageError

POINTS = 40  # means along a long stream: a line of 200 tasks is all noise


def is_online(records: Sequence[Record]) -> bool:
    """Says whether the records have the online accuracy of each task."""
    return any(map(_tells, records))


def online_accuracy(records_by_scenario: Mapping[str, Sequence[Record]], path: Path | str) -> None:
    """Draws online accuracy against the tasks so far: a panel a scenario, a line a method, 95 % intervals over seeds.

    Long streams are drawn in up to `POINTS` stretches of equal length, each at its middle. Joint training, which has
    one phase, is a dashed line across. Runs that were not asked for it are left out.

    Raises:
        UsageError: There is nothing to draw, or a panel mixes suites, data sets or scenarios.
        DataError: The file cannot be written.
    """
    telling = {scenario: list(filter(_tells, records)) for scenario, records in records_by_scenario.items()}
    panels = {scenario: groups_of(records) for scenario, records in telling.items()}
    if not panels:
        raise UsageError("cannot draw: there are no records.")
    styles = method_styles(panels.values())
    with canvas(path, max(3.4, 2.6 * len(panels)), 2.4, styles.values()) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, (scenario, groups) in zip(axes, panels.items(), strict=True):
            tasks = max(matrices_of(group).shape[2] for group in groups.values())
            for label, group in groups.items():
                _draw(ax, group, tasks, styles[label])
            finish(ax, summaries.TITLES.get(scenario, scenario), tasks)
            ax.set_xlabel("tasks")
        axes[0].set_ylabel("online accuracy (%)")


def _tells(record: Record) -> bool:
    return bool(record.get("online_by_task"))


def _draw(ax: Any, group: list[Record], tasks: int, style: Style) -> None:
    """Draws the runs of one label along the stream, or across it if they trained on all tasks at once."""
    rows = [run["online_by_task"] for run in group if not run.get("diverged")]
    if not rows:
        return
    values = 100 * np.array(rows, float)
    if is_joint(matrices_of(group)):
        middles, means = np.array([1, tasks]), np.repeat(values, 2, axis=1)
    else:
        middles, means = stretches(values)
    line(ax, middles, means, {**style, "markevery": max(1, len(middles) // 8)})


def stretches(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the middles of up to `POINTS` stretches of the tasks, counted from 1, and their means [seeds, stretches].

    >>> stretches(np.arange(80.0)[None])[0][:3].tolist(), stretches(np.ones((2, 3)))[1].shape
    ([1.5, 3.5, 5.5], (2, 3))
    """
    parts = np.array_split(np.arange(values.shape[1]), min(POINTS, values.shape[1]))
    return np.array([part.mean() + 1 for part in parts]), np.stack([values[:, part].mean(1) for part in parts], axis=1)
