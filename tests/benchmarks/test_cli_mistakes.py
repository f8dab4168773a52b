"""How the command line answers a mistake: one line that names it, and no traceback."""

import dataclasses

import pytest
from commandline import SMALL, assert_one_line, command

from benchmarks import commands, data, suite

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("cli")


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


def test_data_sets_are_imported_to_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    targets = []
    monkeypatch.setattr(data, "import_originals", lambda source, target, name: targets.append(target) or [])
    assert command("data", "import", tmp_path).status == 0
    assert targets == [tmp_path / "tensorflow_datasets"]
