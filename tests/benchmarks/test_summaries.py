"""Means, intervals and counts over seeds, as CSV and as JSON."""

import csv
import json
import math

import pytest
from toy_results import record, strength

from benchmarks import summaries
from neuroml.errors import UsageError

# --- summarize ---


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


def test_a_vital_sign_younger_than_a_record_is_read_from_its_report():
    rows = [{**record(seed=seed), "report": {"weight size": [1.0, end]}} for seed, end in enumerate((0.2, 0.4))]
    rows[1]["metrics"] = {**rows[1]["metrics"], "weight_size": 0.4}
    (summary,) = summaries.summarize(rows)
    assert summary.metrics["weight_size"].mean == pytest.approx(0.3) and "dead_units" not in summary.metrics


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


# --- to_json ---


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
