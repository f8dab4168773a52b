"""Means over the seeds of result records, for tables, CSV files and other programs."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Record, latest, plain, setting, write_text
from benchmarks.statistics import Interval, mean_interval
from neuroml.errors import UsageError

Flat = dict[tuple[str, ...], Any]  # a configuration: {the names that lead to an entry: the entry}
TITLES = {name: f"{name}-incremental" for name in ("task", "domain", "class")}  # of scenarios, in tables and plots


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


def metric(record: Record, name: str) -> float | None:
    """Returns a metric of one seed; None where it is undefined or the run diverged, whatever was recorded."""
    return None if record.get("diverged") else record.get("metrics", {}).get(name)


def by_setting(records: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Splits records by (suite, data, scenario), which never share a table."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault(setting(record), []).append(record)
    return groups


def by_label(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Splits the records of one setting by method and configuration: the newest of each seed, in order.

    The label is the method and, if it has several configurations, what differs: `ewc (strength=10)`. A setting that a
    configuration leaves out, as it is younger and off, is named with its value if others of the method name theirs.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in latest(records):
        groups.setdefault((record["method"], record["config_hash"]), []).append(record)
    configs = _completed({key: dict(_flat(group[0].get("config", {}))) for key, group in groups.items()})
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
    return [_summary(label, group) for some in by_setting(records).values() for label, group in by_label(some).items()]


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
    return plain({"suite": suite, "scenario": scenario, "seeds": seeds, "methods": methods})


def _completed(configs: Mapping[tuple[str, str], Flat]) -> dict[tuple[str, str], Flat]:
    """Returns each configuration with what it leaves out and another one of its method names, in one order for all."""
    whole = {}
    for (method, digest), config in configs.items():
        paths = dict.fromkeys(itertools.chain(*(rival for (name, _), rival in configs.items() if name == method)))
        full = config if len(config) == len(paths) else {**_young(method), **config}
        whole[method, digest] = {path: full[path] for path in paths if path in full}
    return whole


def _young(method: str) -> Flat:
    """Returns the settings of a method that a result names only where they differ from these values."""
    from neuroml.methods import methods  # imports JAX, which most tables can do without

    return dict(_flat({"hyperparameters": methods[method].young})) if method in methods else {}


def _summary(label: str, group: list[Record]) -> Summary:
    """Returns the means over the seeds of one method and configuration."""
    names = dict.fromkeys(name for record in group for name in record.get("metrics", {}))
    return Summary(
        *setting(group[0]),
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
    online = ("online_accuracy",) if "online_accuracy" in summary.metrics else ()
    for name in ("accuracy", "forgetting", *online):
        values = [metric(runs[seed], name) if seed in runs else None for seed in seeds]
        mean, low, high = mean_interval(values)
        entry[name] = {"mean": mean, "ci95": [low, high], "per_seed": values}
    costs = {"bytes": summary.bytes, "flops": summary.flops, "seconds": summary.seconds}
    return entry | costs | {"diverged": list(summary.diverged)}


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
