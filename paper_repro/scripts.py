"""What the scripts of the claims share: options, the mistakes of a user, and checks before the work and not after."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import check_writable
from neuroml.errors import NeuromlError, UsageError


def main(work: Callable[..., None], about: str | None, arguments: Sequence[str] | None = None, **options: Any) -> int:
    """Runs a script and returns the exit status: 2 for a user's mistake.

    Args:
      work: what the script does; it is called with all options by their names.
      about: what `--help` shows.
      arguments: those of the command line if None.
      options: the default of each option: a number, or for `out` the folder that is written to.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in options.items():
        kind = Path if isinstance(default, Path) else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"default: {default}")
    given = vars(parser.parse_args(arguments))

    def checked() -> int:
        _check(given)
        work(**given)
        return 0

    return guarded(checked)


def resumed(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Returns what a file of results holds if it was made with what is given, else an empty record of it."""
    before = json.loads(path.read_text()) if path.exists() else {}
    return before if given.items() <= before.items() else {**given, "found": {}}


def guarded(work: Callable[[], int], stopped: str = "stopped.") -> int:
    """Returns the exit status of some work: its own, 2 for a user's mistake, 130 where Ctrl-C ended it."""
    try:
        return work()
    except NeuromlError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130


def _check(given: dict[str, Any]) -> None:
    """Raises for counts below 1, and for a folder that cannot be written to."""
    for name, value in given.items():
        if isinstance(value, int) and value < 1:
            raise UsageError(f"--{name} {value}: at least 1 is needed.")
    if "out" in given:
        check_writable(given["out"])
