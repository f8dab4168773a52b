"""Paired comparisons of networks that grow with fixed ones of the same width, with each other, and with controls.

Neurogenesis, which keeps prototypes, is held against a fixed network of as many bytes, too, or up to 1 % more.

    python -m paper_repro.growth.compare

Differences in accuracy at the end, in points, with 95 % intervals and the p value of Student's paired t-test, not
corrected for the number of comparisons. Over the same seeds; one of which either run diverged is left out.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    "split_cifar10_growth.class.jsonl",
)
COMPOSED = (  # pairs of rows in `composed.json`
    ("ewc, free", "ewc, fixed"),
    ("ewc, held", "ewc, fixed"),
    ("ewc, held", "ewc, free"),
    ("er, free", "er, fixed"),
)
RIVALS = {
    "neurogenesis": ("growth", "neurogenesis by_lot=True", "neurogenesis pool=1"),
    "growth when=rank directions=free": ("growth when=rank",),
    "growth when=rank youth_gain=4.0": ("growth when=rank",),
}
Groups = Mapping[tuple[int, str], Sequence[results.Record]]  # by width and name


def lines(path: Path) -> list[str]:
    """Returns a line for each width, each setting in a file and what it is held against."""
    named = lambda record: (_width(record["config"]["protocol"]), name_of(record))
    groups = comparing.by_name(results.latest(results.read(path)), named)
    found = {key: comparing.values(group, "accuracy") for key, group in sorted(groups.items())}
    return [
        f"{f'{width} neurons' if width else 'convolutions'}: {setting} - {words} = {difference}"
        for (width, setting), ours in found.items()
        for words, other in _others(groups, width, setting).items()
        if (difference := comparing.compared(ours, found.get(other, {})))
    ]


def _width(protocol: Mapping[str, Any]) -> int:
    """Returns how many neurons a layer has; 0 for convolutions, whose dense layer is not set by `hidden`."""
    return 0 if protocol.get("network") == "cnn" else protocol["hidden"][0]


def _others(groups: Groups, width: int, setting: str) -> dict[str, tuple[int, str]]:
    """Returns what a setting is held against: in words, and as width and name."""
    names = dict.fromkeys(("fixed", *RIVALS.get(setting, ()), setting.split(" sprouts=")[0]))
    others = {name: (width, name) for name in names if name != setting}
    if setting == "neurogenesis" and (wider := _as_large(groups, (width, setting))):
        others[f"fixed of {wider} neurons, as many bytes"] = (wider, "fixed")
    return others


def _as_large(groups: Groups, key: tuple[int, str]) -> int | None:
    """Returns the least width of which a fixed network, wider than this one, takes as many bytes, or up to 1 % more."""
    size = lambda group: group[0]["bytes"]
    ours = size(groups[key])
    wider = ((width, size(group)) for (width, name), group in groups.items() if name == "fixed" and width > key[0])
    return min((width for width, theirs in wider if ours <= theirs <= 1.01 * ours), default=None)


def work() -> None:
    """Prints the comparisons of all files."""
    comparing.report(HOME, FILES, lines)
    print("\n".join(composed(json.loads((HOME / "composed.json").read_text())["found"])))


def composed(found: Mapping[str, Mapping[str, list[float]]]) -> Iterator[str]:
    """Yields what growth with EWC and with replay comes to, against fixed networks and each other."""
    for stream, (one, other) in itertools.product(("permuted", "split"), COMPOSED):
        for metric in ("accuracy", "first_task"):
            rows = [dict(enumerate(found[f"{stream}, {name}"][metric])) for name in (one, other)]
            yield f"{stream}, {metric}: {one} - {other} = {comparing.compared(*rows)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
