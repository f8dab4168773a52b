"""Claims: published numbers with their protocol, one `claim.yaml` in a folder each."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks import suite as suites
from benchmarks.jobs import Job, jobs_of
from neuroml.errors import DataError, UsageError, unknown
from neuroml.methods import methods

HOME = Path(__file__).parent
SEEN = ("first-hand", "second-hand", "from memory")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One published number, and what runs its protocol here."""

    name: str
    published: float  # in %
    error: float | None = None  # standard error of the published mean, in %
    seeds: int  # behind the published number
    seen: str
    suite: str = ""  # here, as the three below
    scenario: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # as `--set name=value` has them
    method: str | None = None  # none where it was not run
    not_run: str | None = None  # why, with what it would take
    takes: str | None = None  # what a seed takes, of a cell that could be run and was not
    explained: str | None = None  # why it differs, once known

    def job(self) -> Job:
        """Returns what runs the cell's protocol."""
        name = str(self.method)
        if name not in methods:
            raise unknown(f"method of cell {self.name!r}", name, methods)
        settings = {key: tuple(v) if isinstance(v, list) else v for key, v in self.settings.items()}
        one = suites.change(suites.load(self.suite), settings, {name: methods[name]})
        return jobs_of(one, [name], [self.scenario])[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A table or figure of a paper."""

    name: str
    title: str
    source: str
    protocol: str
    minutes: str  # of all that is run, on which machine
    seeds: int  # here
    cells: tuple[Cell, ...]
    results: Path

    def run_here(self) -> list[Cell]:
        """Returns the cells that are run, those from memory among them."""
        return [cell for cell in self.cells if cell.not_run is None]


def names() -> list[str]:
    """Returns the names of all claims: the folders that hold a `claim.yaml`."""
    return sorted(path.parent.name for path in HOME.glob("*/claim.yaml"))


def load(name: str) -> Claim:
    """Returns a claim.

    Raises:
      UsageError: there is no such claim.
      DataError: its file is not as it should be; says what is wrong.
    """
    if name not in names():
        raise unknown("claim", name, names())
    path = HOME / name / "claim.yaml"
    try:
        return _claim(path, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError, KeyError, UsageError) as why:
        raise DataError(f"{path} is not a claim ({why}).") from why


def _claim(path: Path, read: dict[str, Any]) -> Claim:
    # What most cells share stands once, at the top.
    shared = {key: read.pop(key) for key in ("suite", "scenario", "seen", "error") if key in read}
    theirs, results = read.pop("published_seeds"), path.parent / read.pop("results", "results")
    cells = tuple(Cell(**{**shared, "seeds": theirs, **cell}) for cell in read.pop("cells"))
    for cell in cells:
        if cell.seen not in SEEN:
            raise unknown(f"way in which {cell.name!r} was seen", cell.seen, SEEN)
        if (cell.method is None) == (cell.not_run is None):
            raise UsageError(f"cell {cell.name!r} needs a method, or `not_run` with the reason")
    return Claim(name=path.parent.name, cells=cells, results=results, **read)


def overview() -> str:
    """Returns a paragraph for each claim."""
    paragraphs = []
    for name in names():
        claim = load(name)
        can_run = f"{len(claim.run_here())} of {len(claim.cells)} numbers can be run; {claim.minutes}"
        paragraphs.append(f"{name}\n  {claim.title}\n  {claim.source}\n  {can_run}")
    return "\n\n".join(paragraphs)
