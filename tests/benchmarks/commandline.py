"""Commands that are carried out in this process, what they print, and what they write."""

import contextlib
import functools
import io
import json
from pathlib import Path
from typing import NamedTuple

from benchmarks import cli, results

# Two steps a task on a tiny network: each method of each run below compiles this and nothing larger.
SMALL = (
    "run",
    "split_digits",
    "--scenario",
    "class",
    "--set",
    "iterations=2",
    "--set",
    "hidden=8",
    "--set",
    "samples=9",
)
METHODS = ("naive", "joint", "si", "er")


class Done(NamedTuple):
    """A command that was carried out in this process, and what it printed."""

    status: int
    out: str
    err: str
    folder: Path | None

    @property
    def json(self):
        return json.loads(self.out.splitlines()[-1])


def command(*arguments, out=None):
    """Carries out a command, also where the parser itself ends the program."""
    arguments = [str(argument) for argument in (*arguments, *(("--out", out) if out else ()))]
    with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            status = cli.main(arguments)
        except SystemExit as end:
            status = end.code
    return Done(status, stdout.getvalue(), stderr.getvalue(), out)


@functools.cache
def four_methods(folder):
    """Four methods, two seeds."""
    return command(*SMALL, "--methods", ",".join(METHODS), "--seeds", 2, "--json", out=folder)


# Files that use the next two make fixtures of them: pytest, which looks for doctests, cannot collect two conftest.py.
def run(tmp_path_factory):
    """What four methods and two seeds gave: carried out once in a process, whichever file asks first."""
    return four_methods(tmp_path_factory.getbasetemp() / "run")


def copy(run, tmp_path):
    """A result folder of one's own, as the run left it."""
    (tmp_path / "split_digits.class.jsonl").write_bytes((run.folder / "split_digits.class.jsonl").read_bytes())
    return tmp_path


def records(folder, name="split_digits.class"):
    return results.read(folder / f"{name}.jsonl")


def by_run(folder):
    """{(method, seed): what a run found, all that does not depend on the clock}."""
    keys = ("accuracy", "loss_curve", "online_accuracy_curve", "metrics", "bytes", "flops", "config_hash")
    return {(r["method"], r["seed"]): {key: r[key] for key in keys} for r in results.latest(records(folder))}


def assert_one_line(run, *words):
    assert run.status == 2
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert run.err.rstrip().endswith(line) and "Traceback" not in run.err
    for word in words:
        assert word in line, line
    assert not run.out
