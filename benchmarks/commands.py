"""What the commands do. Each imports what it needs when it runs."""

import contextlib
import dataclasses
import functools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cli, suite
from neuroml.errors import DataError, UsageError


@functools.singledispatch
def execute(command: Any) -> int:
    """Carries out a command of `benchmarks.cli` and returns the exit status."""
    raise TypeError(type(command))


@execute.register
def _list(command: cli.List) -> int:
    from neuroml.methods import methods

    print("Suites (python -m benchmarks run NAME)\n")
    for name in suite.names():
        one = suite.load(name)
        print(f"  {name:22} {one.summary}\n{'':25}scenarios {', '.join(one.scenarios)}; {', '.join(one.methods)}")
    print("\nMethods (--methods a,b --set method.name=value)\n")
    for name, method in methods.items():
        settings = {**method.hyperparameters, **method.options}
        print(f"  {name:22} {method.summary}")
        if settings:
            print(f"{'':25}{', '.join(f'{key}={value}' for key, value in settings.items())}")
    return 0


@execute.register
def _run(command: cli.Run) -> int:
    from benchmarks import results, summaries, tables
    from benchmarks.jobs import name_of

    prepare_jax()
    jobs, usual = _jobs(command)
    check_writable(command.out)
    seeds = _seeds(command.seeds, jobs[0].suite.seeds)
    data = load_data(jobs[0].suite.data, command.data_dir)
    records = _run_jobs(jobs, data, seeds, command, usual)
    by_scenario = {job.scenario: [] for job in jobs}
    for record in records:
        by_scenario[record["scenario"]].append(record)
    if command.json:
        objects = {s: summaries.to_json(jobs[0].suite.name, s, rows) for s, rows in by_scenario.items()}
        one = next(iter(objects.values())) if len(objects) == 1 else {"suite": jobs[0].suite.name, "scenarios": objects}
        print(json.dumps(one, allow_nan=False))
    else:
        print(tables.markdown(summaries.summarize(records)))
    name = name_of(jobs[0], usual)
    files = [path for path in results.files(command.out) if _names(path)[0] == name]
    plots = _draw(_held(files)[name], command.out, name)  # also what earlier commands ran
    print(f"results and {plots} are in {command.out}/", file=sys.stderr)
    return 1 if all(record["diverged"] for record in records) else 0


@execute.register
def _tune(command: cli.Tune) -> int:
    from benchmarks import tuning

    prepare_jax()
    one = _cut(suite.load(command.suite), command.tasks)
    scenarios = (command.scenario,) if command.scenario else one.scenarios
    names = list(one.grids) if command.methods is None else _listed(command.methods)
    check_writable(command.out)
    data = load_data(one.data, command.data_dir).held_out()
    print(tuning.tune(one, names, scenarios, data, len(_seeds(command.seeds, 0)), command.out))
    return 0


def _tasks_of(one: suite.Suite, steps: int | None) -> int | None:
    """Returns how many tasks, begun ones whole, so many steps are."""
    if steps is None:
        return None
    if steps < 1:
        raise UsageError(f"--steps {steps}: at least one step is needed.")
    each = one.iterations or -(-(one.epochs or 1) * (one.examples or 0) // one.batch_size)
    if not each:
        raise UsageError(f"{one.name} does not say how many examples a task has, so --steps cannot cut it.")
    return min(one.tasks, -(-steps // each))


def _cut(one: suite.Suite, tasks: int | None) -> suite.Suite:
    """Returns the suite with its first tasks only."""
    if tasks is None:
        return one
    if one.stream == "split":
        raise UsageError(f"{one.name} splits its classes among its tasks: fewer tasks would be other tasks.")
    if not 1 <= tasks <= one.tasks:
        raise UsageError(f"{one.name} has {one.tasks} tasks, of which the first {tasks} cannot be taken.")
    return dataclasses.replace(one, tasks=tasks)


@execute.register
def _table(command: cli.Table) -> int:
    from benchmarks import tables

    text = tables.directory(command.directory)
    print(text)
    if command.readme:
        changed = tables.update_readme(command.readme, tables.by_name(command.directory))
        print(f"{command.readme} {'updated' if changed else 'was up to date'}", file=sys.stderr)
    return 0


@execute.register
def _plot(command: cli.Plot) -> int:
    from benchmarks import results

    held = _held(results.files(command.directory))
    for name, by_scenario in (held if command.methods is None else _only(held, command.methods)).items():
        print(f"{name}: {_draw(by_scenario, command.directory, name)}", file=sys.stderr)
    return 0


def _only(held: dict[str, dict[str, list]], methods: str) -> dict[str, dict[str, list]]:
    """Returns the records of some methods, named with commas between, and no file that has none of them."""
    from neuroml.errors import unknown

    wanted = _listed(methods)
    known = {record["method"] for files in held.values() for records in files.values() for record in records}
    for name in wanted:
        if name not in known:
            raise unknown("method with results here", name, sorted(known))
    chosen = {
        name: {
            scenario: some
            for scenario, records in files.items()
            if (some := [record for record in records if record["method"] in wanted])
        }
        for name, files in held.items()
    }
    return {name: files for name, files in chosen.items() if files}


@execute.register
def _data(command: cli.Data) -> int:
    from benchmarks.data import import_originals

    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"  # as `run` looks for them
    target = (command.data_dir or Path(default)).expanduser()
    for name in import_originals(command.source, target, command.name):
        print(f"{name} is ready in {target}")
    return 0


def _jobs(command: cli.Run) -> tuple[list[Any], str]:
    """Returns the jobs that a command asks for, and the suite's own data set."""
    from benchmarks.jobs import jobs_of, recipes
    from neuroml.errors import unknown
    from neuroml.streams.sources import SOURCES

    one = suite.load(command.suite)
    usual = one.data
    names = list(one.methods) if command.methods is None else _listed(command.methods)
    methods = recipes(names)
    if command.data:
        if command.data not in SOURCES:
            raise unknown("data set", command.data, SOURCES)
        one = dataclasses.replace(one, data=command.data)
    settings = dict(suite.parse_setting(text) for text in command.set)
    one = suite.change(one, settings, methods)
    one = _cut(one, _tasks_of(one, command.steps))
    chosen = [command.scenario] if command.scenario else one.scenarios
    return jobs_of(one, names, chosen, asked=command.methods is not None), usual


def _listed(methods: str) -> list[str]:
    """Returns the names in a list with commas between; whether they exist is for the command to say."""
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--methods {methods} names {name!r} more than once.")
    return names


def _run_jobs(jobs: list[Any], data: Any, seeds: list[int], command: cli.Run, usual: str) -> list[dict[str, Any]]:
    """Runs the jobs under a progress bar; returns the newest records of the configurations and seeds asked for."""
    from benchmarks import logging, results, runner, summaries
    from benchmarks.jobs import file_of

    sink = logging.sink(command.wandb)
    found = []
    with _progress(jobs, len(seeds)) as advance:
        for job in jobs:
            path = file_of(command.out, job, usual)
            report = functools.partial(advance, job)
            for record in runner.run_job(job, data, seeds, path, report, fresh=command.fresh):
                sink(record)
            wanted = {(results.config_hash(job.config), job.name, seed) for seed in seeds}
            kept = [r for r in results.latest(results.read(path)) if results.identity(r) in wanted]
            found.extend(kept)
            summaries.write_csv(path.with_suffix(".csv"), summaries.summarize(results.latest(results.read(path))))
    _tell_of_old_code(found)
    return found


def _progress(jobs: list[Any], seeds: int) -> Any:
    """Returns a context whose value, `advance(job, runs)`, moves a bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    @contextlib.contextmanager
    def bars():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=len(jobs) * seeds)

            def advance(job, runs):
                progress.update(bar, advance=runs, description=f"{job.scenario:6} {job.name}")

            yield advance

    return bars()


def _draw(by_scenario: dict[str, list], out: Path, name: str) -> str:
    from benchmarks import inside, online_plots, plots

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


def _tell_of_old_code(records: list[dict[str, Any]]) -> None:
    revisions = {record["git"]["revision"] for record in records}
    if len(revisions) > 1:
        print(
            f"these results come from {len(revisions)} revisions of the code; --fresh runs all of them anew.",
            file=sys.stderr,
        )
    if changed := sum(bool(record["git"].get("dirty")) for record in records):
        print(f"{changed} of these results come from source that was changed and not committed.", file=sys.stderr)


def _seeds(given: int | None, usual: int) -> list[int]:
    number = usual if given is None else given
    if number < 1:
        raise UsageError(f"--seeds {number}: at least one seed is needed.")
    return list(range(number))


def load_data(name: str, data_dir: Path | None) -> Any:
    """Returns a data set of TFDS, or the embedded digits, by name."""
    from neuroml.streams.sources import load

    return load(name, data_dir)


def check_writable(folder: Path) -> None:
    """Raises before the work is done, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # a name of its own: others may begin in this folder too
    except OSError as why:
        raise DataError(f"cannot write to {folder}: {why.strerror}. Choose another folder with --out.") from None


def _names(path: Path) -> tuple[str, str]:
    """Returns the name and the scenario of a result file."""
    name, _, scenario = path.stem.rpartition(".")
    return name, scenario


def _held(files: list[Path]) -> dict[str, dict[str, list]]:
    """Returns the records that result files hold, by name and scenario."""
    from benchmarks import results

    suites: dict[str, dict[str, list]] = {}
    for path in files:
        name, scenario = _names(path)
        suites.setdefault(name, {})[scenario] = results.latest(results.read(path))
    return suites


def prepare_jax() -> None:
    """Makes every CPU core a device, so that seeds run side by side, and keeps compiled programs between runs."""
    import jax
    import platformdirs

    from benchmarks.environment import usable_cores

    with contextlib.suppress(RuntimeError):  # JAX runs already, in a notebook say: its devices stay as they are
        jax.config.update("jax_num_cpu_devices", usable_cores())
    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        jax.config.update("jax_compilation_cache_dir", str(Path(platformdirs.user_cache_dir("neuroml")) / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
