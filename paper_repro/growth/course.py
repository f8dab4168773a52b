"""Growth over the stream: how well each task is learnt, beside the parameters that are alive and allocated.

    python -m paper_repro.growth.course

Reads `results/growth_100.domain.jsonl` (100 neurons a layer, 20 permutations) and draws `results/course.png`. Lines are
means, bands 95 % intervals over seeds.
"""

from pathlib import Path

import numpy as np

from benchmarks import plots, results
from paper_repro.growth.front import DRAWN, allocated, name_of

HOME = Path(__file__).parent / "results"
HIDDEN = [100, 100]


def living(record: results.Record) -> list[float]:
    """Returns the weights and biases between living neurons, after each task."""
    whole, report = record["config"]["protocol"]["hidden"], record["report"]
    counts = zip(
        *(report.get(f"alive hidden_{i}", [n] * len(record["accuracy"])) for i, n in enumerate(whole)), strict=True
    )
    return [allocated(list(alive)) for alive in counts]


def main() -> None:
    """Draws the two panels."""
    runs: dict[str, list[results.Record]] = {}
    for record in results.latest(results.read(HOME / "growth_100.domain.jsonl")):
        if record["config"]["protocol"]["hidden"] == HIDDEN and name_of(record) in DRAWN:
            runs.setdefault(name_of(record), []).append(record)
    styles = {name: plots.method_style(name) | {"label": name} for name in runs}
    with plots.canvas(HOME / "course.png", 6.0, 2.4, styles.values()) as figure:
        left, right = figure.subplots(1, 2)
        for name, group in runs.items():
            learnt = [[100 * row[place] for place, row in enumerate(record["accuracy"])] for record in group]
            tasks = np.arange(1, len(learnt[0]) + 1)
            plots.line(left, tasks, np.array(learnt), styles[name])
            plots.line(right, tasks, np.array([living(record) for record in group]) / 1e3, styles[name])
        left.set_ylabel("accuracy on a task when learnt (%)")
        right.set_ylabel("thousand parameters alive")
        right.axhline(allocated(HIDDEN) / 1e3, color="0.6", linestyle=":", linewidth=1.0)
        right.annotate("allocated", (tasks[-1], allocated(HIDDEN) / 1e3), ha="right", va="bottom", color="0.4")
        right.set_ylim(0, 1.15 * allocated(HIDDEN) / 1e3)
        for ax in (left, right):
            ax.set_xlabel("tasks trained")


if __name__ == "__main__":
    main()
