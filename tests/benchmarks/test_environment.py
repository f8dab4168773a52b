"""What a record says of the machine and of the source that made it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import environment, results


def git(folder, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_git_state_follows_the_source_and_not_the_results(tmp_path):
    git(tmp_path, "init")
    assert environment.git_state(tmp_path) == {"revision": None, "dirty": False}  # no commit yet
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "a.jsonl").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "a.jsonl").write_text("{}\n")
    folder = tmp_path / "inner"
    folder.mkdir()
    clean = environment.git_state(folder)
    assert len(clean["revision"]) == 40 and clean["dirty"] is False
    (tmp_path / "b.py").write_text("")  # source that no revision holds, outside `folder`
    assert environment.git_state(folder) == {"revision": clean["revision"], "dirty": True}


def test_git_state_never_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    nothing = {"revision": None, "dirty": None}
    assert environment.git_state(tmp_path) == environment.git_state(tmp_path / "missing") == nothing
    monkeypatch.setenv("PATH", "")
    assert environment.git_state(Path(results.__file__).parent) == nothing


def test_environment_is_complete_and_strict_json():
    found = environment.environment()
    json.dumps(found, allow_nan=False)
    assert set(found) == {"git", "versions", "device"}
    assert set(found["versions"]) == {"python", "neuroml", "jax", "jaxlib", "flax", "optax", "numpy"}
    assert found["versions"]["numpy"] == np.__version__
    assert found["device"]["count"] >= 1 and found["device"]["cpu_cores"] >= 1


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setitem(environment.PACKAGES, "neuroml", "no-such-distribution")
    assert environment.environment()["versions"]["neuroml"] is None


def test_reading_results_does_not_import_jax():
    code = (
        "import sys, benchmarks.environment as e, benchmarks.results\n"
        "e.git_state(e.Path('.')); sys.exit('jax' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
