import csv
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import environment, groups, results, summaries
from neuroml.errors import DataError, UsageError


def record(method="ewc", seed=0, accuracy=0.75, forgetting=0.25, config=None, scenario="class", **other):
    config = {"protocol": {"scenario": scenario}, "hyperparameters": {}} if config is None else config
    return {
        "suite": "split_mnist",
        "data": "mnist",
        "scenario": scenario,
        "method": method,
        "seed": seed,
        "config": config,
        "config_hash": results.config_hash(config),
        "diverged": None,
        "metrics": {"accuracy": accuracy, "forgetting": forgetting},
        "bytes": 1000,
        "flops": 2e9,
        "seconds": 3.0,
        **other,
    }


def strength(number):
    return {"protocol": {"steps": 5}, "hyperparameters": {"strength": number, "decay": 1.0}}


# --- config_hash -----------------------------------------------------------------------------------


def test_config_hash_never_changes():
    # Files of last year must still be recognised: if this fails, every finished run would run again.
    config = {
        "protocol": {"steps": 500, "scenario": "class"},
        "hyperparameters": {"strength": 0.1, "decay": None},
    }
    assert results.config_hash(config) == "f9fb0c56a8b0"


def test_config_hash_is_about_values():
    hashed = results.config_hash
    assert hashed({"a": 1, "b": {"c": (1, 2)}}) == hashed({"b": {"c": [1, 2.0]}, "a": 1.0})
    assert hashed({"a": np.float64(0.5), "b": np.arange(2), "c": jnp.ones(())}) == hashed(
        {"a": 0.5, "b": [0, 1], "c": 1}
    )
    different = [
        {"a": 1},
        {"a": 2},
        {"a": True},
        {"a": None},
        {"a": "1"},
        {"b": 1},
        {"a": 1, "b": 1},
        {"a": [1]},
    ]
    assert len({hashed(config) for config in different}) == len(different)


@pytest.mark.parametrize("entry", [math.inf, math.nan, np.float32("inf"), Path("here"), {1, 2}])
def test_config_hash_refuses_what_a_file_cannot_hold(entry):
    with pytest.raises(UsageError, match="plain JSON"):
        results.config_hash({"clip": entry})


def test_config_hash_survives_the_file(tmp_path):
    config = {"sizes": (8, 8), "strength": np.float32(0.1)}
    results.append(tmp_path / "a.jsonl", [record(config=config)])
    (back,) = results.read(tmp_path / "a.jsonl")
    assert results.config_hash(back["config"]) == back["config_hash"] == results.config_hash(config)


# --- append and read -------------------------------------------------------------------------------


def test_append_makes_the_folder_and_read_gives_it_back(tmp_path):
    path = tmp_path / "new" / "folder" / "class.jsonl"
    records = [record(seed=0), record(seed=1)]
    results.append(path, records)
    results.append(path, [record(seed=2)])
    assert results.read(path) == [*records, record(seed=2)]
    assert path.read_text().count("\n") == 3


def test_lines_are_strict_json(tmp_path):
    path = tmp_path / "a.jsonl"
    row = record(accuracy=math.nan, loss_curve=[1.0, math.inf], matrix=np.array([[0.5, np.nan]]), scalar=jnp.ones(()))
    results.append(path, [row])

    def refuse(constant):
        raise AssertionError(constant)

    loaded = json.loads(path.read_text(), parse_constant=refuse)
    assert loaded["metrics"]["accuracy"] is None and loaded["loss_curve"] == [1.0, None]
    assert loaded["matrix"] == [[0.5, None]] and loaded["scalar"] == 1.0


def cut(path, characters):
    path.write_bytes(path.read_bytes()[:-characters])


@pytest.mark.parametrize("characters", [2, 40])
def test_a_last_line_cut_short_is_left_out_and_overwritten(tmp_path, capsys, characters):
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0), record(seed=1)])
    cut(path, characters)
    assert [row["seed"] for row in results.read(path)] == [0]
    assert "cut short" in capsys.readouterr().err
    assert {seed for *_, seed in results.finished(path)} == {0}
    results.append(path, [record(seed=2)])
    capsys.readouterr()
    assert [row["seed"] for row in results.read(path)] == [0, 2]
    assert capsys.readouterr().err == ""


def test_a_last_line_that_lost_only_its_end_is_kept(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0)])
    cut(path, 1)
    assert [row["seed"] for row in results.read(path)] == [0]
    results.append(path, [record(seed=1)])
    assert [row["seed"] for row in results.read(path)] == [0, 1]
    assert capsys.readouterr().err == ""


def test_a_cut_inside_a_letter_is_still_a_cut(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0)])
    with path.open("ab") as file:
        file.write('{"method": "é'.encode()[:-1])
    assert len(results.read(path)) == 1
    results.append(path, [record(seed=1)])
    assert len(results.read(path)) == 2


@pytest.mark.parametrize("line", ['{"method": "ew', "[1, 2]", '{"method": "ewc"}', "<<<<<<< HEAD"])
def test_a_corrupt_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0)])
    with path.open("a") as file:
        file.write(line + "\n")
    results.append(path, [record(seed=1)])
    with pytest.raises(DataError, match=r"line 2 of .*a\.jsonl"):
        results.read(path)


def test_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0)])
    with path.open("a") as file:
        file.write("\n\n")
    results.append(path, [record(seed=1)])
    assert len(results.read(path)) == 2


@pytest.mark.parametrize("text", ["# My notes", '{"learning_rate": 0.1}', "a\nb"])
def test_append_never_cuts_another_file(tmp_path, text):
    path = tmp_path / "notes"
    path.write_text(text)
    with pytest.raises(DataError, match="not a result file"):
        results.append(path, [record()])
    assert path.read_text() == text


def test_append_writes_nothing_if_one_record_is_wrong(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(UsageError, match="config_hash, method, seed"):
        results.append(path, [record(), {"method": "ewc", "seed": 1}])
    assert not path.exists()


def test_an_unwritable_place_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="folder that you may write to"):
        results.append(tmp_path / "file" / "a.jsonl", [record()])
    with pytest.raises(DataError, match="folder that you may write to"):
        results.append(tmp_path, [record()])


def test_a_writer_waits_for_another(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0)])
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"half": ')
        other.flush()
        thread = threading.Thread(target=results.append, args=(path, [record(seed=1)]))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert path.read_bytes().endswith(b'{"half": ')  # which is not taken for the fragment of a dead machine
        other.truncate(path.stat().st_size - len(b'{"half": '))
    thread.join(10)
    assert [row["seed"] for row in results.read(path)] == [0, 1]


def test_a_missing_file_has_nothing_finished_but_cannot_be_read(tmp_path):
    assert results.finished(tmp_path / "none.jsonl") == set()
    with pytest.raises(DataError, match="run the benchmark"):
        results.read(tmp_path / "none.jsonl")


def test_finished_counts_diverged_seeds(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [record(seed=0), record("si", 1, diverged={"phase": 1, "step": 7})]
    results.append(path, rows)
    assert results.finished(path) == {(row["config_hash"], row["method"], row["seed"]) for row in rows}


# --- the newest line, labels, means ----------------------------------------------------------------


def test_latest_keeps_the_newest_line_of_each_seed():
    rows = [record(seed=0, accuracy=0.1), record(seed=1), record(seed=0, accuracy=0.9), record("si", 0)]
    assert [(row["method"], row["seed"], row["metrics"]["accuracy"]) for row in results.latest(rows)] == [
        ("ewc", 0, 0.9),
        ("ewc", 1, 0.75),
        ("si", 0, 0.75),
    ]


def test_a_seed_whose_newest_record_lacks_something_is_not_finished(tmp_path):
    path = tmp_path / "a.jsonl"
    results.append(path, [record(seed=0) | {"vital": 1}, record(seed=1) | {"vital": 1}, record(seed=1)])
    assert {seed for *_, seed in results.finished(path, lambda one: "vital" in one)} == {0}


def test_latest_keeps_scenarios_apart_even_with_one_configuration():
    rows = [record(scenario="task", config={}), record(scenario="class", config={})]
    assert results.latest(rows) == rows


def test_label_is_the_method_alone_where_that_is_enough():
    rows = [record(config=strength(1.0)), record("si", config=strength(10.0))]
    assert list(groups.by_label(rows)) == ["ewc", "si"]


def test_label_names_only_what_differs():
    rows = [record(config=strength(number)) for number in (1.0, 10.0)] + [record("si", config=strength(3.0))]
    assert list(groups.by_label(rows)) == ["ewc (strength=1)", "ewc (strength=10)", "si"]
    nested = [{"hyperparameters": {"rule": {"decay": decay, "same": 1}, "sizes": [4, 4]}} for decay in (0, 1)]
    rows = [record(config=config) for config in nested]
    assert list(groups.by_label(rows)) == ["ewc (rule.decay=0)", "ewc (rule.decay=1)"]


def test_a_label_says_what_a_configuration_leaves_out_because_the_setting_is_younger_and_off():
    growth = [{"when": "steps"}, {"when": "steps", "imagines": True}, {"when": "rank", "imagines": True}]
    rows = [record("growth", config={"hyperparameters": settings}) for settings in growth]
    assert list(groups.by_label(rows)) == [
        f"growth (when={when}, imagines={imagines})"
        for when, imagines in (("steps", False), ("steps", True), ("rank", True))
    ]
    rows = [record("growth", config={"hyperparameters": settings}) for settings in growth[1:]]
    assert list(groups.by_label(rows)) == ["growth (when=steps)", "growth (when=rank)"], "what all have says nothing"


def test_labels_never_collide():
    near = [record(config=strength(number)) for number in (0.1, 0.1 + 1e-9)]
    assert list(groups.by_label(near)) == ["ewc (strength=0.1)", f"ewc ({near[1]['config_hash']})"]
    rows = [record(config={}), record(config=strength(1.0)), record(config={}, config_hash="0123456789ab")]
    labels = list(groups.by_label(rows))
    assert len(labels) == 3 and labels[0] == "ewc" and labels[2] == "ewc (0123456789ab)"


def test_summary_by_hand():
    rows = [record(seed=seed, accuracy=accuracy) for seed, accuracy in [(2, 0.9), (0, 0.7), (1, 0.8)]]
    rows[0] |= {"bytes": 4000, "flops": 8e9, "seconds": 6.0}
    (summary,) = summaries.summarize(rows)
    assert (summary.suite, summary.data, summary.scenario) == ("split_mnist", "mnist", "class")
    assert summary.label == summary.method == "ewc" and summary.config_hash == rows[0]["config_hash"]
    assert summary.seeds == (0, 1, 2) and summary.diverged == ()
    # t(0.975, 2) = 4.302653, standard error 0.1 / sqrt(3).
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert summary.metrics["accuracy"] == pytest.approx((0.8, 0.8 - half, 0.8 + half), rel=1e-6)
    assert summary.metrics["forgetting"] == pytest.approx((0.25, 0.25, 0.25))
    assert summary.bytes == 4000 and summary.flops == pytest.approx(4e9) and summary.seconds == pytest.approx(4.0)


def test_diverged_seeds_are_counted_but_in_no_mean():
    rows = [record(seed=0, accuracy=0.5), record(seed=1, accuracy=0.1, diverged={"phase": 0, "step": 3})]
    (summary,) = summaries.summarize(rows)
    assert summary.seeds == (0, 1) and summary.diverged == (1,)
    assert summary.metrics["accuracy"].mean == 0.5


def test_summaries_do_not_mix_scenarios_or_count_a_seed_twice():
    rows = [record(scenario=scenario, accuracy=a) for scenario, a in [("task", 0.9), ("class", 0.2), ("task", 1.0)]]
    found = summaries.summarize(rows)
    assert [(s.scenario, s.seeds, s.metrics["accuracy"].mean) for s in found] == [
        ("task", (0,), 1.0),
        ("class", (0,), 0.2),
    ]


def test_csv(tmp_path):
    path = tmp_path / "out" / "a.csv"
    joint = record("joint", forgetting=None, bytes=None, flops=None)
    joint["metrics"] = {"accuracy": 0.9, "learning_accuracy": 0.5}
    rows = [
        record(seed=0, accuracy=0.5),
        record(seed=1, accuracy=0.75, diverged={"phase": 0, "step": 1}),
        joint,
    ]
    summaries.write_csv(path, summaries.summarize(rows))
    ewc, other = csv.DictReader(path.read_text().splitlines())
    assert ewc["label"] == "ewc" and (ewc["seeds"], ewc["diverged"]) == ("2", "1")
    assert (ewc["accuracy_mean"], ewc["accuracy_low"], ewc["learning_accuracy_mean"]) == ("0.5", "", "")
    assert (other["forgetting_mean"], other["bytes"], other["learning_accuracy_mean"]) == ("", "", "0.5")
    assert list(path.parent.iterdir()) == [path]


def test_writing_replaces_whole_files(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DataError, match="No space left"):
        results.write_text(path, "new")
    assert path.read_text() == "old"


def test_two_that_write_one_file_at_once_do_not_get_into_each_others_way(tmp_path, monkeypatch):
    path, replace = tmp_path / "a.csv", Path.replace

    def meanwhile(part, target):
        monkeypatch.setattr(Path, "replace", replace)
        results.write_text(path, "the other's")  # begun and finished before this one takes the name
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    results.write_text(path, "mine")
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_what_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DataError, match="No space left"):
        results.write_text(tmp_path / "a.csv", "new")
    assert not list(tmp_path.iterdir())


def is_locked(folder):
    fcntl, own = pytest.importorskip("fcntl"), os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(own)
    return False


def test_one_at_a_time_changes_what_it_has_read(tmp_path):
    path = tmp_path / "new" / "a.json"
    with results.alone(path):
        assert is_locked(path.parent)
    assert not is_locked(path.parent) and not list(path.parent.iterdir())


# --- to_json ---------------------------------------------------------------------------------------


def test_to_json_has_this_shape():
    rows = [
        record("ewc", 0, 0.5, 0.25),
        record("ewc", 2, 0.75, 0.125),
        record("si", 1, 0.5, math.nan),
        record("si", 2, 0.9, 0.1, diverged={"phase": 1, "step": 1}),
        record("si", 2, scenario="task"),
    ]
    table = summaries.to_json("split_mnist", "class", rows)
    json.dumps(table, allow_nan=False)
    assert list(table) == ["suite", "scenario", "seeds", "methods"]
    assert (table["suite"], table["scenario"], table["seeds"]) == ("split_mnist", "class", [0, 1, 2])
    ewc, si = table["methods"]["ewc"], table["methods"]["si"]
    assert list(ewc) == ["accuracy", "forgetting", "bytes", "flops", "seconds", "diverged"]
    assert ewc["accuracy"]["per_seed"] == [0.5, None, 0.75] and ewc["accuracy"]["mean"] == 0.625
    half = 12.7062047 * 0.125  # t(0.975, 1) * (0.25 / sqrt(2)) / sqrt(2)
    assert ewc["accuracy"]["ci95"] == pytest.approx([0.625 - half, 0.625 + half])
    assert (ewc["bytes"], ewc["flops"], ewc["seconds"], ewc["diverged"]) == (1000, 2e9, 3.0, [])
    assert si == {
        "accuracy": {"mean": 0.5, "ci95": [None, None], "per_seed": [None, 0.5, None]},
        "forgetting": {"mean": None, "ci95": [None, None], "per_seed": [None, None, None]},
        "bytes": 1000,
        "flops": 2e9,
        "seconds": 3.0,
        "diverged": [2],
    }


def test_to_json_labels_configurations():
    rows = [record(config=strength(number)) for number in (1.0, 10.0)]
    assert list(summaries.to_json("split_mnist", "class", rows)["methods"]) == [
        "ewc (strength=1)",
        "ewc (strength=10)",
    ]


def test_to_json_of_another_suite_names_what_there_is():
    with pytest.raises(UsageError, match="but of: split_mnist class"):
        summaries.to_json("split_mnist", "domain", [record()])
    assert summaries.to_json("split_mnist", "class", [])["methods"] == {}


# --- environment -----------------------------------------------------------------------------------


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


def test_a_row_that_is_mostly_undefined_is_written_short_and_read_whole(tmp_path):
    matrix = np.full((30, 30), np.nan)
    matrix[np.arange(30), np.arange(30)], matrix[-1] = 0.5, np.arange(30) / 30
    results.append(tmp_path / "a.jsonl", [record(scenario="domain") | {"accuracy": matrix.tolist()}])
    assert (tmp_path / "a.jsonl").read_text().count("null") < 30
    (found,) = results.read(tmp_path / "a.jsonl")
    np.testing.assert_array_equal(np.asarray(found["accuracy"], float), matrix)
    results.append(tmp_path / "b.jsonl", [found])
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


@pytest.mark.parametrize("rows", ['[{"3": 0.5}]', "0.5", '[{"columns": "many"}]'])
def test_an_accuracy_that_is_no_matrix_is_named(tmp_path, rows):
    line = json.dumps(record() | {"accuracy": []}).replace('"accuracy": []', f'"accuracy": {rows}')
    (tmp_path / "a.jsonl").write_text(line + "\n" + line + "\n")
    with pytest.raises(DataError, match="line 1 .* no matrix"):
        results.read(tmp_path / "a.jsonl")
