"""The command line takes up again what was interrupted, and tells of results that are not of this code."""

import json

import commandline
import pytest
from commandline import METHODS, SMALL, assert_one_line, by_run, command, records

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("cli")

run, copy = pytest.fixture(commandline.run), pytest.fixture(commandline.copy)


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
