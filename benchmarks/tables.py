"""Tables of results in Markdown, for the README and the terminal.

One table holds one suite, data set and scenario: task-, domain- and class-incremental never share one. In a
README, all text between the two markers of a table is generated, and can be checked for being out of date.
"""

import collections
import dataclasses
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path

from benchmarks import results
from benchmarks.groups import against_suite, grouped
from benchmarks.results import Record, setting
from benchmarks.statistics import Interval
from benchmarks.summaries import TITLES, Summary, summarize
from neuroml.errors import DataError, UsageError

UNDEFINED = "–"
UNKNOWN = Interval(math.nan, math.nan, math.nan)
TRENDS = ("online_slope", "late_minus_early_tasks")  # metrics that say little of a stream of few tasks
FEWEST = 10  # tasks with which a tenth of them is one


def markdown(summaries: Iterable[Summary]) -> str:
    """Returns the summaries as Markdown, a table with its caption for each suite, data set and scenario.

    >>> from benchmarks.summaries import summarize
    >>> run = {"suite": "digits", "scenario": "class", "method": "ewc", "config_hash": "06fa", "seed": 0}
    >>> run |= {"metrics": {"accuracy": 0.5, "forgetting": None}, "bytes": 2e6, "flops": 3e9, "seconds": 1.5}
    >>> print(markdown(summarize([run])))
    | method | accuracy | forgetting | seeds | MB | GFLOP | seconds |
    |:--|--:|--:|--:|--:|--:|--:|
    | ewc | 50.0 | – | 1 | 2.00 | 3.00 | 1.50 |
    <BLANKLINE>
    *digits, class-incremental, 1 seed. Accuracy and forgetting in %: mean ± half the 95 % Student-t interval.
    MB, GFLOP and seconds of one seed.*
    """
    groups = grouped(summaries, lambda summary: (summary.suite, summary.data, summary.scenario))
    return "\n\n".join(map(_markdown_table, groups.values()))


def of(records: Iterable[Record]) -> str:
    """Returns the tables of records: labels also name settings that are not those of the suite's own file.

    Of a method with more than two configurations they name no others. Streams of fewer than 10 tasks have no columns
    for slope and last minus first tenth of the tasks.
    """
    records = [_without_trends(record) for record in records]
    of_row = {(setting(record), record["method"], record["config_hash"]): record for record in records}
    configurations = collections.Counter((about, method) for about, method, _ in of_row)
    rows = []
    for row in summarize(records):
        about = (row.suite, row.data, row.scenario)
        terse = configurations[about, row.method] > 2
        label = against_suite(row.label, of_row[about, row.method, row.config_hash], terse=terse)
        rows.append(dataclasses.replace(row, label=label))
    return markdown(rows)


def by_name(path: Path | str) -> dict[str, str]:
    """Returns {file without ending: its tables} for every result file (`*.jsonl`) in or below a folder.

    Raises:
        DataError: There is no result file, or one is corrupt.
    """
    name = lambda file: file.relative_to(path).with_suffix("").as_posix()
    return {name(file): of(results.read(file)) for file in results.files(path, below=True)}


def directory(path: Path | str) -> str:
    """Returns the same tables as one text, each under its name.

    Raises:
        DataError: There is no result file, or one is corrupt.
    """
    return "\n\n".join(f"### {name}\n\n{table}" for name, table in by_name(path).items())


def update_readme(readme: Path | str, tables: Mapping[str, str]) -> bool:
    """Puts each table between its markers, `<!-- results:NAME -->` and `<!-- /results:NAME -->`.

    Args:
        readme: A Markdown file.
        tables: The text for each NAME.

    Returns:
        Whether anything changed; if not, the file is not written.

    Raises:
        UsageError: A table has no pair of markers.
        DataError: The file cannot be read or written.
    """
    old = new = _read(readme)
    for name, table in tables.items():
        start, end = _between(new, name, readme)
        new = f"{new[:start]}\n{table.strip()}\n{new[end:]}"
    if new != old:
        results.write_text(readme, new)
    return new != old


def stale(readme: Path | str, tables: Mapping[str, str]) -> list[str]:
    """Returns the names of the tables that the file does not show as they are now.

    Raises:
        UsageError: A table has no pair of markers.
        DataError: The file cannot be read.
    """
    text = _read(readme)
    spans = {name: _between(text, name, readme) for name in tables}
    return [name for name, (start, end) in spans.items() if text[start:end].strip() != tables[name].strip()]


def _markdown_table(group: list[Summary]) -> str:
    """Returns one table and its caption."""
    header, *rows = [[cell.replace("|", r"\|") for cell in row] for row in _cells(group)]
    rule = [":--"] + ["--:"] * (len(header) - 1)
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "|".join(rule) + "|")
    return "\n".join(lines) + f"\n\n*{_caption(group)}*"


def _cells(group: list[Summary]) -> list[list[str]]:
    """Returns the header and a row for each summary."""
    unit, name = _flop_unit(group)
    columns = _columns(group)
    header = ["method", *(title for title, _ in columns.values()), "seeds", "MB", name, "seconds"]
    return [header] + [
        [
            summary.label,
            *(show(summary.metrics.get(metric, UNKNOWN)) for metric, (_, show) in columns.items()),
            _seeds(summary),
            _quantity(summary.bytes / 1e6),
            _quantity(summary.flops / unit),
            _quantity(summary.seconds),
        ]
        for summary in group
    ]


def _columns(group: list[Summary]) -> dict[str, tuple[str, Callable[[Interval], str]]]:
    """Returns which metrics a table shows: {metric: (title, how a mean is written)}."""
    known = {metric for summary in group for metric in summary.metrics}
    if "online_accuracy" in known:
        return {metric: column for metric, column in ONLINE.items() if metric in known}
    context = {"context_accuracy": ("context inferred", _per_cent)} if "context_accuracy" in known else {}
    return {"accuracy": ("accuracy", _per_cent), "forgetting": ("forgetting", _per_cent), **context}


def _caption(group: list[Summary]) -> str:
    """Returns what the numbers of a table are."""
    first = group[0]
    fewest, most = (extreme(len(summary.seeds) for summary in group) for extreme in (min, max))
    seeds = "1 seed" if most == 1 else f"{most} seeds" if fewest == most else f"{fewest}-{most} seeds"
    scenario = TITLES.get(first.scenario, first.scenario)
    about = dict.fromkeys(part for part in (first.suite, first.data, scenario, seeds) if part)
    columns, interval = _columns(group), "mean ± half the 95 % Student-t interval."
    cost = f"MB, {_flop_unit(group)[1]} and seconds of one seed."
    context = "Context inferred: test images taken for the context of their own task, in %."
    if "online_accuracy" not in columns:
        lines = [f"{', '.join(about)}. Accuracy and forgetting in %: {interval}", cost]
        return "\n".join([*lines, context] if "context_accuracy" in columns else lines)
    told = lambda texts: _listed([text for metric, text in texts.items() if metric in columns])
    vital = f" {told(VITAL_SIGNS).capitalize()} at the end." if told(VITAL_SIGNS) else ""
    lines = [f"{', '.join(about)}. {told(SHARES)} in %: {interval}{vital}", cost]
    lines += [" ".join(text for metric, text in INJURIES.items() if metric in columns)]
    return "\n".join(textwrap.fill(line, 119) for line in lines if line)


def _listed(texts: list[str]) -> str:
    """Returns `a, b and c`."""
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def _without_trends(record: Record) -> Record:
    """Returns a record without the metrics that say little where a stream has few tasks."""
    tasks = record.get("config", {}).get("protocol", {}).get("tasks", FEWEST)
    if tasks >= FEWEST or "metrics" not in record:
        return record
    return {**record, "metrics": {name: x for name, x in record["metrics"].items() if name not in TRENDS}}


def _flop_unit(group: list[Summary]) -> tuple[float, str]:
    """Returns one unit for a whole column, so that methods compare at a glance."""
    return (1e12, "TFLOP") if any(summary.flops >= 1e12 for summary in group) else (1e9, "GFLOP")


def _seeds(summary: Summary) -> str:
    """Returns how many seeds ran and, if any, how many of them diverged."""
    count, diverged = len(summary.seeds), len(summary.diverged)
    return f"{count} (diverged {diverged}/{count})" if diverged else str(count)


def _per_cent(interval: Interval) -> str:
    """Returns `mean ± half-width` in per cent, without the second where one seed gives no interval."""
    if math.isnan(interval.mean):
        return UNDEFINED
    mean = f"{100 * interval.mean:.1f}"
    mean = "0.0" if mean == "-0.0" else mean
    return mean if math.isnan(interval.low) else f"{mean} ± {100 * interval.half_width:.1f}"


def _plain(interval: Interval) -> str:
    """Returns the mean of a quantity that is no share."""
    return _quantity(interval.mean)


def _plain_interval(interval: Interval) -> str:
    """Returns `mean ± half-width` of a quantity that is no share."""
    mean = _plain(interval)
    return mean if math.isnan(interval.low) else f"{mean} ± {_quantity(interval.half_width)}"


ONLINE: dict[str, tuple[str, Callable[[Interval], str]]] = {
    "online_accuracy": ("online accuracy", _per_cent),
    "injury_loss": ("lost", _per_cent),
    "recovery_steps": ("steps to recover", _plain_interval),
    "early_accuracy": ("first 250 steps", _per_cent),
    "online_slope": ("slope", _per_cent),
    "late_minus_early_tasks": ("last - first tasks", _per_cent),
    "accuracy": ("at the end", _per_cent),
    "forgetting": ("forgetting", _per_cent),
    "dead_units": ("dead units", _per_cent),
    "dormant_units": ("dormant units", _per_cent),
    "effective_rank": ("rank", _plain),
    "weight_size": ("weights", _plain),
}
# What a caption says of the columns that a table has.
SHARES = {
    "online_accuracy": "Online accuracy (on each batch before it is learnt)",
    "early_accuracy": "the same in the first 250 steps of a task",
    "online_slope": "its slope in points per 100 tasks",
    "late_minus_early_tasks": "last minus first tenth of the tasks",
    "accuracy": "accuracy of all tasks at the end",
    "forgetting": "forgetting",
}
VITAL_SIGNS = {
    "dead_units": "dead units in %",
    "dormant_units": "dormant units in %",
    "effective_rank": "effective rank of the last layer",
    "weight_size": "root mean square of all weights",
}
INJURIES = {
    "injury_loss": "Lost: online accuracy of the 200 steps before the injury minus that of the 10 after it, in %.",
    "recovery_steps": "Steps to recover: until the mean of 10 steps is 95 % of what it was, at least 10; of the seeds "
    "that recover within the task.",
}


def _quantity(number: float) -> str:
    """Returns three significant digits without an exponent."""
    return UNDEFINED if math.isnan(number) else f"{Decimal(f'{number:#.3g}'):f}"


def _between(text: str, name: str, readme: Path | str) -> tuple[int, int]:
    """Returns where the text between the markers of a table begins and ends."""
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    found = re.search(f"{re.escape(begin)}(.*?){re.escape(end)}", text, re.DOTALL)
    if not found:
        raise UsageError(f"{readme} has no place for table {name!r}: add the lines {begin} and {end}.")
    return found.span(1)


def _read(readme: Path | str) -> str:
    """Returns the text of a Markdown file."""
    try:
        return Path(readme).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {readme} ({error.strerror}).") from error
