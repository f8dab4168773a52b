"""Paired comparisons over the same seeds: with rivals, with content-free controls, of both together with either alone.

    python -m paper_repro.plasticity.compare

Differences in online accuracy of homeostasis from every other method and from its ablations, and of every method from
its controls; of condensates and homeostasis together, in accuracy on all tasks at the end and in online accuracy, from
either alone, from other ways of being together, and from variants of each. In points, with 95 % intervals and the p
value of Student's paired t-test, not corrected for the number of comparisons. A seed of which either run diverged is
left out.
"""

import operator
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import results
from benchmarks.groups import Groups, by_label
from benchmarks.results import Record
from paper_repro import comparing, scripts

HOME = Path(__file__).parent / "results"
FILES = ("split_mnist_stability.class.jsonl", "permuted_mnist_100_short.domain.jsonl")
ALONE = ("condensate_projector", "homeostasis")
TOGETHER = ("condensate_homeostasis", "condensate_metric", "condensate_shell")
METRICS = ("accuracy", "online_accuracy")
PLAIN, LABELS = "input_permuted_mnist.domain.jsonl", "label_permuted_mnist.domain.jsonl"


class Stream(NamedTuple):
    """Where homeostasis stands, and where its rivals do."""

    title: str
    ours: str
    theirs: str


STREAMS = (
    Stream("input permutations, MNIST", f"first_100k/{PLAIN}", f"first_100k/{PLAIN}"),
    Stream(
        "the same, everybody's inputs normalized",
        f"first_100k/{PLAIN}",
        "conditioned/input_permuted_mnist_conditioned.domain.jsonl",
    ),
    *(
        Stream(title, name, name)
        for title, name in {
            "input permutations, all of them": PLAIN,
            "label permutations, MNIST": f"first_100k/{LABELS}",
            "label permutations, all of them": LABELS,
            "label permutations, CIFAR-10": "label_permuted_cifar10.domain.jsonl",
            "random labels, MNIST": "random_label_mnist.domain.jsonl",
            "500 permutations, MNIST": "permuted_mnist_500.domain.jsonl",
            "Online Permuted MNIST, reduced": "online_permuted_mnist_reduced.domain.jsonl",
        }.items()
    ),
)
CONTROLS = (PLAIN, LABELS)  # in the folder of those that changed, and of those that did not


def groups_in(path: Path) -> Groups:
    """Returns the newest records of a file by their labels."""
    return by_label(results.read(path))


def lines(path: Path) -> list[str]:
    """Returns a line for each metric and configuration of both together, against either alone and what else is both."""
    groups = groups_in(path)
    of = lambda names: [label for label, group in groups.items() if group[0]["method"] in names]
    return [
        f"{metric}: {label} - {other} = {difference}"
        for metric in METRICS
        for place, together in enumerate(TOGETHER)
        for label in of([together])
        for other in of([*ALONE, *TOGETHER[:place]])
        if (difference := _difference(groups[label], groups[other], metric))
    ]


def against(
    ours: Groups, theirs: Groups, of: Callable[[str, str], bool], metrics: Sequence[str] = ("online_accuracy",)
) -> list[str]:
    """Returns a line for each metric and each of our and their configurations of whose methods `of` says so."""
    return [
        f"{metric}: {one} - {other} = {difference}"
        for metric in metrics
        for one, mine in ours.items()
        for other, their in theirs.items()
        if of(mine[0]["method"], their[0]["method"]) and (difference := _difference(mine, their, metric))
    ]


def _difference(ours: list[Record], theirs: list[Record], metric: str) -> str | None:
    return comparing.compared(comparing.values(ours, metric), comparing.values(theirs, metric))


def work() -> None:
    """Prints the comparisons of all files."""
    of_rival = lambda one, other: one == "homeostasis" != other
    for stream in STREAMS:
        ours = groups_in(HOME / stream.ours)
        comparing.report(HOME, [stream.theirs], lambda path, ours=ours: against(ours, groups_in(path), of_rival))
    alike = lambda path: against(groups_in(HOME / "first_100k" / path.name), groups_in(path), operator.eq)
    comparing.report(HOME, [f"first_100k_others/{name}" for name in CONTROLS], alike)
    whole = groups_in(HOME / "first_100k" / PLAIN)
    comparing.report(HOME, ["ablation.domain.jsonl"], lambda path: against(whole, groups_in(path), operator.eq))
    comparing.report(HOME, FILES, lines)
    usual = groups_in(HOME / FILES[1])
    variants = lambda path: against(usual, groups_in(path), operator.eq, METRICS)
    comparing.report(HOME, [f"variants/{FILES[1]}"], variants)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
