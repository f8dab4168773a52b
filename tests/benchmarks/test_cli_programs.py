"""The command line as a program of its own: what it loads, and that it answers as a call in this process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import commandline
import jax
import numpy as np
import pytest
from commandline import SMALL, by_run

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("cli")

run = pytest.fixture(commandline.run)

ROOT = Path(__file__).parents[2]


def subprogram(*arguments, **environment):
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **cache, **environment},
    )


def test_help_answers_without_jax():
    program = "import sys\nfrom benchmarks.cli import main\ntry: main(['{}', '--help'])\nexcept SystemExit: pass\n"
    report = "print([m for m in ('jax', 'flax', 'optax', 'numpy', 'wandb', 'matplotlib') if m in sys.modules])"
    for command in ("run", "table"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(command) + report],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "[]"
        assert f"usage: python -m benchmarks {command}" in done.stdout
    done = subprogram("--help")
    assert done.returncode == 0 and not done.stderr
    assert all(f" {command} " in done.stdout for command in ("list", "run", "tune", "table", "plot", "data"))


def test_a_program_of_its_own_gives_the_same_results(run, tmp_path):
    # There every CPU core is a device, and seeds run side by side.
    done = subprogram(*SMALL, "--methods", "naive,si", "--seeds", 2, "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found, wanted = by_run(tmp_path), by_run(run.folder)
    assert set(found) == {("naive", 0), ("naive", 1), ("si", 0), ("si", 1)}
    for name, entry in found.items():
        np.testing.assert_allclose(entry["loss_curve"], wanted[name]["loss_curve"], rtol=1e-3)
        np.testing.assert_allclose(entry["accuracy"], wanted[name]["accuracy"], atol=0.05)
    mean = json.loads(line)["methods"]["naive"]["accuracy"]["mean"]
    np.testing.assert_allclose(mean, run.json["methods"]["naive"]["accuracy"]["mean"], atol=0.02)
    assert "split_digits.png" in done.stderr


def test_a_mistake_in_a_program_of_its_own(tmp_path):
    done = subprogram("run", "split_digit", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown suite 'split_digit'") and done.stderr.count("\n") == 1


def test_a_reader_that_has_read_enough_is_no_error():
    program = [sys.executable, "-m", "benchmarks", "list"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
