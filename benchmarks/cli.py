"""Benchmarks of continual learning: run published protocols, with seeds, error bars and cost.

    python -m benchmarks list                              what there is
    python -m benchmarks run split_digits                  a first result, in a minute, with no download
    python -m benchmarks run split_mnist --scenario class --methods naive,ewc,si --seeds 5

Nothing heavy is imported before the arguments are understood.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from neuroml.errors import NeuromlError


@dataclasses.dataclass(frozen=True)
class List:
    """Shows the suites and the methods, with what each may be set to."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs a suite, prints a table with 95 % intervals, and writes results and a plot.

    Results go to OUT as they come, one line of JSON for each method and seed; a run that was interrupted takes up where
    it stopped.
    """

    suite: tyro.conf.Positional[str]
    """Name of the suite, as `list` shows it."""
    methods: str | None = None
    """Methods, with commas between; default: those of the suite."""
    scenario: str | None = None
    """class, domain or task; default: all that the suite has."""
    seeds: int | None = None
    """How many seeds, counted from 0; default: the suite's number."""
    data: str | None = None
    """Another data set in the place of the suite's, its hyperparameters unchanged."""
    steps: int | None = None
    """Only the first so many training steps, in whole tasks, of a stream that shows the same images in each task."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """name=value: a field of the protocol, or a hyperparameter of every method that has it, or method.name=value."""
    data_dir: Path | None = None
    """Folder of prepared TFDS data sets; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    out: Path = Path("runs")
    """Folder for results and plots."""
    fresh: bool = False
    """Runs all seeds anew, also those that OUT already holds."""
    json: bool = False
    """Prints one JSON object, last and alone, on standard output."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Also logs every run to Weights & Biases."""


@dataclasses.dataclass(frozen=True)
class Tune:
    """Chooses hyperparameters on held-out training images and seeds that are never reported.

    Every method is given the same number of trials, from the suite's grids; a tenth of the training images stands in
    for the test set.
    """

    suite: tyro.conf.Positional[str]
    """Name of the suite, as `list` shows it."""
    methods: str | None = None
    """Methods, with commas between; default: those for which the suite has a grid."""
    scenario: str | None = None
    """class, domain or task; default: all that the suite has."""
    seeds: int = 3
    """How many tuning seeds; they start at 1,000,000."""
    tasks: int | None = None
    """Only the first so many tasks, of a stream that shows all images in each; default: all."""
    data_dir: Path | None = None
    """Folder of prepared TFDS data sets."""
    out: Path = Path("runs/tuning")
    """Folder for the trials."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Prints the tables of all result files in a folder, and in the folders in it, as Markdown."""

    directory: tyro.conf.Positional[Path]
    """Folder with result files."""
    readme: Path | None = None
    """Also puts the tables into this file, between its markers `<!-- results:NAME -->`."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draws the pictures of all result files in a folder; not of those in the folders in it."""

    directory: tyro.conf.Positional[Path]
    """Folder with result files; the PNG files go there too."""
    methods: str | None = None
    """Only these methods, with commas between; default: all that a file holds."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Makes data sets ready without a network: `data import DIR` prepares the original files in DIR for TFDS."""

    action: tyro.conf.Positional[Literal["import"]]
    """import: MNIST and Fashion-MNIST as idx files, CIFAR-10 and CIFAR-100 as binary or Python archives."""
    source: tyro.conf.Positional[Path]
    """Folder with the original files."""
    name: str | None = None
    """mnist or fashion_mnist, where the folder's name does not tell: their files are called alike."""
    data_dir: Path | None = None
    """Where the prepared sets go; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""


Command = List | Run | Tune | Table | Plot | Data


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 2 for a user's mistake, 1 where nothing useful came out."""
    command = _understood(sys.argv[1:] if arguments is None else arguments)
    try:
        from benchmarks import commands

        status = commands.execute(command)
        sys.stdout.flush()
        return status
    except NeuromlError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped{_after_a_stop(command)}.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough; Python would complain of it once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _understood(arguments: list[str]) -> Command:
    """Returns the command that the arguments ask for; where they name one, only its own options are hinted at."""
    kinds = {kind.__name__.lower(): kind for kind in (List, Run, Tune, Table, Plot, Data)}
    program, (first, *rest) = "python -m benchmarks", arguments or [""]
    if first in kinds:
        return tyro.cli(kinds[first], args=rest, prog=f"{program} {first}")
    return tyro.cli(Command, args=arguments, prog=program, description=__doc__)


def _after_a_stop(command: Command) -> str:
    """Returns what is left of a command that was stopped."""
    if isinstance(command, Run) and not command.fresh:
        return "; what was finished is kept, and the same command goes on from there"
    if isinstance(command, Run | Tune):
        return "; what was finished is kept, and the same command would run it again: name the rest with --methods"
    return ""
