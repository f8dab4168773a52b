"""The command line: what it prints and writes, what it takes up again, and how it answers a mistake."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from benchmarks import cli, commands, data, pictures, results, suite, tuning
from neuroml.methods import methods
from neuroml.streams.sources import load

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("cli")

ROOT = Path(__file__).parents[2]
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
NUMBERS = {"accuracy", "forgetting", "bytes", "flops", "seconds", "diverged"}


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


def subprogram(*arguments, **environment):
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **cache, **environment},
    )


def records(folder, name="split_digits.class"):
    return results.read(folder / f"{name}.jsonl")


def by_run(folder):
    """{(method, seed): what a run found, all that does not depend on the clock}."""
    keys = ("accuracy", "loss_curve", "online_accuracy_curve", "metrics", "bytes", "flops", "config_hash")
    return {(r["method"], r["seed"]): {key: r[key] for key in keys} for r in results.latest(records(folder))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four methods, two seeds."""
    chosen = ("--methods", ",".join(METHODS), "--seeds", 2, "--json")
    return command(*SMALL, *chosen, out=tmp_path_factory.mktemp("run"))


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


# --- resuming ---


@pytest.fixture
def copy(run, tmp_path):
    """A result folder of one's own, as the run left it."""
    (tmp_path / "split_digits.class.jsonl").write_bytes((run.folder / "split_digits.class.jsonl").read_bytes())
    return tmp_path


def test_an_interrupted_run_goes_on_where_it_stopped(run, copy):
    path = copy / "split_digits.class.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["method"] in ("naive", "joint")][:3]
    path.write_bytes(b"".join(kept) + lines[-1][:200])  # the machine died in the middle of a line
    again = command(*SMALL, "--methods", ",".join(METHODS), "--seeds", 2, "--json", out=copy)
    assert again.status == 0
    assert "cut short" in again.err
    assert path.read_bytes().startswith(b"".join(kept))  # what was there is there still
    assert len(records(copy)) == 8  # and nothing ran twice
    assert by_run(copy) == by_run(run.folder)  # bit for bit
    untimed = lambda one: {m: {k: v for k, v in entry.items() if k != "seconds"} for m, entry in one["methods"].items()}
    assert untimed(again.json) == untimed(run.json)


def test_more_seeds_run_only_the_new_ones(run, copy):
    more = command(*SMALL, "--methods", "naive", "--seeds", 3, "--json", out=copy)
    assert [(r["method"], r["seed"]) for r in records(copy)[8:]] == [("naive", 2)]
    assert more.json["seeds"] == [0, 1, 2] and len(more.json["methods"]["naive"]["accuracy"]["per_seed"]) == 3
    fewer = command(*SMALL, "--methods", "naive", "--seeds", 1, "--json", out=copy)
    assert fewer.json["seeds"] == [0] and len(records(copy)) == 9


def test_fresh_runs_again_and_keeps_the_results_of_others(run, copy):
    before = records(copy)
    assert command(*SMALL, "--methods", "naive", "--seeds", 2, "--fresh", out=copy).status == 0
    assert records(copy)[:8] == before
    assert [(r["method"], r["seed"]) for r in records(copy)[8:]] == [("naive", 0), ("naive", 1)]
    assert by_run(copy) == by_run(run.folder)


def test_another_configuration_is_another_result(copy):
    other = command(*SMALL, "--set", "learning_rate=0.5", "--methods", "naive", "--seeds", 1, "--json", out=copy)
    assert len(records(copy)) == 9 and len({r["config_hash"] for r in records(copy) if r["method"] == "naive"}) == 2
    assert list(other.json["methods"]) == ["naive"] and other.json["seeds"] == [0]  # only what was asked for


def test_results_of_other_code_are_told(copy):
    path = copy / "split_digits.class.jsonl"
    first, *others = path.read_text().splitlines()
    old = {**json.loads(first), "git": {"revision": "0" * 40, "dirty": False}}
    path.write_text("\n".join([json.dumps(old), *others]) + "\n")
    assert "2 revisions of the code; --fresh" in command(*SMALL, "--methods", "naive", "--seeds", 2, out=copy).err


def test_results_of_code_that_no_revision_holds_are_told(copy):
    path = copy / "split_digits.class.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [line | {"git": {"revision": "0" * 40, "dirty": line["seed"] == 0}} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    err = command(*SMALL, "--methods", "naive,si", "--seeds", 2, out=copy).err
    assert "2 of these results come from source that was changed and not committed" in err and "revisions" not in err


def test_a_file_that_is_damaged_in_the_middle_is_not_touched(copy):
    path = copy / "split_digits.class.jsonl"
    damaged = path.read_bytes().replace(b'{"suite"', b'{"sui', 1)
    path.write_bytes(damaged)
    one = command(*SMALL, "--methods", "naive", "--seeds", 2, out=copy)
    assert_one_line(one, "line 1 of")
    assert path.read_bytes() == damaged


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


# --- mistakes ---


def assert_one_line(run, *words):
    assert run.status == 2
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert run.err.rstrip().endswith(line) and "Traceback" not in run.err
    for word in words:
        assert word in line, line
    assert not run.out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("split_digit",), ("unknown suite 'split_digit'", "'split_digits'", "permuted_mnist")),
        (("split_digits", "--methods", "naive,ewcc"), ("unknown method 'ewcc'", "'ewc'", "joint")),
        (("split_digits", "--methods", "naive,"), ("unknown method ''",)),
        (("split_digits", "--methods", ""), ("unknown method ''",)),
        (("split_digits", "--methods", "naive, ewc,naive"), ("--methods", "'naive' more than once")),
        (("permuted_mnist_one_pass", "--scenario", "domain", "--steps", "0"), ("--steps 0",)),
        (
            ("input_permuted_mnist", "--scenario", "domain", "--steps", "100", "--set", "batch_size=0"),
            ("batch_size=0",),
        ),
        (("split_digits", "--set", "learning_rate=-1.0"), ("learning_rate=-1 of naive", "at least 0")),
        (("split_digits", "--scenario", "clas"), ("unknown scenario of split_digits 'clas'", "'class'")),
        (("split_mnist_online", "--scenario", "domain"), ("'domain'", "Known: class")),
        (("split_digits", "--data", "minst"), ("unknown data set 'minst'", "'mnist'", "digits")),
        (("split_digits", "--seeds", "0"), ("--seeds 0",)),
        (("split_digits", "--seeds", "-1"), ("--seeds -1",)),
        (("split_digits", "--set", "strenght=1"), ("unknown hyperparameter 'strenght'", "'strength'")),
        (("split_digits", "--set", "iterations"), ("name=value", "'iterations'")),
        (("split_digits", "--set", "iterations=0"), ("iterations=0",)),
        (("split_digits", "--set", "batch_size=-4"), ("batch_size=-4",)),
        (("split_digits", "--set", "optimizer=adm"), ("unknown optimizer 'adm'", "'adam'")),
        (("split_digits", "--set", "network=mpl"), ("unknown network 'mpl'", "'mlp'")),
        (("split_digits", "--set", "initialization=torc"), ("unknown initialization 'torc'", "'torch'")),
        (("split_digits", "--set", "hidden=-3"), ("hidden", "-3")),
        (("split_digits", "--set", "tasks=3"), ("10 classes of digits", "3 equal tasks")),
        (("split_digits", "--set", "learning_rate=1e999"), ("finite",)),
        (("split_digits", "--methods", "er", "--set", "er.keep=rong"), ("'rong'", "'ring'")),
        (("split_digits", "--methods", "er", "--set", "er.capacity=7"), ("capacity=7", "classes=10")),
        (("split_digits", "--methods", "er", "--set", "er.replay_batch=-1"), ("replay_batch", "-1")),
        (("split_digits", "--methods", "si", "--set", "window=9"), ("si must be told", "si_every")),
        (("split_digits", "--methods", "si_every", "--set", "steps=0"), ("steps=0",)),
        (("blended_digits", "--methods", "ewc"), ("ewc must be told", "blended_digits does not tell")),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(tmp_path, arguments, words):
    scenario = () if "--scenario" in arguments else ("--scenario", "class")
    methods = () if "--methods" in arguments else ("--methods", "naive,ewc")
    seeds = () if "--seeds" in arguments else ("--seeds", "1")
    assert_one_line(command("run", *arguments, *scenario, *methods, *seeds, out=tmp_path), *words)
    assert not list(tmp_path.glob("*.jsonl"))


def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):  # tests may run as root: no permissions
        assert_one_line(command(*SMALL, "--methods", "naive", "--seeds", 1, out=folder), str(folder), "--out")


@pytest.mark.parametrize(
    "words, rest, told",
    [
        (("table",), (), "no result files"),
        (("plot",), (), "no result files"),
        (("data", "import"), ("--data-dir", "/nowhere"), ""),
    ],
)
def test_an_empty_folder_is_told(tmp_path, words, rest, told):
    for folder in (tmp_path, tmp_path / "missing"):
        assert_one_line(command(*words, folder, *rest), told, str(folder))


def test_a_data_set_that_is_not_prepared_names_both_ways_out(tmp_path):
    arguments = ("run", "split_mnist", "--data-dir", tmp_path, "--methods", "naive", "--seeds", 1)
    assert_one_line(command(*arguments, out=tmp_path / "out"), "mnist is not prepared", "--data-dir", "data import")


def test_nothing_to_tune_is_told(tmp_path, monkeypatch):
    assert_one_line(command("tune", "split_digits", "--methods", "naive", out=tmp_path), "'naive'", "Known: er")
    assert_one_line(command("tune", "split_digits", "--methods", "", out=tmp_path), "unknown grid of split_digits ''")
    assert_one_line(command("tune", "split_digits", "--methods", "er,er", out=tmp_path), "'er' more than once")
    without = dataclasses.replace(suite.load("split_digits"), grids={})
    monkeypatch.setattr(suite, "load", lambda name: without)
    assert_one_line(command("tune", "split_digits", out=tmp_path), "split_digits has no grids")
    uneven = dataclasses.replace(without, grids={"si": {"strength": (0.1, 1.0)}, "er": {"learning_rate": (0.1,)}})
    monkeypatch.setattr(suite, "load", lambda name: uneven)
    assert_one_line(command("tune", "split_digits", "--methods", "si", out=tmp_path), "same number of trials", "'er'")


def test_a_word_that_the_parser_does_not_know_ends_with_2():
    for arguments in (("run", "split_digits", "--sceanrio", "class"), ("rum",), (), ("run", "x", "--wandb", "yes")):
        done = command(*arguments)
        assert done.status == 2 and done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments, goes_on",
    [(("run", "x"), True), (("run", "x", "--fresh"), False), (("tune", "x"), False), (("list",), False)],
)
def test_a_stop_promises_only_what_is_so(arguments, goes_on, monkeypatch):
    monkeypatch.setattr(commands, "execute", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    done = command(*arguments)
    assert done.status == 130 and done.err.startswith("stopped")
    assert ("the same command goes on from there" in done.err) == goes_on
    assert ("what was finished is kept" in done.err) == (arguments[0] != "list")


def test_a_reader_that_has_read_enough_is_no_error():
    program = [sys.executable, "-m", "benchmarks", "list"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_data_sets_are_imported_to_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    targets = []
    monkeypatch.setattr(data, "import_originals", lambda source, target, name: targets.append(target) or [])
    assert command("data", "import", tmp_path).status == 0
    assert targets == [tmp_path / "tensorflow_datasets"]


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


# --- programs of their own ---


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
