"""Result files, a line of JSON for each method and seed, and the means that are taken from them.

A file only grows, so that an interrupted run goes on where it stopped; of two lines for one configuration,
method and seed the later one counts. A configuration holds all that a run depends on, suite, data and
scenario included. Accuracies are fractions. What is not defined (NaN) is `null`, strict JSON.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.statistics import Interval, mean_interval
from neuroml.errors import DataError, UsageError

Record = dict[str, Any]
IDENTITY = ("config_hash", "method", "seed")
TITLES = {
    name: f"{name}-incremental" for name in ("task", "domain", "class")
}  # of scenarios, in tables and plots
PACKAGES = {"neuroml": "neuroml-jax"} | {name: name for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


@dataclass(frozen=True)
class Summary:
    """One method under one configuration: means over its seeds, and what they cost."""

    suite: str
    data: str
    scenario: str
    method: str
    config_hash: str
    label: str  # the method, with the entries that tell it from its other configurations
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]  # those of the seeds that are in no mean of a metric
    metrics: dict[str, Interval]
    bytes: float  # the most of any seed
    flops: float  # mean over all seeds, as seconds
    seconds: float


# --- the file ------------------------------------------------------------------------------------------


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
        raise DataError(
            f"cannot read {path} ({error.strerror}): run the benchmark that writes it first."
        ) from error
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


def finished(path: Path | str) -> set[tuple[str, str, int]]:
    """Returns each (config_hash, method, seed) that need not run again; none when there is no file yet.

    A seed that diverged is finished: it would diverge again.
    """
    return {identity(record) for record in read(path)} if Path(path).exists() else set()


def write_text(path: Path | str, text: str) -> None:
    """Replaces a text file whole or not at all.

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with _writing(path):
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)


# --- what a record says --------------------------------------------------------------------------------


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
        raise UsageError(
            f"a configuration must be finite, plain JSON ({error}). None can say 'no limit'."
        ) from error
    canonical = json.dumps(json.loads(text, parse_float=_number), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def environment() -> Record:
    """Returns what a number depends on besides its configuration: source, versions, device. Imports jax."""
    import jax

    devices = jax.devices()
    usable = getattr(os, "sched_getaffinity", None)  # Linux: the cores this process may use
    versions = {name: _version(package) for name, package in PACKAGES.items()}
    return {
        "git": git_state(Path(__file__).parent),
        "versions": {"python": platform.python_version()} | versions,
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "machine": platform.machine(),
            "cpu_cores": len(usable(0)) if usable else os.cpu_count(),
        },
    }


def git_state(folder: Path) -> Record:
    """Returns the revision of the checkout around `folder`, and whether its Python source differs from it.

    Both are None outside a checkout or without git. Result files are no source: runs do not make it dirty.
    """
    source = (":(top)*.py", ":(top)*.toml")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *source)
    return {
        "revision": _git(folder, "rev-parse", "--verify", "--quiet", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def metric(record: Record, name: str) -> float | None:
    """Returns a metric of one seed; None where it is undefined or the run diverged, whatever was recorded."""
    return None if record.get("diverged") else record.get("metrics", {}).get(name)


# --- means over seeds ----------------------------------------------------------------------------------


def latest(records: Iterable[Record]) -> list[Record]:
    """Returns the last record of each (config_hash, method, seed), in the order of their first."""
    return list({(_setting(record), identity(record)): record for record in records}.values())


def by_setting(records: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Splits records by (suite, data, scenario), which never share a table."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault(_setting(record), []).append(record)
    return groups


def by_label(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Splits the records of one setting by method and configuration: the newest of each seed, in order.

    The label is the method and, if it has several configurations, what differs: `ewc (strength=10)`.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in latest(records):
        groups.setdefault((record["method"], record["config_hash"]), []).append(record)
    configs = {key: dict(_flat(group[0].get("config", {}))) for key, group in groups.items()}
    labels: dict[str, list[Record]] = {}
    for (method, digest), group in groups.items():
        rivals = [config for (rival, _), config in configs.items() if rival == method]
        settings = ", ".join(
            _named(path, entry)
            for path, entry in configs[method, digest].items()
            if any(rival.get(path) != entry for rival in rivals)
        )
        label = f"{method} ({settings})" if settings else method
        label = f"{method} ({digest})" if label in labels else label
        labels[label] = sorted(group, key=lambda record: record["seed"])
    return labels


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Returns a summary for each setting, method and configuration, over the newest record of each seed."""
    return [
        _summary(label, group)
        for some in by_setting(records).values()
        for label, group in by_label(some).items()
    ]


def write_csv(path: Path | str, summaries: Iterable[Summary]) -> None:
    """Writes a line for each summary, undefined values empty; replaces the file whole or not at all.

    Raises:
        DataError: The file cannot be written.
    """
    rows = [_row(summary) for summary in summaries]
    columns = dict.fromkeys(name for row in rows for name in row)  # the union: metrics differ between methods
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def to_json(suite: str, scenario: str, records: Iterable[Record]) -> Record:
    """Returns the results of one suite and scenario as strict JSON for other programs.

    `per_seed` has an entry for each of `seeds`, in their order: null where a method diverged or did not run.

    Raises:
        UsageError: There are records, but none of this suite and scenario.
    """
    records = list(records)
    chosen = [run for run in records if (run.get("suite"), run.get("scenario")) == (suite, scenario)]
    if records and not chosen:
        known = sorted({f"{run.get('suite')} {run.get('scenario')}" for run in records})
        raise UsageError(f"there are no results of {suite} {scenario}, but of: {', '.join(known)}.")
    seeds = sorted({record["seed"] for record in chosen})
    methods = {label: _method_json(seeds, group) for label, group in by_label(chosen).items()}
    return _plain({"suite": suite, "scenario": scenario, "seeds": seeds, "methods": methods})


# --- helpers -------------------------------------------------------------------------------------------


def _summary(label: str, group: list[Record]) -> Summary:
    """Returns the means over the seeds of one method and configuration."""
    names = dict.fromkeys(name for record in group for name in record.get("metrics", {}))
    return Summary(
        *_setting(group[0]),
        method=group[0]["method"],
        config_hash=group[0]["config_hash"],
        label=label,
        seeds=tuple(record["seed"] for record in group),
        diverged=tuple(record["seed"] for record in group if record.get("diverged")),
        metrics={name: mean_interval(metric(record, name) for record in group) for name in names},
        bytes=max((record["bytes"] for record in group if record.get("bytes") is not None), default=math.nan),
        flops=mean_interval(record.get("flops") for record in group).mean,
        seconds=mean_interval(record.get("seconds") for record in group).mean,
    )


def _row(summary: Summary) -> dict[str, Any]:
    """Returns the cells of a summary by column."""
    texts = ("suite", "data", "scenario", "method", "config_hash", "label")
    ends = {f"{name}_{end}": x for name, ends in summary.metrics.items() for end, x in ends._asdict().items()}
    costs = {name: getattr(summary, name) for name in ("bytes", "flops", "seconds")}
    return (
        {name: getattr(summary, name) for name in texts}
        | {"seeds": len(summary.seeds), "diverged": len(summary.diverged)}
        | {name: "" if math.isnan(x) else f"{x:.6g}" for name, x in (costs | ends).items()}
    )


def _method_json(seeds: list[int], group: list[Record]) -> Record:
    """Returns the entry of one method in `to_json`."""
    summary = _summary("", group)
    runs = {record["seed"]: record for record in group}
    entry: Record = {}
    for name in ("accuracy", "forgetting"):
        values = [metric(runs[seed], name) if seed in runs else None for seed in seeds]
        mean, low, high = mean_interval(values)
        entry[name] = {"mean": mean, "ci95": [low, high], "per_seed": values}
    costs = {"bytes": summary.bytes, "flops": summary.flops, "seconds": summary.seconds}
    return entry | costs | {"diverged": list(summary.diverged)}


def identity(record: Record) -> tuple[str, str, int]:
    """Returns what tells a run from any other."""
    return record["config_hash"], record["method"], record["seed"]


def _setting(record: Record) -> tuple[str, str, str]:
    """Returns what a table is about."""
    return record.get("suite", ""), record.get("data", ""), record.get("scenario", "")


def _flat(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each entry with the names that lead to it."""
    for name, entry in config.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, (*path, name))
        else:
            yield (*path, name), entry


def _named(path: tuple[str, ...], entry: Any) -> str:
    """Returns name=value, without the heading ("protocol", "hyperparameters") that the entry stands under."""
    name = ".".join(path[1:] or path)
    return f"{name}={entry:g}" if isinstance(entry, float) else f"{name}={entry}"


def _plain(entry: Any) -> Any:
    """Returns lists and Python numbers in place of arrays and tuples, None in place of NaN and infinities."""
    if isinstance(entry, Mapping):
        return {str(name): _plain(inner) for name, inner in entry.items()}
    if isinstance(entry, list | tuple):
        return [_plain(inner) for inner in entry]
    if hasattr(entry, "tolist"):
        return _plain(entry.tolist())
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


def _number(digits: str) -> int | float:
    """Returns a number as JSON's text gave it, whole ones as int."""
    number = float(digits)
    return int(number) if number.is_integer() else number


def _line(record: Record) -> bytes:
    """Returns the record as a line of strict JSON."""
    if any(name not in record for name in IDENTITY):
        raise UsageError(f"a result needs {', '.join(IDENTITY)}; this one has {', '.join(record)}.")
    return json.dumps(_plain(record), allow_nan=False).encode() + b"\n"


def _parse(line: bytes) -> Record:
    """Returns the record of a line, or raises ValueError for what is not JSON, DataError for other JSON."""
    record = json.loads(line.decode())
    if not isinstance(record, dict) or any(name not in record for name in IDENTITY):
        raise DataError(f"it needs {', '.join(IDENTITY)}")
    return record


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


def _lock(file: BinaryIO) -> None:
    """Waits until no other process writes to the file; goes without where the system has no locks."""
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


def _version(package: str) -> str | None:
    """Returns the version of an installed package without importing it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns what git says, None if it fails or is missing."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.strip()
    return None
