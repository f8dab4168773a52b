"""Condensates and homeostasis, alone and together: learning and keeping in one table of both streams.

    python -m paper_repro.plasticity.together

Puts the table into `README.md`, between `<!-- results:together -->` and its end. Every method has the settings of its
suite. Differences are paired over the same seeds, in points, with 95 % intervals: in online accuracy from homeostasis
alone, in accuracy at the end from condensates alone. Seeds that diverged are left out, and counted.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.groups import against_suite
from benchmarks.results import Record
from benchmarks.statistics import paired
from paper_repro import comparing, scripts
from paper_repro.plasticity.compare import HOME, groups_in

PAGE = Path(__file__).parent / "README.md"
STREAMS: Mapping[str, str] = {
    "split MNIST": "split_mnist_stability.class.jsonl",
    "100 permutations": "permuted_mnist_100_short.domain.jsonl",
}
NAMES: Mapping[str, str] = {
    "naive": "SGD",
    "condensate_projector": "condensates alone",
    "homeostasis": "homeostasis alone",
    "condensate_homeostasis": "both, one after the other",
    "condensate_metric": "both, in one metric",
    "condensate_shell": "both, in two networks",
}
LEARNING, KEEPING = ("online_accuracy", "homeostasis"), ("accuracy", "condensate_projector")
HEADER = ("stream", "method", "online", "at the end", "online, ahead of homeostasis alone")
HEADER = (*HEADER, "at the end, ahead of condensates alone", "MB", "seeds")


def table(streams: Mapping[str, str] = STREAMS) -> str:
    """Returns the table."""
    rows = [HEADER, [":--", ":--"] + ["--:"] * (len(HEADER) - 2)]
    rows += [cells for title, name in streams.items() for cells in rows_of(title, HOME / name)]
    caption = (
        "Online accuracy and accuracy on all tasks at the end in %; differences on the same seeds, in points [95 %]. "
        "Every method at the settings of its suite."
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + f"\n\n*{caption}*"


def rows_of(title: str, path: Path) -> list[list[str]]:
    """Returns the cells of each method of a stream."""
    groups = {against_suite(label, group[0], terse=True): group for label, group in groups_in(path).items()}
    return [[title, *_row(name, groups)] for name in NAMES if name in groups]


def _row(name: str, groups: Mapping[str, list[Record]]) -> list[str]:
    group = groups[name]
    lost = sum(bool(record.get("diverged")) for record in group)
    means = [f"{_mean(group, metric):.1f}" for metric, _ in (LEARNING, KEEPING)]
    ahead = [_ahead(name, groups, *one) for one in (LEARNING, KEEPING)]
    seeds = f"{len(group) - lost}" + (f", {lost} diverged" if lost else "")
    return [NAMES[name], *means, *ahead, f"{group[0]['bytes'] / 1e6:.1f}", seeds]


def _mean(group: Sequence[Record], metric: str) -> float:
    return statistics.fmean(value for value in comparing.values(group, metric).values() if value is not None)


def _ahead(name: str, groups: Mapping[str, list[Record]], metric: str, alone: str) -> str:
    if name == alone:
        return "–"
    return comparing.in_points(paired(comparing.values(groups[name], metric), comparing.values(groups[alone], metric)))


def work() -> None:
    """Prints the table, and puts it into the page."""
    print(text := table())
    tables.update_readme(PAGE, {"together": text})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
