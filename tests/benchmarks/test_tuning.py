"""Choosing hyperparameters: together, by what the suite is about, beside earlier trials."""

import dataclasses
import json
import math
import os
import types

import numpy as np
import pytest
from toy_plasticity import DATA, SMALL

from benchmarks import results, tuning
from neuroml.errors import UsageError


def test_two_hyperparameters_are_tuned_together_by_online_accuracy(tmp_path):
    grid = {"cbp": {"learning_rate": (0.0, 0.1), "rate": (0.0, 0.01)}}
    tuning.tune(dataclasses.replace(SMALL, grids=grid), ["cbp"], ["domain"], DATA, 1, tmp_path)
    (trial,) = json.loads((tmp_path / f"{SMALL.name}.domain.json").read_text())["methods"]
    assert trial["hyperparameter"] == "learning_rate, rate" and trial["values"] == [[0.0, 0.0], [0.1, 0.01]]
    assert trial["chosen"] == trial["values"][int(np.argmax(trial["accuracy"]))]


def test_trials_of_other_methods_stay_if_they_are_about_the_same(tmp_path, monkeypatch):
    trials = lambda job, *_: {"method": job.name, "hyperparameter": "x", "values": [0], "accuracy": [1], "chosen": 0}
    monkeypatch.setattr(tuning, "_trials", trials)
    grids = {"cbp": {"rate": (0.0, 0.01)}, "sgd": {"learning_rate": (0.0, 0.1)}}
    one, path = dataclasses.replace(SMALL, grids=grids), tmp_path / f"{SMALL.name}.domain.json"
    kept = lambda: [trial["method"] for trial in json.loads(path.read_text())["methods"]]
    for name in ("cbp", "sgd", "cbp"):
        tuning.tune(one, [name], ["domain"], DATA, 1, tmp_path)
    assert kept() == ["cbp", "sgd"]
    tuning.tune(one, ["sgd"], ["domain"], DATA, 2, tmp_path)
    assert kept() == ["sgd"]


def test_trials_of_another_protocol_do_not_stay(tmp_path, monkeypatch):
    trials = lambda job, *_: {"method": job.name, "hyperparameter": "x", "values": [0], "accuracy": [1], "chosen": 0}
    monkeypatch.setattr(tuning, "_trials", trials)
    one = dataclasses.replace(SMALL, grids={name: {"learning_rate": (0.0, 0.1)} for name in ("cbp", "sgd")})
    path = tmp_path / f"{SMALL.name}.domain.json"
    for other in ({"batch_size": 5}, {"optimizer": "adam"}, {"measure": "accuracy"}):
        tuning.tune(one, ["cbp"], ["domain"], DATA, 1, tmp_path)
        tuning.tune(dataclasses.replace(one, **other), ["sgd"], ["domain"], DATA, 1, tmp_path)
        assert [trial["method"] for trial in json.loads(path.read_text())["methods"]] == ["sgd"], other


def test_trials_are_written_while_no_one_else_may(tmp_path, monkeypatch):
    fcntl, write, held = pytest.importorskip("fcntl"), results.write_text, []

    def watched(path, text):
        folder = os.open(path.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        held.append(write(path, text))

    monkeypatch.setattr(results, "write_text", watched)
    tuning._write(tmp_path / "new" / "a.json", {}, {"method": "sgd", "values": [0]})
    assert len(held) == 1


NAN = math.nan


def tuned(monkeypatch, tmp_path, online, diverged, measure="online_accuracy", final=(1.0, 1.0)):
    """The row and the table of two values and one seed, of which `online` [2, phases, steps] and `final` are told."""
    found = types.SimpleNamespace(
        online_accuracy=np.array(online, float)[:, None],
        accuracy=np.reshape(final, (2, 1, 1, 1)),
        diverged=np.array([[[0 if bad else -1, 0]] for bad in diverged]),
    )
    monkeypatch.setattr(tuning, "run", lambda *_, **__: found)
    one = dataclasses.replace(SMALL, measure=measure, grids={"sgd": {"learning_rate": (0.1, 0.2)}})
    text = tuning.tune(one, ["sgd"], ["domain"], DATA, 1, tmp_path)
    written = (tmp_path / f"{SMALL.name}.domain.json").read_text()
    (row,) = json.loads(written, parse_constant=pytest.fail)["methods"]  # strict JSON
    return row, text


def test_idle_steps_count_for_nothing_when_values_are_chosen(tmp_path, monkeypatch):
    row, _ = tuned(monkeypatch, tmp_path, [[[0.5, 0.5], [0.5, NAN]], [[0.5, 0.5], [0.8, NAN]]], [False, False])
    assert row["accuracy"] == [0.5, pytest.approx(0.6)] and row["chosen"] == 0.2


def test_nothing_is_chosen_where_all_diverged(tmp_path, monkeypatch):
    row, text = tuned(monkeypatch, tmp_path, np.ones((2, 1, 1)), [True, True])
    assert row["accuracy"] == [None, None] and row["chosen"] is None
    assert "0.1: diverged, 0.2: diverged; nothing chosen" in text and "**" not in text
    row, text = tuned(monkeypatch, tmp_path, np.ones((2, 1, 1)), [True, False])
    assert row["accuracy"] == [None, 1.0] and row["chosen"] == 0.2 and "nothing chosen" not in text


def test_learning_and_keeping_count_in_equal_parts(tmp_path, monkeypatch):
    online, measure = [[[0.5, 0.5], [0.5, NAN]], [[0.8, 0.8], [0.8, NAN]]], "online_and_final_accuracy"
    row, _ = tuned(monkeypatch, tmp_path, online, [False, False], measure, final=(1.0, 0.5))
    assert row["accuracy"] == [pytest.approx(0.75), pytest.approx(0.65)] and row["chosen"] == 0.1


def test_a_method_without_online_accuracy_is_not_chosen_by_it(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="sgd has no online_accuracy"):
        tuned(monkeypatch, tmp_path, np.full((2, 1, 1), NAN), [False, False])
    row, _ = tuned(monkeypatch, tmp_path, np.full((2, 1, 1), NAN), [False, False], "accuracy")
    assert row["chosen"] == 0.1
