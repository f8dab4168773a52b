"""Errors that a user can act on: each says what was given and what to do."""

import difflib
from collections.abc import Iterable


class NeuromlError(Exception):
    """Any mistake that a user can mend. The command line prints its message without a traceback."""


class UsageError(NeuromlError, ValueError):
    """An argument is wrong: an unknown name, a value out of range, a combination that makes no sense."""


class MissingWordError(NeuromlError, TypeError):
    """A rule needs a context word (`batch=`, `key=`, `importance=`, ...) that the call did not give."""


class DataError(NeuromlError, OSError):
    """A data set, result file or folder is missing, truncated, corrupt or not writable."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Returns the error for a name that is not among `known`, with the nearest ones.

    >>> print(unknown("method", "ewcc", ["ewc", "si", "er"]))
    unknown method 'ewcc'. Did you mean 'ewc'? Known: er, ewc, si.
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(options)}.")
