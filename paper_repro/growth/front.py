"""Accuracy against allocated parameters: networks that grow, and fixed ones of every width.

    python -m paper_repro.growth.front

Reads `growth_100.domain.jsonl` in `results` (20 permutations) and `results/hundred` (all 100), prints a line for each
point, and draws `results/front.png`. All weights that a network has allocated count, alive or in reserve.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks import plots, results
from benchmarks.statistics import Interval, mean_interval

HOME = Path(__file__).parent / "results"
PLAIN = {"when": "steps", "alive_percent": 50, "directions": "random", "imagines": True, "pairs": True}
PLAIN |= {"youth_gain": 1.0, "apoptosis": 0.0}
DRAWN = ("fixed", "growth", "growth when=plateau alive_percent=25 pairs=False")  # all are printed
INPUTS, OUTPUTS = 784, 10
TICKS = (50_000, 100_000, 200_000, 500_000)
PANELS = {"20 permutations": HOME, "100 permutations": HOME / "hundred"}


def allocated(hidden: list[int]) -> int:
    """Returns the number of weights and biases of a network with these hidden layers."""
    sizes = [INPUTS, *hidden, OUTPUTS]
    return sum((one + 1) * other for one, other in zip(sizes, sizes[1:], strict=False))


def name_of(record: Mapping[str, Any]) -> str:
    """Returns the method, with the settings by which a control differs from it."""
    given = record["config"]["hyperparameters"]
    if record["method"] != "growth":
        return record["method"]
    # Imagining, pairs and apoptosis are named in a result only where they are on.
    changed = [f"{key}={given.get(key, False)}" for key, usual in PLAIN.items() if given.get(key, False) != usual]
    return " ".join([record["method"], *changed])


def points(folder: Path) -> dict[str, dict[int, Interval]]:
    """Returns {name: {allocated parameters: accuracy}} of the results in a folder."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in results.latest(results.read(folder / "growth_100.domain.jsonl")):
        size = allocated(record["config"]["protocol"]["hidden"])
        found.setdefault(name_of(record), {}).setdefault(size, []).append(record["metrics"]["accuracy"])
    return {
        name: {size: mean_interval(by_size[size]) for size in sorted(by_size)}
        for name, by_size in sorted(found.items())
    }


def draw(axes: plt.Axes, found: Mapping[str, Mapping[int, Interval]]) -> None:
    """Draws a line with intervals for each method, and marks for its controls."""
    for place, (name, line) in enumerate(found.items()):
        style = plots.method_style(name.split(" ")[0]) | {"label": name, "markersize": 6}
        if " " in name:  # a control stands a little to the right of what it controls
            style |= {"linestyle": "none", "marker": "sDv^"[place % 4], "markerfacecolor": "none"}
            style["markeredgecolor"] = style["color"]
        sizes = [size * (1.06 ** (place - 1) if " " in name else 1) for size in line]
        spread = [100 * at.half_width for at in line.values()]
        axes.errorbar(sizes, [100 * at.mean for at in line.values()], spread, capsize=2, elinewidth=0.8, **style)
    axes.set(xscale="log", xlabel="allocated parameters (thousands)", ylabel="accuracy on all permutations (%)")
    axes.set_xticks(TICKS, [f"{tick // 1000}" for tick in TICKS])
    axes.minorticks_off()


def main() -> None:
    """Prints and draws the front."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, (title, folder) in zip(panels, PANELS.items(), strict=True):
        found = points(folder)
        for name, line in found.items():
            for size, at in line.items():
                mean, spread = 100 * at.mean, 100 * at.half_width
                print(f"{title}: {name:28} {size:>7} parameters {mean:.1f} +- {spread:.1f} %")
        draw(axes, {name: found[name] for name in DRAWN if name in found})
        axes.set_title(title, loc="left")
    panels[0].legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(HOME / "front.png", dpi=150)


if __name__ == "__main__":
    main()
