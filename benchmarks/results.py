"""Result files: a line of JSON for each method and seed.

A file only grows, so that an interrupted run goes on where it stopped; of two lines for one configuration,
method and seed the later one counts. A configuration holds all that a run depends on, suite, data and
scenario included. Accuracies are fractions. What is not defined (NaN) is `null`, strict JSON. A row of an accuracy
matrix that is mostly undefined is written as {"columns": its length, "3": the value in column 3}, and read as a list
again: the matrix of 500 tasks, each tested when learnt and at the end, would be a quarter of a million `null`s.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from neuroml.errors import DataError, UsageError

Record = dict[str, Any]
IDENTITY = ("config_hash", "method", "seed")


def append(path: Path | str, records: Iterable[Record]) -> None:
    """Adds records to a file, making its folder; each line is on the disk before the next is begun.

    Raises:
        UsageError: A record lacks its config_hash, method or seed. Nothing is written.
        DataError: The file cannot be written.
    """
    path = Path(path)
    lines = [_line(record) for record in records]
    with _writing(path), open(path, "a+b") as file:
        _lock(file)
        _mend(file)
        for line in lines:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def read(path: Path | str) -> list[Record]:
    """Returns the records of a file in the order of its lines.

    A last line that is cut short (the machine died while writing) is left out with a warning on stderr.

    Raises:
        DataError: There is no such file, or another line is corrupt.
    """
    try:
        *lines, tail = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): run the benchmark that writes it first.") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records += [_parse(line)] if line.strip() else []
        except (ValueError, DataError) as error:
            advice = "Delete that line and run the benchmark again: it fills in what is missing."
            raise DataError(f"line {number} of {path} is not a result ({error}). {advice}") from error
    with contextlib.suppress(ValueError, DataError):
        return records + ([_parse(tail)] if tail.strip() else [])
    print(f"warning: the last line of {path} is cut short and is left out", file=sys.stderr)
    return records


def finished(path: Path | str, enough: Callable[[Record], bool] = lambda record: True) -> set[tuple[str, str, int]]:
    """Returns each (config_hash, method, seed) that need not run again; none when there is no file yet.

    A seed that diverged is finished: it would diverge again. One whose newest record does not hold `enough` is not.
    """
    return {identity(record) for record in latest(read(path)) if enough(record)} if Path(path).exists() else set()


def files(folder: Path | str, *, below: bool = False) -> list[Path]:
    """Returns the result files in a folder, and in those below it if that is asked for.

    Raises:
        DataError: There are none.
    """
    pattern, where = ("**/*.jsonl", "in or below") if below else ("*.jsonl", "in")
    found = sorted(Path(folder).glob(pattern))
    if not found:
        raise DataError(f"there are no result files (*.jsonl) {where} {folder}: run the benchmark with --out first.")
    return found


def write_text(path: Path | str, text: str) -> None:
    """Replaces a text file whole or not at all.

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")  # of this call: others may write the same file now
    with _writing(path):
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path | str) -> Iterator[None]:
    """Keeps other processes that ask too from the folder of a file, while that is read and then replaced."""
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with _writing(path), contextlib.suppress(PermissionError):  # Windows opens no folders
            folder = os.open(path.parent, os.O_RDONLY)
            stack.callback(os.close, folder)
            _lock(folder)
        yield


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns 12 hexadecimal digits, equal for equal configurations whatever the order of their entries.

    Numbers count by value: 100 and 100.0 are one setting.

    Raises:
        UsageError: An entry is infinite, NaN, or nothing that JSON knows.

    >>> config_hash({"strength": 100, "sizes": [64, 64]})
    '06faadce15cf'
    >>> config_hash({"sizes": (64, 64), "strength": 100.0})
    '06faadce15cf'
    """
    try:
        text = json.dumps(config, allow_nan=False, default=lambda entry: entry.tolist())
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"a configuration must be finite, plain JSON ({error}). None can say 'no limit'.") from error
    canonical = json.dumps(json.loads(text, parse_float=_number), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def latest(records: Iterable[Record]) -> list[Record]:
    """Returns the last record of each (config_hash, method, seed), in the order of their first."""
    return list({(setting(record), identity(record)): record for record in records}.values())


def identity(record: Record) -> tuple[str, str, int]:
    """Returns what tells a run from any other."""
    return record["config_hash"], record["method"], record["seed"]


def setting(record: Record) -> tuple[str, str, str]:
    """Returns what a table is about."""
    return record.get("suite", ""), record.get("data", ""), record.get("scenario", "")


def plain(entry: Any) -> Any:
    """Returns lists and Python numbers in place of arrays and tuples, None in place of NaN and infinities."""
    if isinstance(entry, Mapping):
        return {str(name): plain(inner) for name, inner in entry.items()}
    if isinstance(entry, list | tuple):
        return [plain(inner) for inner in entry]
    if hasattr(entry, "tolist"):
        return plain(entry.tolist())
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


def _number(digits: str) -> int | float:
    """Returns a number as JSON's text gave it, whole ones as int."""
    number = float(digits)
    return int(number) if number.is_integer() else number


def _line(record: Record) -> bytes:
    """Returns the record as a line of strict JSON."""
    if any(name not in record for name in IDENTITY):
        raise UsageError(f"a result needs {', '.join(IDENTITY)}; this one has {', '.join(record)}.")
    entries = plain(record)
    if "accuracy" in entries:
        entries["accuracy"] = [_packed(row) for row in entries["accuracy"]]
    return json.dumps(entries, allow_nan=False).encode() + b"\n"


def _parse(line: bytes) -> Record:
    """Returns the record of a line, or raises ValueError for what is not JSON, DataError for other JSON."""
    record = json.loads(line.decode())
    if not isinstance(record, dict) or any(name not in record for name in IDENTITY):
        raise DataError(f"it needs {', '.join(IDENTITY)}")
    try:
        return (
            {**record, "accuracy": [_unpacked(row) for row in record["accuracy"]]} if "accuracy" in record else record
        )
    except (KeyError, TypeError) as error:
        raise DataError("its accuracy is no matrix") from error


def _packed(row: Any) -> Any:
    """Returns a row that is mostly None as {"columns": length, column: value}, any other as it is."""
    if not isinstance(row, list) or 2 * row.count(None) <= len(row):
        return row
    return {"columns": len(row), **{str(i): value for i, value in enumerate(row) if value is not None}}


def _unpacked(row: Any) -> Any:
    return [row.get(str(i)) for i in range(row["columns"])] if isinstance(row, dict) else row


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes the folder of a file and turns what goes wrong while writing it into advice."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except DataError:
        raise
    except OSError as error:
        advice = "Free some space, or name a file in a folder that you may write to."
        raise DataError(f"cannot write {path} ({error.strerror}). {advice}") from error


def _lock(file: BinaryIO | int) -> None:
    """Waits until no other process holds the file or folder; goes without where the system has no locks."""
    with contextlib.suppress(ImportError, OSError):  # Windows; some network file systems
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _mend(file: BinaryIO) -> None:
    """Makes the file end in a whole line: cuts off the fragment that a machine left when it died."""
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    fragment = content[content.rfind(b"\n") + 1 :]
    try:
        _parse(fragment)
        file.write(b"\n")  # only the end of the line was lost
    except (ValueError, DataError) as error:
        if isinstance(error, DataError) or not fragment.startswith(b"{"):  # another file, given by mistake
            raise DataError(f"{file.name} is not a result file; nothing was written to it.") from error
        file.truncate(len(content) - len(fragment))
