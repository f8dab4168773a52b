"""Condensates and homeostasis, alone and together: learning and keeping in one table of both streams.

    python -m paper_repro.plasticity.together [--out paper_repro/plasticity/results]

Puts the table into `README.md`, between `<!-- results:together -->` and its end, and draws `together.png`: means over
seeds with 95 % intervals. Settings are those of the suite, which weigh learning and keeping; beside them homeostasis
alone as it learns best, and condensates alone as they keep best. Differences from these two are paired over the same
seeds, in points, with 95 % intervals, in online accuracy and in accuracy at the end. Seeds that diverged are left out,
and counted.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.canvas import canvas
from benchmarks.groups import Groups, against_suite
from benchmarks.results import Record
from benchmarks.statistics import Interval, mean_interval, paired
from benchmarks.styles import Style, apart, method_style
from paper_repro import comparing, scripts
from paper_repro.plasticity.compare import FILES, HOME, groups_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = Path(__file__).parent / "README.md"
STREAMS: Mapping[str, str] = dict(zip(("split MNIST", "100 permutations"), FILES, strict=True))
NAMES: Mapping[str, str] = {
    "naive": "SGD",
    "condensate_projector": "condensates alone",
    "condensate_projector (scale=0.1)": "condensates alone, held firmer",
    "homeostasis": "homeostasis alone",
    "homeostasis (learning_rate=0.03, anchoring=0.001)": "homeostasis alone, by larger steps",
    "condensate_homeostasis": "both, one after the other",
    "condensate_metric": "both, in one metric",
    "condensate_shell": "both, in two networks",
}
LEARNING, KEEPING = ("online_accuracy", "homeostasis"), ("accuracy", "condensate_projector")
HEADER = ("stream", "method", "online", "at the end", "online, ahead of homeostasis")
HEADER = (*HEADER, "at the end, ahead of condensates", "MB", "seeds")


def table(streams: Mapping[str, str] = STREAMS) -> str:
    """Returns the table."""
    rows = [HEADER, [":--", ":--"] + ["--:"] * (len(HEADER) - 2)]
    rows += [cells for title, name in streams.items() for cells in rows_of(title, own_groups(HOME / name))]
    caption = (
        "Online accuracy and accuracy on all tasks at the end in %; how far ahead on the same seeds, in points [95 %], "
        "of what learns best of homeostasis alone, and of what keeps best of condensates alone. Settings are those of "
        "the suite, but for what is held firmer and what takes larger steps."
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + f"\n\n*{caption}*"


def own_groups(path: Path) -> Groups:
    """Returns the records of each configuration that has a name here, and refuses two under one name."""
    found = groups_in(path)
    named = {group[0]["config_hash"]: against_suite(label, group[0], terse=True) for label, group in found.items()}
    records = [record for group in found.values() for record in group]
    groups = comparing.by_name(records, lambda record: named[record["config_hash"]])
    return {name: groups[name] for name in NAMES if name in groups}


def rows_of(title: str, groups: Groups) -> list[list[str]]:
    """Returns the cells of each method of a stream."""
    return [[title, *_row(name, groups)] for name in groups]


def _row(name: str, groups: Groups) -> list[str]:
    group = groups[name]
    lost = sum(bool(record.get("diverged")) for record in group)
    means = [f"{_mean(group, metric).mean:.1f}" for metric, _ in (LEARNING, KEEPING)]
    ahead = [_ahead(name, groups, *one) for one in (LEARNING, KEEPING)]
    seeds = f"{len(group) - lost}" + (f", {lost} diverged" if lost else "")
    return [NAMES[name], *means, *ahead, f"{group[0]['bytes'] / 1e6:.1f}", seeds]


def _mean(group: Sequence[Record], metric: str) -> Interval:
    return mean_interval(value for value in comparing.values(group, metric).values() if value is not None)


def _ahead(name: str, groups: Groups, metric: str, alone: str) -> str:
    """Returns how far a configuration is ahead of the best of what is alone."""
    best = max((one for one in groups if groups[one][0]["method"] == alone), key=lambda one: _mean(groups[one], metric))
    if name == best:
        return "–"
    return comparing.in_points(paired(comparing.values(groups[name], metric), comparing.values(groups[best], metric)))


def draw(axes: "Axes", groups: Groups, styles: Mapping[str, Style]) -> None:
    """Draws a point with intervals for each method: learning to the right, keeping upwards."""
    for name, group in groups.items():
        online, kept = (_mean(group, metric) for metric, _ in (LEARNING, KEEPING))
        spread = {"xerr": online.half_width, "yerr": kept.half_width, "elinewidth": 0.8, "capsize": 2}
        axes.errorbar(online.mean, kept.mean, **spread, **styles[name])
    axes.set(xlabel="online accuracy (%)")
    axes.grid(axis="x")


def picture(path: Path, panels: Mapping[str, Groups]) -> None:
    """Draws a panel for each stream."""
    styles: dict[str, Style] = {}
    for name in [name for name in NAMES if any(name in groups for groups in panels.values())]:
        own = method_style(name.split(" (")[0])
        look = {"label": NAMES[name], "linestyle": "", "marker": own["marker"] or "o"}  # points: nothing to join
        styles[name] = apart(own | look, styles.values())
    with canvas(path, 6.0, 2.6, styles.values()) as figure:
        axes = figure.subplots(1, len(panels))
        for ax, (title, groups) in zip(axes, panels.items(), strict=True):
            draw(ax, groups, styles)
            ax.set_title(title, loc="left")
        axes[0].set_ylabel("accuracy on all tasks at the end (%)")


def work(out: Path) -> None:
    """Prints the table and puts it into the page, and draws the picture."""
    print(text := table())
    tables.update_readme(PAGE, {"together": text})
    picture(out / "together.png", {title: own_groups(HOME / name) for title, name in STREAMS.items()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
