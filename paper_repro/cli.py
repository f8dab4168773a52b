"""Published numbers, and what the same protocols give here.

python -m paper_repro list         the claims: what was published, how much of it runs here, and for how long
python -m paper_repro run CLAIM    runs its protocol; an interrupted run takes up where it stopped
python -m paper_repro check        compares every number that was run with the published one, two-sidedly
"""

import dataclasses
from pathlib import Path

import tyro

from paper_repro import scripts


@dataclasses.dataclass(frozen=True)
class List:
    """Shows the claims."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs the cells of a claim, one after the other, and writes results into its folder as they come."""

    claim: tyro.conf.Positional[str]
    """Name of the claim, as `list` shows it."""
    only: str | None = None
    """Only the cells whose name begins with this."""
    seeds: int | None = None
    """How many seeds, counted from 0; default: the claim's number."""
    data_dir: Path | None = None
    """Folder of prepared TFDS data sets; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    out: Path | None = None
    """Another folder for the results."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Prints pass or fail for each cell.

    Exit status 1 where less than 90 % pass, a failure is not explained, or nothing was run of what can be.

    A cell passes if |ours - published| <= 2 * sqrt(SEM_ours^2 + SEM_published^2) + 0.3 points, and fails if any seed
    diverged. Where no SEM was published, theirs is taken to be our standard deviation over the root of their number of
    seeds.
    """

    claim: tyro.conf.Positional[str | None] = None
    """Name of one claim; default: all."""
    results: Path | None = None
    """Another folder with the results of that claim."""
    floor: float | None = None
    """Points that pass in any case, instead of 0.3: more, for a quick look at a few seeds."""
    write: bool = False
    """Also puts the table into the README of the claim's folder, between its markers."""


Command = List | Run | Check


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 2 for a user's mistake."""
    command = tyro.cli(Command, args=arguments, prog="python -m paper_repro", description=__doc__)
    return scripts.guarded(
        lambda: _execute(command), "stopped; what was finished is kept, and the same command goes on from there."
    )


def _execute(command: Command) -> int:
    from paper_repro import checking, claims, running

    if isinstance(command, List):
        print(claims.overview())
        return 0
    if isinstance(command, Run):
        return running.run(claims.load(command.claim), command)
    return checking.check(command)
