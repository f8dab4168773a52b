"""Accuracy against allocated parameters: networks that grow, and fixed ones of every width.

    python -m paper_repro.growth.front [--out paper_repro/growth/results]

Reads `growth_100.domain.jsonl` in `results` (20 permutations) and `results/hundred` (all 100), prints a line for each
point, and draws `front.png`. All weights that a network has allocated count, alive or in reserve. Points are means over
the seeds that did not diverge, with 95 % intervals.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.canvas import canvas
from benchmarks.statistics import Interval, mean_interval
from benchmarks.styles import Style, method_styles
from neuroml.methods import methods
from paper_repro import comparing, scripts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOME = Path(__file__).parent / "results"
PLAIN = {"when": "steps", "alive_percent": 50, "directions": "random", "imagines": True, "pairs": True}
PLAIN |= {"youth_gain": 1.0, "apoptosis": 0.0, "where": "score", "sprouts": False, "maturity": 100.0}
OURS = {"alive": 0.75, "by_lot": False, "contexts": 0, "told": True, "pool": 4}
USUAL = {"growth": PLAIN, "neurogenesis": OURS}
DRAWN = ("fixed", "growth", "neurogenesis", "neurogenesis by_lot=True")  # all are printed
INPUTS, OUTPUTS = 784, 10
TICKS = (50_000, 100_000, 200_000, 500_000)
PANELS = {"20 permutations": HOME, "100 permutations": HOME / "hundred"}


def allocated(hidden: list[int]) -> int:
    """Returns the number of weights and biases of a network with these hidden layers."""
    sizes = [INPUTS, *hidden, OUTPUTS]
    return sum((one + 1) * other for one, other in zip(sizes, sizes[1:], strict=False))


def size_of(record: Mapping[str, Any]) -> int:
    """Returns how many weights and biases a run has allocated."""
    return allocated(record["config"]["protocol"]["hidden"])


def name_of(record: Mapping[str, Any]) -> str:
    """Returns the method, with the settings by which a control differs from it."""
    method, given = record["method"], record["config"]["hyperparameters"]
    given = {**methods[method].young, **given}  # what is younger is named in a result only where it is on
    changed = [f"{key}={given[key]}" for key, usual in USUAL.get(method, {}).items() if given[key] != usual]
    return " ".join([method, *changed])


def by_name(records: Sequence[results.Record]) -> dict[str, dict[int, list[results.Record]]]:
    """Returns {name: {allocated parameters: runs}}, and refuses two configurations under one name and size."""
    groups: dict[str, dict[int, list[results.Record]]] = {}
    found = comparing.by_name(records, lambda record: (name_of(record), size_of(record)))
    for (name, size), group in sorted(found.items()):
        groups.setdefault(name, {})[size] = group
    return groups


def accuracy(group: Sequence[results.Record]) -> Interval:
    """Returns the accuracy at the end in %, over the seeds that did not diverge."""
    return mean_interval(comparing.values(group, "accuracy").values())


def draw(axes: "Axes", lines: Mapping[str, Mapping[int, Interval]], styles: Mapping[str, Style]) -> None:
    """Draws a line with intervals for each method and control."""
    for name, line in lines.items():
        means, spreads = [at.mean for at in line.values()], [at.half_width for at in line.values()]
        axes.errorbar(list(line), means, spreads, capsize=2, elinewidth=0.8, **styles[name])
    axes.set(xscale="log", xlabel="allocated parameters (thousands)")
    axes.set_xticks(TICKS, [f"{tick // 1000}" for tick in TICKS])
    axes.minorticks_off()


def styles_of(panels: Iterable[Mapping[str, Mapping[int, Sequence[results.Record]]]]) -> dict[str, Style]:
    """Returns the line of each name that is drawn, the same in all panels."""
    flat = lambda run: {**run, "accuracy": [run["accuracy"][-1][:1]]}  # streams of 20 and of 100 tasks share a line
    runs = lambda line: [flat(run) for group in line.values() for run in group]
    return method_styles({name: runs(groups[name]) for name in DRAWN if name in groups} for groups in panels)


def work(out: Path) -> None:
    """Prints and draws the front."""
    panels = {title: by_name(_read(folder)) for title, folder in PANELS.items()}
    styles = styles_of(panels.values())
    with canvas(out / "front.png", 6.0, 2.4, styles.values()) as figure:
        axes = figure.subplots(1, len(panels))
        for ax, (title, groups) in zip(axes, panels.items(), strict=True):
            points = {name: {size: accuracy(group) for size, group in line.items()} for name, line in groups.items()}
            _print(title, points)
            draw(ax, {name: points[name] for name in DRAWN if name in points}, styles)
            ax.set_title(title, loc="left")
        axes[0].set_ylabel("accuracy on all permutations (%)")


def _read(folder: Path) -> list[results.Record]:
    return results.latest(results.read(folder / "growth_100.domain.jsonl"))


def _print(title: str, points: Mapping[str, Mapping[int, Interval]]) -> None:
    for name, line in points.items():
        for size, at in line.items():
            print(f"{title}: {name:28} {size:>7} parameters {at.mean:.1f} +- {at.half_width:.1f} %")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
