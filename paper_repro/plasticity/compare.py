"""Paired comparisons of condensates and homeostasis together with either alone, over the same seeds.

    python -m paper_repro.plasticity.compare

Differences in accuracy on all tasks at the end from condensates alone, and in online accuracy from homeostasis alone,
in points, with 95 % intervals and the p value of Student's paired t-test, not corrected for the number of comparisons.
A seed of which either run diverged is left out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.groups import by_label
from paper_repro import comparing, scripts

HOME = Path(__file__).parent / "results"
FILES = ("split_mnist_one_pass.class.jsonl", "permuted_mnist_100_short.domain.jsonl")
ALONE = {"condensate_projector": "accuracy", "homeostasis": "online_accuracy"}
TOGETHER = ("condensate_homeostasis", "condensate_shell")


def lines(path: Path) -> list[str]:
    """Returns a line for each configuration of both together and each of the two alone."""
    groups = by_label(results.latest(results.read(path)))
    of = lambda names: [label for label, group in groups.items() if group[0]["method"] in names]
    return [
        f"{metric}: {label} - {other} = {difference}"
        for alone, metric in ALONE.items()
        for other in of([alone])
        for label in of(TOGETHER)
        if (difference := comparing.compared(*(comparing.values(groups[one], metric) for one in (label, other))))
    ]


def work() -> None:
    """Prints the comparisons of all files."""
    comparing.report(HOME, FILES, lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
