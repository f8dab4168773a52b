"""Means over the seeds of result records, for tables, CSV files and other programs."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.groups import by_label, grouped
from benchmarks.results import Record, plain, setting, write_text
from benchmarks.statistics import Interval, mean_interval
from neuroml.errors import UsageError

TITLES = {name: f"{name}-incremental" for name in ("task", "domain", "class")}  # of scenarios, in tables and plots

# Vital signs at the end of the stream, by their titles in a report.
VITALS = {
    "dead units": "dead_units",
    "dormant units": "dormant_units",
    "effective rank": "effective_rank",
    "weight size": "weight_size",
}


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


def vital_signs(report: Mapping[str, Any]) -> dict[str, float]:
    """Returns the vital signs at the end of a run; records older than one of them have it in their report alone."""
    return {name: report[title][-1] for title, name in VITALS.items() if title in report}


def metric(record: Record, name: str) -> float | None:
    """Returns a metric of one seed; None where it is undefined or the run diverged, whatever was recorded."""
    return None if record.get("diverged") else _metrics(record).get(name)


def _metrics(record: Record) -> dict[str, Any]:
    """Returns all metrics of one seed."""
    return {**record.get("metrics", {}), **vital_signs(record.get("report", {}))}


def summarize(records: Iterable[Record]) -> list[Summary]:
    """Returns a summary for each setting, method and configuration, over the newest record of each seed."""
    settings = grouped(records, setting).values()
    return [_summary(label, group) for some in settings for label, group in by_label(some).items()]


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


def _summary(label: str, group: list[Record]) -> Summary:
    """Returns the means over the seeds of one method and configuration."""
    names = dict.fromkeys(name for record in group for name in _metrics(record))
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
