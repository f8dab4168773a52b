"""Paired comparisons of the projector with all that ran beside it, over the seeds that both have.

    python -m paper_repro.condensates.compare

Differences in accuracy at the end, in points, with 95 % intervals and the p value of Student's paired t-test, not
corrected for the number of comparisons. A seed of which either run diverged is left out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.groups import by_label
from paper_repro import comparing, scripts

HOME = Path(__file__).parent / "results"
FILES = ("permuted_mnist_one_pass.domain.jsonl", "split_mnist_wide.class.jsonl")
OURS = "condensate_projector"


def lines(path: Path) -> list[str]:
    """Returns a line for each configuration in a file that shares seeds with the projector."""
    found = {label: comparing.values(group, "accuracy") for label, group in by_label(results.read(path)).items()}
    return [
        f"{OURS} - {label} = {difference}"
        for label, theirs in found.items()
        if label != OURS and (difference := comparing.compared(found[OURS], theirs))
    ]


def work() -> None:
    """Prints the comparisons of all files."""
    comparing.report(HOME, FILES, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
