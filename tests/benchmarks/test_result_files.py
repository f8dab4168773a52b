"""Result files: what is appended is read again, whatever cut them short, and nobody sees half of one."""

import json
import math
import os
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from toy_results import record

from benchmarks import results
from neuroml.errors import DataError, UsageError

# --- append and read ---


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


# --- matrices ---


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


# --- whole files ---


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
