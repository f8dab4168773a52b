"""How far homeostasis is ahead of the best rival of each stream: over all tasks, and in the first and the last tenth.

    python -m paper_repro.plasticity.leads

Puts the table into `README.md`, between `<!-- results:leads -->` and its end. The best rival is that of the highest
mean online accuracy. Differences are paired over the same seeds, in points, with 95 % intervals that are not corrected
for the choice of the best; a seed of which either run diverged is left out. Who is ahead in the first tenth and not in
the last learns faster, and that is all.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import suite, tables
from benchmarks.groups import Groups, against_suite
from benchmarks.results import Record
from benchmarks.statistics import paired
from paper_repro import comparing, scripts
from paper_repro.plasticity.compare import HOME, STREAMS, Stream, groups_in

PAGE = Path(__file__).parent / "README.md"
TUNING = PAGE.parent.parent / "results" / "tuning"
OURS = "homeostasis"
HEADER = ("stream", "tasks run", "tuned on", "rivals' inputs", "homeostasis", "best rival", "optimizer alone")
HEADER = (*HEADER, "ahead of the best rival", "first tenth", "last tenth", "seeds")


def table(streams: Sequence[Stream] = STREAMS) -> str:
    """Returns the table."""
    rows = [HEADER, [":--"] + ["--:"] * (len(HEADER) - 1), *map(row, streams)]
    caption = (
        "Online accuracy in %, best rival by its mean; how far homeostasis is ahead of it on the same seeds, in points "
        "[95 %], over all tasks and in the first and last tenth of those that were run."
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + f"\n\n*{caption}*"


def row(stream: Stream) -> list[str]:
    """Returns the cells of a stream."""
    (mine,) = [group for group in _groups(stream.ours).values() if group[0]["method"] == OURS]
    rivals = {label: group for label, group in _groups(stream.theirs).items() if group[0]["method"] != OURS}
    best = max(rivals, key=lambda label: _mean(rivals[label]))
    alone = next(label for label in ("sgd", "adam") if label in rivals)
    named = lambda label: f"{label} {_mean(rivals[label]):.1f}"
    one, tasks = rivals[best][0], len(mine[0]["online_by_task"])
    tuned = json.loads((TUNING / f"{one['suite']}.{one['scenario']}.json").read_text())["tasks"]
    tenth = max(1, tasks // 10)
    parts = (slice(None), slice(tenth), slice(tasks - tenth, tasks))
    seeds = {record["seed"] for record in mine} & {record["seed"] for record in rivals[best]}
    of_all = suite.load(mine[0]["suite"]).tasks
    run = [f"{tasks} of {of_all}", str(tuned), _inputs(one), f"{_mean(mine):.1f}", named(best), named(alone)]
    return [stream.title, *run, *(_ahead(mine, rivals[best], part) for part in parts), str(len(seeds))]


def _groups(name: str) -> Groups:
    """Returns the runs of each label that did not diverge."""
    fine = {label: [run for run in group if not run.get("diverged")] for label, group in groups_in(HOME / name).items()}
    return {against_suite(label, group[0], terse=True): group for label, group in fine.items() if group}


def _online(record: Record, part: slice) -> float:
    return 100 * statistics.fmean(record["online_by_task"][part])


def _mean(group: list[Record]) -> float:
    return statistics.fmean(_online(record, slice(None)) for record in group)


def _ahead(ours: list[Record], theirs: list[Record], part: slice) -> str:
    """Returns the paired difference over a part of the tasks."""
    of = lambda group: {record["seed"]: _online(record, part) for record in group}
    return comparing.in_points(paired(of(ours), of(theirs)))


def _inputs(record: Record) -> str:
    """Returns what is done to the inputs of a rival."""
    protocol = record["config"]["protocol"]
    return "normalized" if protocol.get("conditioning") else "standardized" if protocol.get("standardized") else "raw"


def work() -> None:
    """Prints the table, and puts it into the page."""
    print(text := table())
    tables.update_readme(PAGE, {"leads": text})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
