"""Checking a claim: our mean against the published one, two-sidedly, for each cell."""

import math
import statistics
import sys
from typing import Any, NamedTuple

from benchmarks import tables
from neuroml.errors import UsageError
from paper_repro import claims, running
from paper_repro.claims import HOME, Cell, Claim

FLOOR = 0.3  # points that no protocol written down in a paper fixes
SHARE = 0.9  # of the cells that must pass


class Verdict(NamedTuple):
    """What came of one cell; in %."""

    cell: Cell
    seeds: int  # ours that finished: those behind the numbers
    mean: float
    error: float  # standard error of our mean
    allowed: float  # largest difference that passes
    seconds: float  # a seed
    diverged: int  # ours that did not finish

    @property
    def difference(self) -> float:
        """Ours minus the published number."""
        return self.mean - self.cell.published

    @property
    def run(self) -> bool:
        """Whether there is something to compare: two seeds or more, or one that diverged."""
        return self.seeds > 1 or self.diverged > 0

    @property
    def checked(self) -> bool:
        """Whether it was run, and the published number was seen."""
        return self.run and self.cell.seen != "from memory"

    @property
    def passes(self) -> bool:
        """Whether every seed finished, and the difference is within what chance allows."""
        return not self.diverged and abs(self.difference) <= self.allowed

    @property
    def word(self) -> str:
        """Says in a word or two what came of it."""
        if not self.checked:
            return "not checked (from memory)" if self.run else "not run"
        return "pass" if self.passes else "**diverged**" if self.diverged else "**fail**"

    @property
    def counted(self) -> str:
        """Says how many seeds ran and, if any, how many of them diverged."""
        count = self.seeds + self.diverged
        return f"{count} (diverged {self.diverged}/{count})" if self.diverged else str(count)


def verdict(
    cell: Cell, values: list[float], seconds: float = 0.0, floor: float = FLOOR, *, diverged: int = 0
) -> Verdict:
    r"""Returns the comparison of a published number with our values, one a seed that finished, in %.

        allowed = 2 * sqrt(SEM_ours^2 + SEM_published^2) + floor

    where an unknown SEM_published is taken to be standard deviation(values) / sqrt(published seeds).

    >>> cell = Cell(name="ER", published=80.4, seeds=10, seen="first-hand")
    >>> verdict(cell, [81.0, 80.0, 82.0]).passes, verdict(cell, [90.0, 91.0, 92.0]).passes
    (True, False)
    """
    if len(values) < 2:
        return Verdict(cell, len(values), values[0] if values else math.nan, math.nan, math.nan, seconds, diverged)
    spread = statistics.stdev(values)
    ours = spread / math.sqrt(len(values))
    theirs = spread / math.sqrt(cell.seeds) if cell.error is None else cell.error
    allowed = 2 * math.hypot(ours, theirs) + floor
    return Verdict(cell, len(values), statistics.fmean(values), ours, allowed, seconds, diverged)


def verdicts(claim: Claim, folder: Any = None, floor: float = FLOOR) -> list[Verdict]:
    """Returns what came of every cell of a claim."""
    found = []
    for cell in claim.cells:
        records = [] if cell.not_run else running.found(cell.job(), folder or claim.results)
        finished = [record for record in records if not record["diverged"]]
        seconds = statistics.fmean(record["seconds"] for record in finished) if finished else 0.0
        values = [100 * record["metrics"]["accuracy"] for record in finished]
        found.append(verdict(cell, values, seconds, floor, diverged=len(records) - len(finished)))
    return found


def table(rows: list[Verdict], claim: str) -> str:
    """Returns the comparison as Markdown, and behind it the reasons of what failed or was not run."""
    lines = [
        "| | published | ours | difference | allowed | | seeds | seconds a seed | seen |",
        "|:--|--:|--:|--:|--:|:--|--:|--:|:--|",
    ]
    for row in rows:
        cell = row.cell
        published = f"{cell.published:.2f}" + ("" if cell.error is None else f" ± {cell.error:.2f}")
        ours = f"{row.mean:.2f} ± {row.error:.2f}" if row.seeds > 1 else "–"
        numbers = f"{row.difference:+.2f} | {row.allowed:.2f}" if row.seeds > 1 else "– | –"
        seconds = f"{row.seconds:.1f}" if row.seeds else "–"
        lines.append(
            f"| {cell.name} | {published} | {ours} | {numbers} | {row.word} | {row.counted} | {seconds} | {cell.seen} |"
        )
    passed = sum(row.passes for row in rows if row.checked)
    lines += [
        "",
        "In %; ± one standard error. " + f"{passed} of {sum(row.checked for row in rows)} checked cells pass.",
    ]
    notes = [(row.cell.name, _note(row, claim)) for row in rows]
    return "\n".join(lines + [""] + [f"- {name}: {note}" for name, note in notes if note]).rstrip() + "\n"


def _note(row: Verdict, claim: str) -> str | None:
    """Returns why a cell was not run, what would run it, or why it fails."""
    cell = row.cell
    if cell.not_run is None and not row.run:
        return f'python -m paper_repro run {claim} --only "{cell.name}"' + (f": {cell.takes}" if cell.takes else "")
    return cell.not_run or (cell.explained if row.checked and not row.passes else None)


def check(command: Any) -> int:
    """Prints the verdicts, and returns the exit status that `python -m paper_repro check --help` promises."""
    if command.results and not command.claim:
        raise UsageError("--results is the folder of one claim: name it, as in `check CLAIM --results FOLDER`.")
    if command.results and not command.results.is_dir():
        raise UsageError(f"--results {command.results} is no folder: give the one that was `--out` of `run`.")
    floor = FLOOR if command.floor is None else command.floor
    if command.write and (command.results or floor != FLOOR):
        raise UsageError(
            "--write is for the results of the claim and its own tolerance: leave out --results and --floor."
        )
    if not floor >= 0:
        raise UsageError(f"--floor {floor} is a number of points that pass in any case: at least 0.")
    every, waiting = [], False
    for name in [command.claim] if command.claim else claims.names():
        claim = claims.load(name)
        rows = verdicts(claim, command.results, floor)
        print(f"{claim.title}\n\n{table(rows, claim.name)}")
        if command.write:
            tables.update_readme(HOME / name / "README.md", {"check": table(rows, claim.name)})
        every += [row for row in rows if row.checked]
        waiting |= any(cell.seen != "from memory" for cell in claim.run_here())
    passed = sum(row.passes for row in every)
    print(f"{passed} of {len(every)} checked numbers pass.")
    silent = [row.cell.name for row in every if not row.passes and not row.cell.explained]
    if silent:
        print(f"not explained: {', '.join(silent)}", file=sys.stderr)
    return int((waiting and not every) or passed < SHARE * len(every) or bool(silent))
