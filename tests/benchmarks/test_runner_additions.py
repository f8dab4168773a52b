"""What a record holds where a method has batches of its own, is tested at the ends only, or infers contexts."""

import dataclasses
import functools
import math
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import toy

from benchmarks import inside, logging, online_plots, plots, results, runner, suite, summaries, tables
from benchmarks.jobs import Job
from benchmarks.records import context_metrics, record_of
from benchmarks.results import config_hash
from neuroml import metrics
from neuroml.errors import UsageError
from neuroml.methods import methods
from neuroml.running import Result

DATA = toy.dataset()
SMALL = dataclasses.replace(
    suite.load("split_digits"), tasks=3, hidden=(6,), batch_size=4, iterations=2, samples=8, hyperparameters={}
)
ENDS = dataclasses.replace(SMALL, evaluation="ends")
NOT_TESTED = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)


@functools.cache
def records(name, one=ENDS, seeds=2):
    """The records of a tiny run, as they stand in the file."""
    job = Job(one, "class", name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        new = list(runner.run_job(job, DATA, range(seeds), path))
        kept = results.read(path)
    assert [r["seed"] for r in new] == [r["seed"] for r in kept] == list(range(seeds))
    return kept


# --- batch sizes ---


def test_a_batch_size_is_that_of_its_method_only():
    own = dataclasses.replace(SMALL, batch_sizes={"er": 10})
    job = lambda one, name: Job(one, "class", name)
    assert job(own, "er").batch_size == job(own, "er").experiment.batch_size == 10
    assert job(own, "er").config["protocol"]["batch_size"] == 10
    assert job(own, "naive").batch_size == job(own, "naive").experiment.batch_size == 4
    identity = lambda one, name: config_hash(job(one, name).config)
    assert identity(own, "naive") == identity(SMALL, "naive")
    assert identity(own, "er") != identity(SMALL, "er")
    assert identity(own, "er") == identity(dataclasses.replace(SMALL, batch_size=10), "er")  # how it was said is not it


def test_the_table_of_batch_sizes_is_no_part_of_a_configuration():
    protocol = Job(dataclasses.replace(SMALL, batch_sizes={"er": 10}), "class", "er").config["protocol"]
    assert "batch_sizes" not in protocol
    with pytest.raises(UsageError, match="'batch_sizes'"):
        suite.change(SMALL, {"batch_sizes": 3}, {"er": methods["er"]})


@pytest.mark.parametrize("name", suite.names())
def test_suites_give_batch_sizes_to_methods_that_there_are(name):
    one = suite.load(name)
    assert set(one.batch_sizes) <= set(methods) and all(size > 0 for size in one.batch_sizes.values())


# --- tested at the ends ---


def test_how_it_is_tested_is_part_of_a_configuration_only_where_it_is_not_the_suites_own():
    protocol = lambda one: Job(one, "class", "naive").config["protocol"]
    assert Job(ENDS, "class", "naive").experiment.evaluation == "ends"
    assert not {"evaluation", "inspected", "measure"} & protocol(SMALL).keys()  # as in results from before
    looked = dataclasses.replace(ENDS, inspected=4)
    assert (protocol(ENDS)["evaluation"], protocol(looked)["inspected"]) == ("ends", 4)
    assert len({config_hash(Job(one, "class", "naive").config) for one in (SMALL, ENDS, looked)}) == 3
    own = suite.load("input_permuted_mnist")  # tested at the ends and inspected, by its own file
    assert not {"evaluation", "inspected"} & own.protocol().keys()


def test_a_run_that_lacks_what_is_asked_is_not_taken_up(tmp_path):
    online, path = dataclasses.replace(SMALL, measure="online_accuracy"), tmp_path / "a.jsonl"
    ran = lambda one, seeds: [
        record["seed"] for record in runner.run_job(Job(one, "class", "naive"), DATA, seeds, path)
    ]
    assert ran(SMALL, [0]) == [0] and ran(online, [0, 1]) == [0, 1]
    assert ran(SMALL, [0, 1]) == ran(online, [0, 1]) == []  # these have both
    kept = results.latest(results.read(path))
    assert len(kept) == 2 and len({record["config_hash"] for record in kept}) == 1
    assert all(len(record["online_by_task"]) == 3 for record in kept)


def test_pictures_and_tables_of_runs_with_and_without_online_accuracy_or_vital_signs(tmp_path):
    asked = dataclasses.replace(SMALL, measure="online_accuracy", inspected=4)
    bare, *others = records.__wrapped__("naive", asked, 3)
    signs = {name: values for name, values in bare["report"].items() if name != "dormant units"}
    bare = bare | {"online_by_task": [], "report": signs, "metrics": {"accuracy": 0.5}}
    for runs in ([bare, *others], [*others, bare]):
        online_plots.online_accuracy({"class": runs}, tmp_path / "a.png")
        assert inside.reports(runs, tmp_path / "b.png")
        assert "| naive |" in tables.markdown(summaries.summarize(runs))


@pytest.mark.parametrize("name", ["naive", "owm"])
def test_at_the_ends_a_task_is_tested_after_it_and_after_all(name):
    for record in records(name):
        missing = [[cell is None for cell in row] for row in record["accuracy"]]
        np.testing.assert_array_equal(missing, NOT_TESTED)


def test_metrics_at_the_ends_are_those_of_the_cells_there_are():
    for record in records("naive"):
        matrix, found = np.array(record["accuracy"], float), record["metrics"]
        before, last = matrix.diagonal(), matrix[-1]
        assert found["accuracy"] == pytest.approx(last.mean())
        assert found["learning_accuracy"] == pytest.approx(before.mean())
        assert found["backward_transfer"] == pytest.approx((last - before)[:-1].mean())
        assert found["forgetting"] == pytest.approx((before - last)[:-1].mean())  # no row between that was better
        assert found["average_incremental_accuracy"] is None  # it asks for all tasks seen so far
        assert metrics.forgetting(record["accuracy"], "last") == pytest.approx(found["forgetting"])
        assert math.isfinite(metrics.forgetting(record["accuracy"], "mammoth"))
        assert math.isnan(metrics.backward_transfer(record["accuracy"], "all_pairs"))


def test_joint_training_has_one_row_and_that_is_full():
    (record,) = records("joint", seeds=1)
    assert np.isfinite(np.array(record["accuracy"], float)).all() and len(record["accuracy"]) == 1
    assert record["metrics"]["forgetting"] is None and record["metrics"]["accuracy"] > 0


def test_tables_and_pictures_of_runs_tested_at_the_ends(tmp_path):
    runs = [*records("naive"), *records("owm"), *records("joint", seeds=1)]
    table = tables.markdown(summaries.summarize(runs))
    assert all(f"| {name} | " in table for name in ("naive", "owm", "joint")) and "nan" not in table
    summaries.write_csv(tmp_path / "a.csv", summaries.summarize(runs))
    assert "nan" not in (tmp_path / "a.csv").read_text()
    plots.accuracy_over_tasks({"class": runs}, tmp_path / "a.png")
    plots.per_task(runs, tmp_path / "b.png")
    assert inside.reports(runs, tmp_path / "c.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in "abc")


# --- reports and contexts ---


def test_a_record_holds_what_the_method_says_of_itself_by_phase():
    for record in records("owm"):
        held = record["report"]
        assert set(held) == {"held layers/0", "held head"}
        for values in held.values():
            assert len(values) == 3 and 0 < values[0] < values[1] < values[2] < 1  # each task takes some more
    one, other = (record["report"] for record in records("owm"))
    assert one != other  # each seed its own
    assert records("naive")[0]["report"] == {}


COUNTS = np.array([[5, 3, 0, 0], [6, 1, 1, 0], [0, 0, 2, 6]], float)


def test_each_task_is_given_the_context_that_makes_most_right():
    # The first takes 1, so that the second may have 0: 3 + 6 + 6 of 24. Each its largest would give 0 twice, and 17.
    assert context_metrics(COUNTS) == {"context_accuracy": (3 + 6 + 6) / 24}
    assert context_metrics(COUNTS[:, ::-1]) == {"context_accuracy": 15 / 24}  # contexts have no names
    assert context_metrics(COUNTS[[2, 0, 1]]) == {"context_accuracy": 15 / 24}


def test_tasks_without_a_context_of_their_own_are_wrong():
    few = np.array([[4.0, 0], [0, 4], [2, 2]])
    assert context_metrics(few) == {"context_accuracy": 8 / 12}
    assert context_metrics(np.array([[4.0, 0], [4, 0]])) == {"context_accuracy": 4 / 8}  # all look alike


def test_without_contexts_there_is_no_share_of_them():
    assert context_metrics(np.zeros((3, 0))) == {}
    assert "context_accuracy" not in records("naive")[0]["metrics"]


def result_of(loss, online, diverged=(-1, -1)):
    """What one seed of three tasks of one step each, or more, left behind."""
    return Result(
        accuracy=np.ones((1, 3, 3)),
        report={},
        contexts=np.zeros((1, 3, 3, 0)),
        loss=np.array(loss, float)[None],
        online_accuracy=np.array(online, float)[None],
        diverged=np.array([diverged]),
        bytes=1,
        flops=1.0,
        seconds=1.0,
        compile_seconds=0.0,
        modes={},
    )


NAN = math.nan


@pytest.mark.parametrize(
    "loss, online, curves",
    [
        ([[3, 2], [1, NAN], [5, 4]], [[0, 0.5], [0.25, NAN], [1, 0]], ([3, 2, 1, 5, 4], [0, 0.5, 0.25, 1, 0])),  # idle
        (
            [[3, 2], [NAN] * 2, [NAN] * 2],
            [[0, 1], [0, 0], [0, 0]],
            ([3, 2, None, None, None, None], [0, 1, 0, 0, 0, 0]),
        ),
        ([[3, 2], [1, 2], [3, 4]], [[NAN] * 2] * 3, ([3, 2, 1, 2, 3, 4], [])),  # a method that says nothing
    ],
)
def test_curves_line_up_whatever_is_not_a_number(loss, online, curves, monkeypatch):
    record = record_of(Job(SMALL, "class", "naive"), "0", 0, 0, result_of(loss, online))
    assert tuple(results.plain([record["loss_curve"], record["online_accuracy_curve"]])) == curves
    logged = []
    run = types.SimpleNamespace(log=lambda row, **step: logged.append((row, step)), summary={}, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: run))
    logging.sink("offline")(record)
    steps = [row for row, step in logged if step]
    for name, curve in zip(("loss", "online_accuracy"), curves, strict=True):
        assert {i: row[name] for i, row in enumerate(steps) if name in row} == {
            i: value for i, value in enumerate(curve) if value is not None
        }


def test_seeds_that_ran_together_have_records_of_their_own():
    nothing, held = np.full((3, 4), np.nan), np.float32([[0, 0.25, 0.5], [0.5, 0.75, 1]])
    job, shape = Job(ENDS, "class", "naive"), (2, 3, 5)
    result = Result(
        accuracy=np.ones((2, 3, 3)),
        report={"held": held},
        contexts=np.stack([np.stack([nothing, nothing, counts]) for counts in (np.eye(3, 4), COUNTS)]),
        loss=np.zeros(shape),
        online_accuracy=np.zeros(shape),
        diverged=np.full((2, 2), -1),
        bytes=1,
        flops=1.0,
        seconds=1.0,
        compile_seconds=0.0,
        modes={},
    )
    one, other = (record_of(job, "0", seed, seed, result) for seed in range(2))
    assert [r["metrics"]["context_accuracy"] for r in (one, other)] == [1.0, 15 / 24]  # after the last phase
    assert [r["report"] for r in (one, other)] == [{"held": row} for row in held.tolist()]
