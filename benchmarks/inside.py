"""Pictures of what happens inside a method: what it says of itself over the tasks, and phase diagrams."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.canvas import canvas, finish, line
from benchmarks.groups import Groups, groups_of
from benchmarks.online_plots import stretches
from benchmarks.results import Record
from benchmarks.styles import DASHES, Style, apart, method_styles

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
    groups = {label: kept for label, runs in groups_of(records).items() if (kept := telling(runs))}
    # Runs of one label may have been asked for different things: vital signs, say.
    shown = lambda runs: dict.fromkeys(name for run in runs for name in run["report"] if name.startswith(tuple(PANELS)))
    lines = {
        (label, name): np.array([run["report"][name] for run in runs if name in run["report"]], float)
        for label, runs in groups.items()
        for name in shown(runs)
    }
    kinds = [kind for kind in PANELS if any(name.startswith(kind) for _, name in lines)]
    if not kinds:
        return False
    styles, tasks = _styles(list(lines), groups), max(values.shape[1] for values in lines.values())
    with canvas(path, max(3.4, 2.4 * len(kinds)), 2.1, styles.values()) as figure:
        axes = figure.subplots(1, len(kinds), squeeze=False)[0]
        for ax, kind in zip(axes, kinds, strict=True):
            for (label, name), values in lines.items():
                if name.startswith(kind):
                    middles, means = stretches(100 * values if kind in SHARES else values)
                    style = {**styles[label, name], "markevery": max(1, len(middles) // 8)}
                    line(ax, middles, means, style)
            finish(ax, "", tasks)
            ax.set_ylabel(PANELS[kind])
            ax.set_ylim(0, 100 if kind in SHARES else None)
    return True


def phase_diagram(record: Mapping[str, Any], path: Path | str) -> None:
    """Draws retention by valence and linker length; the keys of `record` are those of the result file."""
    values = np.asarray(record["retention"], float)
    with canvas(path, 3.6, 2.6, []) as figure:
        ax = figure.subplots()
        mesh = ax.pcolormesh(record["linker"], record["binding"], values, cmap="cividis", vmin=0, shading="nearest")
        ax.set_xscale("log")
        ax.set_xlabel("linker length (distance between images)")
        ax.set_ylabel("binding by valence")
        ax.grid(False)
        bar = figure.colorbar(mesh, ax=ax)
        bar.set_label("accuracy on the first task, end over start")


def _styles(lines: list[tuple[str, str]], groups: Groups) -> dict[tuple[str, str], Style]:
    """Returns a line for each label and name: colour and marker of its label, and dashes that tell its names apart."""
    found, labels = {}, method_styles([groups])
    for label, name in lines:
        place = [other for method, other in lines if method == label].index(name)
        dashes = DASHES[place % len(DASHES)]
        style = labels[label] | {"linestyle": dashes, "label": f"{label}: {name}"}
        found[label, name] = apart(style, found.values())
    return found
