"""Which pictures a folder of results has: those of each suite, of all records that its files hold."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import inside, online_plots, plots, results
from benchmarks.results import Record
from neuroml.errors import unknown

Held = dict[str, list[Record]]  # what the files of one name hold, by scenario


def held(files: Iterable[Path]) -> dict[str, Held]:
    """Returns the records that result files hold, by name and scenario."""
    suites: dict[str, Held] = {}
    for path in files:
        name, scenario = names_of(path)
        suites.setdefault(name, {})[scenario] = results.latest(results.read(path))
    return suites


def names_of(path: Path) -> tuple[str, str]:
    """Returns the name and the scenario of a result file."""
    name, _, scenario = path.stem.rpartition(".")
    return name, scenario


def only(found: dict[str, Held], methods: Sequence[str]) -> dict[str, Held]:
    """Returns the records of some methods, and no file that has none of them."""
    known = {record["method"] for files in found.values() for records in files.values() for record in records}
    for name in methods:
        if name not in known:
            raise unknown("method with results here", name, sorted(known))
    chosen = {
        name: {
            scenario: some
            for scenario, records in files.items()
            if (some := [record for record in records if record["method"] in methods])
        }
        for name, files in found.items()
    }
    return {name: files for name, files in chosen.items() if files}


def draw(by_scenario: Held, out: Path, name: str) -> str:
    """Draws what the files of one name hold into a folder; returns the name of the first picture."""
    overview = out / f"{name}.png"
    online = all(online_plots.is_online(records) for records in by_scenario.values())
    (online_plots.online_accuracy if online else plots.accuracy_over_tasks)(by_scenario, overview)
    for scenario, records in by_scenario.items():
        sequential = [record for record in records if len(record["accuracy"]) > 1]
        if sequential and not online:
            plots.per_task(sequential, out / f"{name}.{scenario}.tasks.png")
        if sequential:
            inside.reports(sequential, out / f"{name}.{scenario}.inside.png")
    return overview.name
