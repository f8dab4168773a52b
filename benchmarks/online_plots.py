"""Pictures of streams that are about learning and not about keeping: online accuracy along the stream."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import plots
from benchmarks.results import Record

POINTS = 40  # means along a long stream: a line of 200 tasks is all noise


def is_online(records: Sequence[Record]) -> bool:
    """Says whether the records have the online accuracy of each task."""
    return any(record.get("online_by_task") for record in records)


def online_accuracy(records_by_scenario: Mapping[str, Sequence[Record]], path: Path | str) -> None:
    """Draws online accuracy against the tasks so far: a panel a scenario, a line a method, 95 % intervals over seeds.

    Long streams are drawn in up to `POINTS` stretches of equal length, each at its middle.

    Raises:
        UsageError: There is nothing to draw, or a panel mixes suites, data sets or scenarios.
        DataError: The file cannot be written.
    """
    panels = {scenario: plots.groups_of(records) for scenario, records in records_by_scenario.items()}
    styles = plots.method_styles(panels.values())
    with plots.canvas(path, max(3.4, 2.6 * len(panels)), 2.4, styles.values()) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, groups in zip(axes, panels.values(), strict=True):
            tasks = 1
            for label, group in groups.items():
                rows = [run["online_by_task"] for run in group if not run.get("diverged")]
                if rows:
                    values, tasks = 100 * np.array(rows, float), max(tasks, len(rows[0]))
                    middles, means = stretches(values)
                    plots.line(ax, middles, means, {**styles[label], "markevery": max(1, len(middles) // 8)})
            plots.finish(ax, "", tasks)
            ax.set_xlabel("tasks")
        axes[0].set_ylabel("online accuracy (%)")


def stretches(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the middles of up to `POINTS` stretches of the tasks, counted from 1, and their means [seeds, stretches].

    >>> stretches(np.arange(80.0)[None])[0][:3].tolist(), stretches(np.ones((2, 3)))[1].shape
    ([1.5, 3.5, 5.5], (2, 3))
    """
    parts = np.array_split(np.arange(values.shape[1]), min(POINTS, values.shape[1]))
    return np.array([part.mean() + 1 for part in parts]), np.stack([values[:, part].mean(1) for part in parts], axis=1)
