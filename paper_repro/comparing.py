"""Comparing what result files hold: records by name, and paired differences over seeds."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.groups import Key, grouped
from benchmarks.results import Record
from benchmarks.statistics import Comparison, paired
from benchmarks.summaries import metric
from neuroml.errors import DataError

PER_CENT = ("accuracy", "online_accuracy")  # metrics that are shares


def by_name(records: Iterable[Record], name: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Splits records by what they are called.

    Raises:
      DataError: two configurations have one name; their mean would be that of neither.
    """
    groups = grouped(records, name)
    for key, group in groups.items():
        if len(hashes := sorted({record["config_hash"] for record in group})) > 1:
            raise DataError(
                f"{key} is the name of {len(hashes)} configurations ({', '.join(hashes)}), which differ in what it "
                "does not say: keep the results of each in a folder of its own."
            )
    return groups


def values(records: Iterable[Record], name: str) -> dict[int, float | None]:
    """Returns {seed: metric}, shares in %; None where it is undefined or the run diverged."""
    found = {record["seed"]: metric(record, name) for record in records}
    scale = 100 if name in PER_CENT else 1
    return {seed: None if value is None else scale * value for seed, value in found.items()}


def compared(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> str | None:
    """Returns the paired difference in words, and on how many of the common seeds it rests; None if on none.

    >>> compared({0: 3.0, 1: 4.0, 2: None}, {0: 1.0, 1: 3.0, 2: 1.0})
    '1.50 [-4.85, 7.85], p = 0.205, 2 of 3 seeds'
    """
    common = ours.keys() & theirs.keys()
    used = [seed for seed in common if ours[seed] is not None and theirs[seed] is not None]
    it = paired({seed: ours[seed] for seed in used}, theirs)
    if math.isnan(it.difference):
        return None
    spread = f"[{it.low:.2f}, {it.high:.2f}], p = {it.p_value:.3f}"
    return f"{it.difference:.2f} {spread}, {len(used)} of {len(common)} seeds"


def in_points(it: Comparison) -> str:
    """Returns a difference with its interval, if it has one.

    >>> in_points(paired({0: 3.0, 1: 4.0}, {0: 1.0, 1: 3.0})), in_points(paired({0: 1.0}, {0: 1.0004}))
    ('1.50 [-4.85, 7.85]', '0.00')
    """
    text = lambda number: f"{round(number, 2) + 0.0:.2f}"  # no minus before nothing
    return text(it.difference) + ("" if math.isnan(it.low) else f" [{text(it.low)}, {text(it.high)}]")


def report(home: Path, names: Iterable[str], lines: Callable[[Path], Iterable[str]]) -> None:
    """Prints the lines that are made of each result file, behind its name."""
    for name in names:
        for line in lines(home / name):
            print(f"{name}, {line}")
