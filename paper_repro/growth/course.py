"""Growth over the stream: how well each task is learnt, beside the parameters that are alive and allocated.

    python -m paper_repro.growth.course [--out paper_repro/growth/results]

Reads `results/growth_100.domain.jsonl` (100 neurons a layer, 20 permutations) and draws `course.png`. Lines are means,
bands 95 % intervals over the seeds that did not diverge.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import results
from benchmarks.canvas import canvas, line
from benchmarks.groups import Groups
from benchmarks.styles import method_styles
from paper_repro import comparing, scripts
from paper_repro.growth.front import DRAWN, HOME, allocated, name_of

HIDDEN = [100, 100]


def living(record: results.Record) -> list[float]:
    """Returns the weights and biases between living neurons, after each task."""
    whole, report = record["config"]["protocol"]["hidden"], record["report"]
    counts = zip(
        *(report.get(f"alive hidden_{i}", [n] * len(record["accuracy"])) for i, n in enumerate(whole)), strict=True
    )
    return [allocated(list(alive)) for alive in counts]


def learnt(record: results.Record) -> list[float]:
    """Returns the accuracy on each task right after it, in %."""
    return [100 * row[place] for place, row in enumerate(record["accuracy"])]


def chosen(records: Sequence[results.Record]) -> Groups:
    """Returns the runs of the width that is drawn, by name, in the order in which the front has them, too."""
    wide = [record for record in records if record["config"]["protocol"]["hidden"] == HIDDEN]
    groups = comparing.by_name(wide, name_of)
    return {name: groups[name] for name in DRAWN if name in groups}


def work(out: Path) -> None:
    """Draws the two panels."""
    runs = chosen(results.latest(results.read(HOME / "growth_100.domain.jsonl")))
    styles, whole = method_styles([runs]), allocated(HIDDEN) / 1e3
    tasks = max(len(record["accuracy"]) for group in runs.values() for record in group)
    numbers = np.arange(1, tasks + 1)
    with canvas(out / "course.png", 6.0, 2.4, styles.values()) as figure:
        left, right = figure.subplots(1, 2)
        for name, group in runs.items():
            kept = [record for record in group if not record["diverged"]]
            line(left, numbers, np.array(list(map(learnt, kept))), styles[name])
            line(right, numbers, np.array(list(map(living, kept))) / 1e3, styles[name])
        left.set_ylabel("accuracy on a task when learnt (%)")
        right.set_ylabel("thousand parameters alive")
        right.axhline(whole, color="0.6", linestyle=":", linewidth=1.0)
        right.annotate("allocated", (tasks, whole), ha="right", va="bottom", color="0.4")
        right.set_ylim(0, 1.15 * whole)
        for ax in (left, right):
            ax.set_xlabel("tasks trained")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
