"""Paired comparisons of networks that grow with fixed ones of the same width, with each other, and with controls.

    python -m paper_repro.growth.compare

Differences in accuracy at the end, in points, with 95 % intervals and the p value of Student's paired t-test, not
corrected for the number of comparisons. Over the same seeds; one of which either run diverged is left out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from paper_repro import comparing, scripts
from paper_repro.growth.front import name_of

HOME = Path(__file__).parent / "results"
FILES = (
    "growth_100.domain.jsonl",
    "ten/growth_100.domain.jsonl",
    "hundred/growth_100.domain.jsonl",
    "split_mnist_one_pass.class.jsonl",
    "split_mnist_growth.class.jsonl",
)
RIVALS = {"neurogenesis": ("growth", "neurogenesis by_lot=True")}


def lines(path: Path) -> list[str]:
    """Returns a line for each width, each setting in a file and what it is held against."""
    named = lambda record: (record["config"]["protocol"]["hidden"][0], name_of(record))
    groups = comparing.by_name(results.latest(results.read(path)), named)
    found = {key: comparing.values(group, "accuracy") for key, group in sorted(groups.items())}
    return [
        f"{width} neurons: {setting} - {other} = {difference}"
        for (width, setting), ours in found.items()
        for other in ("fixed", *RIVALS.get(setting, ()), setting.split(" sprouts=")[0])
        if setting != other and (difference := comparing.compared(ours, found.get((width, other), {})))
    ]


def work() -> None:
    """Prints the comparisons of all files."""
    comparing.report(HOME, FILES, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
