"""Paired comparisons of nanotubes with the other methods and with changed settings, over the same seeds.

    python -m paper_repro.repair.compare

Differences in batches until 95 % of the accuracy before the injury (`recovery_steps`), in accuracy on all tasks at the
end, and on the tasks before the injured one when that ends (`old_tasks`), in points, with 95 % intervals and the p
value of Student's paired t-test, not corrected for the number of comparisons; then those with survivors that make up
for what is gone without copies (`without_copies.json`). A seed on which either did not recover,
or diverged, is left out; how many are left is said. Last, from `recovery.json`, the batches until 95 % of what *no
repair* had before the injury, one bar for all: a method that learnt less well before it has a lower bar of its own.
"""

import functools
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import results
from neuroml.methods import methods
from paper_repro import comparing, scripts

HOME = Path(__file__).parent / "results"
METRICS = ("recovery_steps", "accuracy", "old_tasks")
SHARES = [("injury", size) for size in (0.05, 0.2, 0.5, 0.8)] + [("severed", size) for size in (0.05, 0.2, 0.5, 0.8)]


class Row(NamedTuple):
    """Results of a method in a folder, with these settings."""

    folder: str
    method: str
    settings: Mapping[str, Any] = {}

    def __str__(self) -> str:
        """Returns what is printed."""
        changed = [f"{name}={value}" for name, value in self.settings.items() if USUAL.get(name) != value]
        return " ".join(filter(None, [self.folder, self.method, *changed]))


USUAL = {"heals": "destroyed", "every": 1, "noise": 0.3, "compensation": 0.5, "newborns": "free"}
CHANGES = ({"compensation": 0.0}, {"noise": 0.1}, {"every": 5}, {"heals": "silent"})
HELD = Row("consolidated", "nanotube", USUAL | {"compensation": 0.0, "newborns": "held"})
REBORN = Row("consolidated", "random_rebirth", {"every": 1, "newborns": "free"})
NANOTUBE, RIVALS = Row("", "nanotube", USUAL), [Row("", name) for name in ("none", "random_rebirth", "schwann")]
PARTS = [Row("parts", "nanotube", USUAL | changed) for changed in CHANGES]
PAIRS = [
    *((NANOTUBE, other) for other in (*RIVALS, Row("parts", "random_rebirth", {"heals": "silent"}))),
    *((rival, RIVALS[0]) for rival in RIVALS[1:]),
    (NANOTUBE, Row("controls", "nanotube", USUAL)),
    *((part, NANOTUBE) for part in PARTS),
    *((PARTS[-1], other) for other in RIVALS[:2]),
    *(
        (Row(folder, "nanotube", USUAL), other)
        for folder in ("consolidated", "blended", "adam")
        for other in (Row(folder, "none"), Row(folder, "random_rebirth", {"every": 5}))
    ),
    *((HELD, other) for other in (Row("consolidated", "none"), REBORN, Row("consolidated", "nanotube", USUAL))),
    (REBORN, Row("consolidated", "none")),
    (Row("consolidated", "schwann"), Row("consolidated", "none")),
]


def values(row: Row, share: tuple[str, float], metric: str) -> dict[int, float | None]:
    """Returns {seed: metric} of a row at a share of neurons injured or synapses severed."""
    path = HOME / row.folder / "injury_recovery.domain.jsonl"
    mine = [record for record in _records(path) if holds(record, row) and injury_of(record) == {share[0]: share[1]}]
    groups = comparing.by_name(mine, lambda record: f"{row}, {share[0]} {share[1]}")
    records = list(itertools.chain(*groups.values()))
    if metric == "old_tasks":
        return {record["seed"]: None if record["diverged"] else old_tasks(record) for record in records}
    return comparing.values(records, metric)


@functools.cache
def _records(path: Path) -> list[results.Record]:
    """Returns the results of a folder, read once: they are megabytes, and each comparison looks at them."""
    return list(results.latest(results.read(path))) if path.exists() else []


def old_tasks(record: results.Record) -> float:
    """Returns the accuracy on the tasks before the injured one, in %, when that one ends."""
    protocol = record["config"]["protocol"]
    injured = protocol["injury_at"] // (protocol["examples"] // protocol["batch_size"])
    return 100 * float(np.mean(record["accuracy"][injured][:injured]))


def one_bar(recovery: Mapping[str, Any]) -> dict[str, dict[int, float | None]]:
    """Returns, for each method, {seed: batches until 95 % of what no repair had before}; None if it stays below.

    A mean of `window` batches is what is compared, so that `window` is the least.
    """
    curves = {name: np.array(rows, float) for name, rows in recovery["online_accuracy"].items()}
    first, window = recovery["steps_before"] // recovery["window"], recovery["window"]
    bar = 0.95 * curves["none"][:, :first].mean(1, keepdims=True)
    back = {name: rows[:, first:] >= bar for name, rows in curves.items()}
    when = lambda row: float(window * (row.argmax() + 1)) if row.any() else None
    return {name: dict(enumerate(map(when, rows))) for name, rows in back.items()}


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
    without = json.loads((HOME / "without_copies.json").read_text())["found"]
    for (share, rows), metric in itertools.product(without.items(), METRICS):
        for method, found in rows.items():
            theirs = dict(enumerate(found[metric]))
            less = comparing.compared(values(NANOTUBE, ("injury", float(share)), metric), theirs)
            alone = comparing.compared(theirs, values(RIVALS[0], ("injury", float(share)), metric))
            print(f"injury {share}, {metric}: {NANOTUBE} - {method}, compensated = {less}")
            print(f"injury {share}, {metric}: {method}, compensated - none = {alone}")
    recovery = json.loads((HOME / "recovery.json").read_text())
    found = one_bar(recovery)
    for name, steps in found.items():
        mean = np.mean([value for value in steps.values() if value is not None])
        less = comparing.compared(steps, found["none"])
        print(f"injury {recovery['injury']}, one bar: {name} {mean:.0f}, less that of none: {less}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
