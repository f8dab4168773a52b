"""Pictures of what happens inside a method: what it says of itself over the tasks, phase diagrams, frontiers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import online_plots, plots
from benchmarks.results import Record
from benchmarks.statistics import mean_interval
from neuroml.errors import UsageError

# What a `report` holds and how an axis calls it; names that begin alike share a panel.
PANELS = {
    "held": "share of input space held (%)",
    "slots": "slots",
    "largest": "examples in the largest slot",
    "purity": "mass in its slot's main class (%)",
    "dormant": "dormant units (%)",
    "effective": "effective rank of the last layer",
    "weight": "root mean square of the weights",
    "replaced": "units replaced so far",
}
SHARES = ("held", "purity", "dormant")


def reports(records: Sequence[Record], path: Path | str) -> bool:
    """Draws what the methods report of themselves after each task: a panel for each kind, with 95 % intervals.

    Runs that diverged are in no mean.

    Returns:
      Whether there was anything to draw; if not, no file is written.
    """
    telling = lambda runs: [run for run in runs if run.get("report") and not run.get("diverged")]
    groups = {label: kept for label, runs in plots.groups_of(records).items() if (kept := telling(runs))}
    shown = lambda runs: [name for name in runs[0]["report"] if name.startswith(tuple(PANELS))]
    lines = {(label, name): runs for label, runs in groups.items() for name in shown(runs)}
    kinds = [kind for kind in PANELS if any(name.startswith(kind) for _, name in lines)]
    if not kinds:
        return False
    styles = _styles(list(lines))
    with plots.canvas(path, max(3.4, 2.4 * len(kinds)), 2.1, styles.values()) as figure:
        axes = figure.subplots(1, len(kinds), squeeze=False)[0]
        for ax, kind in zip(axes, kinds, strict=True):
            for (label, name), runs in lines.items():
                if name.startswith(kind):
                    values = np.array([run["report"][name] for run in runs], float)
                    values = 100 * values if kind in SHARES else values
                    middles, means = online_plots.stretches(values)
                    style = {**styles[label, name], "markevery": max(1, len(middles) // 8)}
                    plots.line(ax, middles, means, style)
            plots.finish(ax, "", values.shape[1])
            ax.set_ylabel(PANELS[kind])
            ax.set_ylim(0, 100 if kind in SHARES else None)
    return True


def phase_diagram(record: Mapping[str, Any], path: Path | str) -> None:
    """Draws retention by valence and linker length; the keys of `record` are those of the result file."""
    values = np.asarray(record["retention"], float)
    with plots.canvas(path, 3.6, 2.6, []) as figure:
        ax = figure.subplots()
        mesh = ax.pcolormesh(record["linker"], record["binding"], values, cmap="cividis", vmin=0, shading="nearest")
        ax.set_xscale("log")
        ax.set_xlabel("linker length (distance between images)")
        ax.set_ylabel("binding by valence")
        ax.grid(False)
        bar = figure.colorbar(mesh, ax=ax)
        bar.set_label("accuracy on the first task, end over start")


def frontier(points: Mapping[str, Sequence[tuple[float, Sequence[float]]]], path: Path | str) -> None:
    """Draws accuracy against bytes: for each method its points (bytes, accuracies of the seeds)."""
    points = {name: line for name, line in points.items() if line}
    if not points:
        raise UsageError("cannot draw a frontier: there are no points.")
    styles: dict[str, Any] = {name: plots.method_style(name) | {"label": name} for name in points}
    with plots.canvas(path, 3.6, 2.2, styles.values()) as figure:
        ax = figure.subplots()
        for name, line in points.items():
            bytes_, seeds = zip(*sorted(line, key=lambda point: point[0]), strict=True)
            mean, low, high = np.array([mean_interval(100 * np.asarray(values)) for values in seeds]).T
            ax.plot(np.array(bytes_) / 1e6, mean, **styles[name])
            ax.fill_between(np.array(bytes_) / 1e6, low, high, color=styles[name]["color"], alpha=0.16, linewidth=0)
        ax.set_xscale("log")
        ax.set_xlabel("memory in all (MB)")
        ax.set_ylabel("average accuracy (%)")


def _styles(lines: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns a line for each method and name: its method's colour, and dashes that tell its names apart."""
    dashes = ("-", "--", ":", "-.")
    found = {}
    for label, name in lines:
        place = [other for method, other in lines if method == label].index(name)
        style = plots.method_style(label.split(" ")[0]) | {"linestyle": dashes[place % len(dashes)]}
        found[label, name] = style | {"label": f"{label}: {name}"}
    return found
