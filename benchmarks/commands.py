"""What the commands do. Each imports what it needs when it runs."""

import dataclasses
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import cli, suite
from benchmarks.environment import check_writable, prepare_jax
from neuroml.errors import UsageError


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
    from benchmarks import pictures, progress, results, summaries, tables
    from benchmarks.jobs import name_of
    from neuroml.streams import sources

    prepare_jax()
    jobs, usual = _jobs(command)
    check_writable(command.out)
    seeds = _seeds(command.seeds, jobs[0].suite.seeds)
    data = sources.load(jobs[0].suite.data, command.data_dir)
    records = progress.run_jobs(jobs, data, seeds, command.out, usual, fresh=command.fresh, wandb=command.wandb)
    by_scenario = {job.scenario: [] for job in jobs}
    for record in records:
        by_scenario[record["scenario"]].append(record)
    if command.json:
        objects = {s: summaries.to_json(jobs[0].suite.name, s, rows) for s, rows in by_scenario.items()}
        one = next(iter(objects.values())) if len(objects) == 1 else {"suite": jobs[0].suite.name, "scenarios": objects}
        print(json.dumps(one, allow_nan=False))
    else:
        print(tables.of(records))
    name = name_of(jobs[0], usual)
    files = [path for path in results.files(command.out) if pictures.names_of(path)[0] == name]
    plots = pictures.draw(pictures.held(files)[name], command.out, name)  # also what earlier commands ran
    print(f"results and {plots} are in {command.out}/", file=sys.stderr)
    return 1 if all(record["diverged"] for record in records) else 0


@execute.register
def _tune(command: cli.Tune) -> int:
    from benchmarks import tuning
    from neuroml.streams import sources

    prepare_jax()
    one = _cut(suite.load(command.suite), command.tasks)
    scenarios = (command.scenario,) if command.scenario else one.scenarios
    names = list(one.grids) if command.methods is None else _listed(command.methods)
    check_writable(command.out)
    data = sources.load(one.data, command.data_dir).held_out()
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
    from benchmarks import pictures, results

    held = pictures.held(results.files(command.directory))
    if command.methods is not None:
        held = pictures.only(held, _listed(command.methods))
    for name, by_scenario in held.items():
        print(f"{name}: {pictures.draw(by_scenario, command.directory, name)}", file=sys.stderr)
    return 0


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


def _seeds(given: int | None, usual: int) -> list[int]:
    number = usual if given is None else given
    if number < 1:
        raise UsageError(f"--seeds {number}: at least one seed is needed.")
    return list(range(number))
