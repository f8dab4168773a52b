"""Which results belong together: the hash of a configuration, the newest line of a seed, the label of a method."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from toy_results import record, strength

from benchmarks import groups, results
from neuroml.errors import UsageError

# --- config_hash ---


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


# --- the newest line ---


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


# --- labels ---


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
