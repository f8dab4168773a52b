"""The command line: what runs, tables, pictures and tuning print and write."""

import dataclasses
import json
import shutil
import sys

import commandline
import jax
import numpy as np
import pytest
from commandline import METHODS, SMALL, assert_one_line, by_run, command, records

from benchmarks import pictures, results, suite, tuning
from neuroml.methods import methods
from neuroml.streams.sources import load

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("cli")

run, copy = pytest.fixture(commandline.run), pytest.fixture(commandline.copy)

NUMBERS = {"accuracy", "forgetting", "bytes", "flops", "seconds", "diverged"}


# --- what comes out ---


def test_json_is_one_object_last_and_alone_on_standard_output(run):
    assert run.status == 0
    assert len(run.out.splitlines()) == 1
    assert set(run.json) == {"suite", "scenario", "seeds", "methods"}
    assert (run.json["suite"], run.json["scenario"], run.json["seeds"]) == ("split_digits", "class", [0, 1])
    assert set(run.json["methods"]) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_json_holds_what_the_result_file_holds(run, method):
    entry = run.json["methods"][method]
    assert set(entry) == NUMBERS
    own = [record for record in records(run.folder) if record["method"] == method]
    accuracy = [np.mean(record["accuracy"][-1]) for record in own]  # of the tasks, after the last
    np.testing.assert_allclose(entry["accuracy"]["per_seed"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(entry["accuracy"]["mean"], np.mean(accuracy), rtol=1e-6)
    low, high = entry["accuracy"]["ci95"]
    assert 0 <= min(accuracy) <= max(accuracy) <= 1 and low <= entry["accuracy"]["mean"] <= high
    assert (entry["forgetting"]["mean"] is None) == (method == "joint")
    assert entry["bytes"] == own[0]["bytes"] > 0 and entry["flops"] > 0 and entry["seconds"] > 0


def test_a_record_says_what_made_it(run):
    for record in records(run.folder):
        assert record["config_hash"] == results.config_hash(record["config"])
        assert record["config"]["protocol"]["iterations"] == 2 and record["config"]["protocol"]["hidden"] == [8]
        assert set(record["versions"]) >= {"python", "jax", "flax", "optax"}
        assert set(record["git"]) == {"revision", "dirty"} and record["device"]["platform"] == jax.default_backend()
        assert set(record["modes"]) == {"steps", "seeds"} and record["time"] and record["compile_seconds"] >= 0
        phases = 1 if record["method"] == "joint" else 5
        assert np.shape(record["accuracy"]) == (phases, 5)
        assert len(record["loss_curve"]) == len(record["online_accuracy_curve"]) == 10
        assert record["diverged"] is None


def test_seeds_are_different_runs(run):
    found = by_run(run.folder)
    for method in METHODS:
        assert found[method, 0]["loss_curve"] != found[method, 1]["loss_curve"]


def test_a_run_writes_a_summary_and_pictures(run):
    names = {path.name for path in run.folder.iterdir()}
    pictures = {"split_digits.png", "split_digits.class.tasks.png"}
    assert names == {"split_digits.class.jsonl", "split_digits.class.csv", *pictures}
    for name in pictures:
        assert (run.folder / name).read_bytes().startswith(b"\x89PNG")
    assert (run.folder / "split_digits.class.csv").read_text().count("\n") == 1 + len(METHODS)


def test_what_a_person_reads_goes_to_standard_error(run):
    assert "results and split_digits.png are in" in run.err
    assert "8/8" in run.err  # the bar


def test_table_and_plot_read_a_result_folder(run):
    for path in run.folder.glob("*.png"):
        path.unlink()
    table = command("table", run.folder)
    assert table.status == 0 and "class-incremental, 2 seeds" in table.out
    assert all(f"| {method} |" in table.out for method in METHODS)
    assert command("plot", run.folder).status == 0
    assert len(list(run.folder.glob("*.png"))) == 2


def test_pictures_of_some_methods_only(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "draw", lambda held, *_: drawn.append(held) or "a picture")
    assert command("plot", run.folder, "--methods", METHODS[0]).status == 0
    (held,) = drawn
    assert {record["method"] for record in held["class"]} == {METHODS[0]}
    assert_one_line(command("plot", run.folder, "--methods", "magic"), "'magic'", METHODS[0])
    assert_one_line(command("plot", run.folder, "--methods", ""), "unknown method with results here ''")
    assert_one_line(command("plot", run.folder, "--methods", "er, er"), "'er' more than once")


def test_pictures_are_of_all_that_the_result_file_holds(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "draw", lambda held, *_: drawn.append(held) or "a picture")
    shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
    assert command(*SMALL, "--methods", "naive", "--seeds", 1, out=tmp_path).status == 0  # runs nothing anew
    assert command("plot", tmp_path).status == 0
    for held in drawn:
        found = {(one["method"], one["seed"]) for one in held["class"]}
        assert found == {(method, seed) for method in METHODS for seed in (0, 1)}
    assert len(drawn) == 2


def test_tables_go_into_a_readme(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:split_digits.class -->\nold\n<!-- /results:split_digits.class -->\nafter\n")
    assert "updated" in command("table", run.folder, "--readme", readme).err
    assert "| naive |" in readme.read_text() and "old" not in readme.read_text()
    assert "was up to date" in command("table", run.folder, "--readme", readme).err


def test_list_shows_every_suite_and_method_with_its_settings():
    text = command("list").out
    for name in (*suite.names(), *methods):
        assert f"  {name} " in text
    assert "strength=100.0, decay=1.0, anchors=separate" in text


def test_without_json_a_table_is_printed(run):
    text = command(*SMALL, "--methods", "naive,si", "--seeds", 2, out=run.folder).out  # all of it is there already
    assert "| naive |" in text and "| si |" in text and "| er |" not in text


# --- divergence, one method alone, several scenarios ---


def test_a_diverging_method_is_marked_and_the_others_are_fine(tmp_path):
    settings = ("--set", "optimizer=sgd", "--set", "er.strength=3e38")  # replay begins with the last step of task 0
    one = command(*SMALL, *settings, "--methods", "naive,er", "--seeds", 2, "--json", out=tmp_path)
    assert one.status == 0
    assert {r["method"]: r["diverged"] for r in records(tmp_path)} == {"naive": None, "er": {"phase": 1, "step": 0}}
    assert one.json["methods"]["er"]["diverged"] == [0, 1]
    assert one.json["methods"]["er"]["accuracy"] == {"mean": None, "ci95": [None, None], "per_seed": [None, None]}
    assert one.json["methods"]["naive"]["accuracy"]["mean"] > 0
    for seed in (0, 1):
        assert f"er, seed {seed}: the loss stopped being finite at task 1, step 0" in one.err
    assert "2 (diverged 2/2)" in command("table", tmp_path).out


def test_a_run_where_nothing_useful_came_out_fails(tmp_path):
    one = command(*SMALL, "--set", "learning_rate=3e38", "--methods", "naive", "--seeds", 1, "--json", out=tmp_path)
    assert one.status == 1
    assert one.json["methods"]["naive"]["accuracy"]["mean"] is None


def test_joint_alone(run, tmp_path):
    one = command(*SMALL, "--methods", "joint", "--seeds", 1, "--json", out=tmp_path)
    assert one.status == 0
    assert by_run(tmp_path)["joint", 0] == by_run(run.folder)["joint", 0]
    assert [path.name for path in tmp_path.glob("*.png")] == ["split_digits.png"]


def test_two_scenarios_are_two_files_and_two_objects(tmp_path):
    small = [word for word in SMALL if word not in ("--scenario", "class")]
    one = command(*small, "--methods", "naive", "--seeds", 1, "--json", out=tmp_path)
    assert one.status == 0 and set(one.json) == {"suite", "scenarios"}
    assert set(one.json["scenarios"]) == {"task", "domain", "class"}
    for scenario, entry in one.json["scenarios"].items():
        assert entry["scenario"] == scenario
        (record,) = records(tmp_path, f"split_digits.{scenario}")
        assert record["scenario"] == scenario and entry["methods"]["naive"]["bytes"] == record["bytes"]
    accuracy = {s: e["methods"]["naive"]["accuracy"]["mean"] for s, e in one.json["scenarios"].items()}
    assert len(set(accuracy.values())) == 3


def test_a_stream_without_boundaries_runs(tmp_path):
    small = ("run", "blended_digits", "--scenario", "class", "--set", "iterations=2", "--set", "hidden=8")
    one = command(*small, "--methods", "si_on_surprise", "--seeds", 1, "--json", out=tmp_path)
    assert one.status == 0 and one.json["methods"]["si_on_surprise"]["accuracy"]["mean"] > 0


# --- tuning ---


def test_tuning_tries_every_value_on_seeds_and_images_of_its_own(tmp_path, monkeypatch):
    small = dataclasses.replace(
        suite.load("split_digits"), iterations=2, hidden=(8,), grids={"si": {"strength": (0.0, 3e38)}}
    )
    monkeypatch.setattr(suite, "load", lambda name: small)
    about = {"suite": small.name, "scenario": "class", "seeds": 2, "first_seed": 1_000_000, "tasks": 5}
    about |= {"protocol": results.config_hash({**small.protocol(), "measure": "accuracy"})}
    earlier = [{"method": name, "values": values} for name, values in {"er": [0.1, 0.3], "naive": [0.1] * 3}.items()]
    (tmp_path / "split_digits.class.json").write_text(json.dumps({**about, "methods": earlier}))
    seen = []
    monkeypatch.setattr(tuning, "run", lambda *a, run=tuning.run, **k: (seen.append((a, k)), run(*a, **k))[1])
    done = command("tune", "split_digits", "--scenario", "class", "--methods", " si ", "--seeds", 2, out=tmp_path)
    assert done.status == 0 and "diverged" in done.out
    (((_, data), given),) = seen
    assert list(given["seeds"]) == [1_000_000, 1_000_001]
    kept = {image.tobytes() for image in np.asarray(data.test_x)}
    assert not kept & {image.tobytes() for image in np.asarray(load("digits").test_x)}
    other, trial = json.loads((tmp_path / "split_digits.class.json").read_text())["methods"]
    assert other == earlier[0]  # as many trials as these; those of naive were more
    assert trial["values"] == [0.0, 3e38] and trial["accuracy"][1] is None and trial["chosen"] == 0.0


# --- Weights & Biases ---


def test_wandb_offline_logs_every_run(run, copy, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (copy / "split_digits.class.jsonl").unlink()
    one = command(*SMALL, "--methods", "naive", "--seeds", 1, "--wandb", "offline", "--json", out=copy)
    assert one.status == 0 and len(one.out.splitlines()) == 1
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))
    assert by_run(copy)["naive", 0] == by_run(run.folder)["naive", 0]


def test_without_wandb_nothing_of_it_is_imported(run, copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    (copy / "split_digits.class.jsonl").unlink()
    assert command(*SMALL, "--methods", "naive", "--seeds", 1, out=copy).status == 0
    missing = command(*SMALL, "--methods", "naive", "--seeds", 2, "--wandb", "offline", out=copy)
    assert_one_line(missing, "needs wandb", "neuroml-jax[bench]")
