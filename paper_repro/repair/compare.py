"""Paired comparisons of nanotubes with the other methods and with changed settings, over the same seeds.

    python -m paper_repro.repair.compare

Differences in batches until 95 % of the accuracy before the injury, and in accuracy on all tasks at the end, with 95 %
intervals and the p value of Student's paired t-test, not corrected for the number of comparisons.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.statistics import paired
from neuroml.methods import methods

HOME = Path(__file__).parent / "results"
METRICS = ("recovery_steps", "accuracy")
SHARES = [("injury", size) for size in (0.05, 0.2, 0.5, 0.8)] + [("severed", size) for size in (0.2, 0.5, 0.8)]


class Row(NamedTuple):
    """Results of a method in a folder, with these settings."""

    folder: str
    method: str
    settings: Mapping[str, Any] = {}

    def __str__(self) -> str:
        """Returns what is printed."""
        changed = [f"{name}={value}" for name, value in self.settings.items() if USUAL.get(name) != value]
        return " ".join(filter(None, [self.folder, self.method, *changed]))


USUAL = {"heals": "destroyed", "every": 5, "noise": 0.3, "compensation": 0.5}
CHANGES = ({"compensation": 0.0}, {"noise": 0.1}, {"every": 20}, {"heals": "silent"})
NANOTUBE, RIVALS = Row("", "nanotube", USUAL), [Row("", name) for name in ("none", "random_rebirth", "schwann")]
PARTS = [Row("parts", "nanotube", USUAL | changed) for changed in CHANGES]
PAIRS = [
    *((NANOTUBE, other) for other in (*RIVALS, Row("parts", "random_rebirth", {"every": 20}))),
    (NANOTUBE, Row("controls", "nanotube", USUAL)),
    *((part, NANOTUBE) for part in PARTS),
    *((PARTS[-1], other) for other in RIVALS[:2]),
    *(
        (Row("consolidated", "nanotube", settings), Row("consolidated", name))
        for settings in (USUAL, USUAL | {"heals": "silent"})
        for name in ("none", "random_rebirth")
    ),
]


def values(row: Row, share: tuple[str, float], metric: str) -> dict[int, float | None]:
    """Returns {seed: metric} of a row at a share of neurons injured or synapses severed."""
    found = {}
    for record in results.latest(results.read(HOME / row.folder / "injury_recovery.domain.jsonl")):
        config = record["config"]
        given = {**methods[row.method].young, **config["hyperparameters"]}  # not named where they are as of old
        mine = record["method"] == row.method and all(given[name] == value for name, value in row.settings.items())
        if mine and config["protocol"].get(share[0]) == share[1]:
            found[record["seed"]] = record["metrics"][metric]
    return found


def main() -> None:
    """Prints a line for each comparison for which there are results."""
    for share, metric, (one, other) in itertools.product(SHARES, METRICS, PAIRS):
        found = paired(values(one, share, metric), values(other, share, metric))
        if found.difference == found.difference:  # some ran at some shares only
            spread = f"[{found.low:.3f}, {found.high:.3f}], p = {found.p_value:.3f}"
            print(f"{share[0]} {share[1]}, {metric}: {one} - {other} = {found.difference:.3f} {spread}")


if __name__ == "__main__":
    main()
