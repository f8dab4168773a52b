"""Paired comparisons of nanotubes with the other methods and with changed settings, over the same seeds.

    python -m paper_repro.repair.compare

Differences in batches until 95 % of the accuracy before the injury, and in accuracy on all tasks at the end, in points,
with 95 % intervals and the p value of Student's paired t-test, not corrected for the number of comparisons. A seed on
which either did not recover, or diverged, is left out; how many are left is said.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from neuroml.methods import methods
from paper_repro import comparing, scripts

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
    records = results.latest(results.read(HOME / row.folder / "injury_recovery.domain.jsonl"))
    mine = [record for record in records if holds(record, row) and injury_of(record) == {share[0]: share[1]}]
    groups = comparing.by_name(mine, lambda record: f"{row}, {share[0]} {share[1]}")
    return comparing.values(itertools.chain(*groups.values()), metric)


def holds(record: results.Record, row: Row) -> bool:
    """Says whether a record is of the row's method, with its settings."""
    given = {**methods[row.method].young, **record["config"]["hyperparameters"]}  # not named where they are as of old
    return record["method"] == row.method and all(given[name] == value for name, value in row.settings.items())


def injury_of(record: results.Record) -> dict[str, float]:
    """Returns the shares that were destroyed, of neurons and of synapses."""
    protocol = record["config"]["protocol"]
    return {name: protocol[name] for name in ("injury", "severed") if protocol.get(name)}


def work() -> None:
    """Prints a line for each comparison for which there are results: some ran at some shares only."""
    for share, metric, (one, other) in itertools.product(SHARES, METRICS, PAIRS):
        if found := comparing.compared(values(one, share, metric), values(other, share, metric)):
            print(f"{share[0]} {share[1]}, {metric}: {one} - {other} = {found}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
