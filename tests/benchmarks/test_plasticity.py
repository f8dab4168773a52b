"""Suites about learning on and on: their streams, metrics, table, picture, and how they are cut and tuned."""

import dataclasses
import functools
import json
import math
import os
import tempfile
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from benchmarks import cli, online_plots, raster, results, runner, suite, summaries, tables, tuning
from benchmarks.jobs import Job, jobs_of
from neuroml.errors import UsageError
from neuroml.gate_methods import methods as gates
from neuroml.growth_methods import methods as growing
from neuroml.learner import Task
from neuroml.method import Situation
from neuroml.methods import methods
from neuroml.plasticity_methods import methods as plasticity
from neuroml.repair_methods import methods as repair
from neuroml.running import run

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("plasticity")

DATA = toy.dataset()
SMALL = dataclasses.replace(
    suite.load("input_permuted_mnist"), tasks=4, examples=8, hidden=(6, 5), inspected=8, hyperparameters={}
)
STREAMS = ("input_permuted_mnist", "label_permuted_mnist", "random_label_mnist", "permuted_mnist_500")


def records(name, one=None):
    return _records(name) if one is None else _run(name, one)


@functools.cache
def _records(name):
    return _run(name, SMALL)


def _run(name, one):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        list(runner.run_job(Job(one, "domain", name), DATA, [0, 1], path))
        return results.read(path)


# Those that differ in more than one rule are run; a compilation each is too much for the rest, whose rules have tests.
RUN = ("sgd", "crelu", "homeostasis", "growth")


@pytest.mark.parametrize("name", RUN)
def test_a_record_tells_of_learning(name):
    for record in records(name):
        assert record["diverged"] is None
        found = record["metrics"]
        assert found["online_accuracy"] == pytest.approx(np.mean(record["online_by_task"]), abs=1e-4)
        assert len(record["online_by_task"]) == 4 and -1 <= found["forgetting"] <= 1
        if name != "crelu":  # its neurons have no wiring
            assert 0 <= found["dead_units"] <= found["dormant_units"] <= 1 and len(record["report"]["weight size"]) == 4


@pytest.mark.parametrize("name", sorted((plasticity | repair | growing).keys() - set(RUN)))
def test_every_other_method_is_built_and_traced(name):
    job = Job(SMALL, "domain", name)
    given = (jax.random.key(0), {name: jnp.float32(value) for name, value in job.hyperparameters.items()})
    size, work = job.experiment.cost(*given, DATA)
    stream, state = jax.eval_shape(job.experiment.begin, *given, DATA)
    _, found = jax.eval_shape(job.experiment.finish, *given, stream, jnp.int32(0), state)
    assert size >= 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params)) and work > 0
    assert {"dead units", "weight size"} <= found.report.keys()


def test_methods_of_homeostasis_without_their_parts_are_sgd():
    inert = {"strength": 0.0, "anchoring": 0.0, "surprise": 0.0}
    bare = dataclasses.replace(
        SMALL, hyperparameters={"homeostasis": inert}, options={"homeostasis": {"adapts": False}}
    )
    for one, other in zip(records("homeostasis", bare), records("sgd"), strict=True):
        assert one["loss_curve"] == other["loss_curve"] and one["accuracy"] == other["accuracy"]
    assert records("homeostasis")[0]["loss_curve"] != records("sgd")[0]["loss_curve"]


def test_each_part_of_homeostasis_has_a_control_that_learns_otherwise():
    controls = [{}, {"pooled": True}, {"shuffled_inputs": True}, {"form": "shuffled"}]
    runs = [dataclasses.replace(SMALL, options={"homeostasis": {"every": 2, **control}}) for control in controls]
    assert len({tuple(records("homeostasis", one)[0]["loss_curve"]) for one in runs}) == 4


@functools.cache
def plain_losses():
    job = Job(SMALL, "domain", "sgd")
    return run(job.experiment, DATA, seeds=[0], hyperparameters=job.hyperparameters).loss


@pytest.mark.parametrize("name", sorted(gates))
def test_a_gate_that_is_switched_off_is_sgd(name):
    job = Job(SMALL, "domain", name)
    dial = "speed" if "speed" in job.hyperparameters else "strength"
    dials = {**job.hyperparameters, dial: [0.0, job.hyperparameters[dial]]}
    found = run(job.experiment, DATA, seeds=[0], hyperparameters=dials).loss
    np.testing.assert_allclose(
        found[0], plain_losses(), rtol=1e-5
    )  # another program: bits are for the conformance tests
    assert np.isfinite(found).all() and not np.allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"), [("intrinsic_plasticity", -1.5), ("intrinsic_plasticity", 1.0), ("synaptic_scaling", 0.0)]
)
def test_targets_that_no_neuron_can_have_are_refused_before_anything_runs(name, value):
    one = dataclasses.replace(SMALL, hyperparameters={name: {"target": value}})
    with pytest.raises(UsageError, match=f"target={value:g} must be more than 0.*{methods[name].summary}"):
        jobs_of(one, [name], ["domain"])
    job = Job(SMALL, "domain", name)
    swept = {**job.hyperparameters, "target": [0.5, value]}
    with pytest.raises(UsageError, match=f"target={value:g} must"):
        run(job.experiment, DATA, seeds=[0], hyperparameters=swept)


def test_adam_does_not_divide_the_gain_of_bcm_out():
    network = neuroml.mlp((2, 2, 1), hidden=(3,), outputs=2)
    params, _ = network.init(jax.random.key(0))
    at = Situation(Task(network, 1.0), optax.adam(0.1), 0.1, None, 4, outputs=2, tasks=1, scenario="domain")
    tx = gates["bcm"].transform(at, {"learning_rate": 0.1, "strength": 0.5, "decay": 0.99})
    answers = jnp.array([[2.0, 0.1, 0.1]] * 4)
    activity = {"layers": {0: jnp.ones((4, 4))}, "head": answers}
    ones = jax.tree.map(jnp.ones_like, params)
    step, _ = tx.update(ones, tx.init(params), params, activity=activity)
    gain = 1 + 0.5 * np.tanh((answers[0] - answers[0] ** 2) / answers[0] ** 3)
    np.testing.assert_allclose(step["layers"][0]["bias"], -0.1 * gain, rtol=1e-5)


def test_set_points_beside_condensates_that_protect_nothing_are_homeostasis():
    bare = dataclasses.replace(SMALL, hyperparameters={"condensate_homeostasis": {"protection": 0.0}})
    for one, other in zip(records("condensate_homeostasis", bare), records("homeostasis"), strict=True):
        assert one["loss_curve"] == other["loss_curve"] and one["accuracy"] == other["accuracy"]
    assert records("condensate_homeostasis")[0]["loss_curve"] != records("homeostasis")[0]["loss_curve"]


def test_condensates_without_set_points_are_the_projector():
    inert = {"strength": 0.0, "anchoring": 0.0}
    bare = dataclasses.replace(
        SMALL,
        hyperparameters={"condensate_homeostasis": inert},
        options={"condensate_homeostasis": {"adapts": False}},
    )
    for one, other in zip(records("condensate_homeostasis", bare), records("condensate_projector"), strict=True):
        assert one["loss_curve"] == other["loss_curve"] and one["accuracy"] == other["accuracy"]


def test_a_shell_learns_as_homeostasis_does_and_its_core_keeps_what_condensates_keep():
    mine, core, alone = (records(name)[0] for name in ("condensate_shell", "condensate_homeostasis", "homeostasis"))
    assert mine["accuracy"] == core["accuracy"] and mine["bytes"] > core["bytes"] and mine["flops"] > core["flops"]
    assert mine["loss_curve"] == alone["loss_curve"] != core["loss_curve"]
    online = records("condensate_shell", dataclasses.replace(SMALL, options={"condensate_shell": {"start": "core"}}))
    online, steps = online[0]["loss_curve"], 2 * SMALL.examples
    assert online[:steps] == alone["loss_curve"][:steps] != core["loss_curve"][:steps]
    assert online[steps:] != alone["loss_curve"][steps:]  # its third task begins with what the core kept of the second


def test_a_young_hyperparameter_is_part_of_the_identity_only_where_it_is_set():
    job = lambda bound: Job(suite.change(SMALL, {"homeostasis.bound": bound}, methods), "domain", "homeostasis")
    assert "bound" not in job(methods["homeostasis"].young["bound"]).config["hyperparameters"]
    assert job(2.0).config["hyperparameters"]["bound"] == 2.0
    bounded = dataclasses.replace(SMALL, hyperparameters={"homeostasis": {"bound": 0.5}})
    assert records("homeostasis", bounded)[0]["loss_curve"] != records("homeostasis")[0]["loss_curve"]


@pytest.mark.parametrize("name", ["nanotube", "growth"])
def test_methods_that_repair_and_grow_consolidate_where_they_are_told_to(name):
    kept = dataclasses.replace(SMALL, options={name: {"consolidates": True}})
    assert "held head" in records(name, kept)[0]["report"] and "held head" not in records(name)[0]["report"]
    assert records(name, kept)[0]["loss_curve"] != records(name)[0]["loss_curve"]


def test_random_rebirth_heals_whom_it_is_told_to():
    """At this threshold nearly all are silent, and none is destroyed before the injury."""
    reborn = lambda heals, **injury: records(
        "random_rebirth",
        dataclasses.replace(
            SMALL,
            options={"random_rebirth": {"every": 1, "heals": heals}},
            hyperparameters={"random_rebirth": {"threshold": 2.0}},
            **injury,
        ),
    )[0]["report"]["replaced"][-1]
    assert reborn("silent") > 0 == reborn("destroyed") < reborn("destroyed", injury=0.5, injury_at=18)


@pytest.mark.parametrize("name", ["random_rebirth", "nanotube"])
def test_methods_that_repair_hold_what_newborns_hand_on_where_they_are_told_to(name):
    given = {"every": 1, "heals": "silent", "consolidates": True}
    curve = lambda newborns: records(
        name,
        dataclasses.replace(
            SMALL, options={name: {**given, "newborns": newborns}}, hyperparameters={name: {"threshold": 0.5}}
        ),
    )[0]["loss_curve"]
    assert curve("held") != curve("free")


def test_growth_sprouts_where_it_is_told_to():
    options = {"when": "steps", "alive_percent": 50}
    grown = lambda strength, **more: records(
        "growth",
        dataclasses.replace(
            SMALL,
            options={"growth": {**options, **more}},
            hyperparameters={"growth": {"patience": 2.0, "sprouting": strength}},
        ),
    )[0]
    usual, inert, sprouted = grown(1.0), grown(0.0, sprouts=True), grown(1.0, sprouts=True)
    assert inert["loss_curve"] == usual["loss_curve"] != sprouted["loss_curve"]
    assert sprouted["report"]["sprouted"][-1] > 0 and "sprouted" not in usual["report"]
    assert sprouted["report"]["born"] == usual["report"]["born"]
    with pytest.raises(UsageError, match="sprouts=True reaches nobody where pairs=True"):
        grown(1.0, sprouts=True, pairs=True)


@pytest.mark.parametrize("part", ["injury", "severed"])
def test_an_injury_shows_in_curve_metrics_and_table(part):
    hurt = dataclasses.replace(SMALL, injury_at=18, **{part: 1.0})
    after, before = records("none", hurt)[0], records("none")[0]
    assert after["config_hash"] != before["config_hash"] and part not in before["config"]["protocol"]
    curve = lambda record: record["loss_curve"][:18]
    assert curve(after) == curve(before) and after["loss_curve"][18:] != before["loss_curve"][18:]
    assert "injury_loss" in after["metrics"] and "injury_loss" not in before["metrics"]
    text = tables.markdown(summaries.summarize([after]))
    assert "| lost | steps to recover |" in text and "Steps to recover: until" in text
    with pytest.raises(UsageError, match=f"{part}=1.5"):
        dataclasses.replace(SMALL, **{part: 1.5})


def test_an_injury_that_cannot_be_is_refused():
    late = dataclasses.replace(SMALL, injury=0.5, injury_at=32)
    with pytest.raises(UsageError, match="injury_at=32: .* 32 steps"):
        records("none", late)
    of_classes = Job(
        suite.change(suite.load("split_digits"), {"tasks": 3, "injury": 0.5, "injury_at": 10**6}, {}), "class", "none"
    )
    with pytest.raises(UsageError, match="injury_at=1000000: split_digits has"):
        next(runner.run_job(of_classes, DATA, [0], Path("never")))
    with pytest.raises(UsageError, match="no names"):
        records("crelu", dataclasses.replace(SMALL, injury=0.5, injury_at=3))


def test_conditioning_is_for_every_method_and_part_of_its_identity():
    seen = dataclasses.replace(SMALL, conditioning=0.9)
    assert records("sgd", seen)[0]["loss_curve"] != records("sgd")[0]["loss_curve"]
    assert records("sgd", seen)[0]["config_hash"] != records("sgd")[0]["config_hash"]
    assert "conditioning" not in records("sgd")[0]["config"]["protocol"]  # as in results from before it was there
    with pytest.raises(UsageError, match="conditioning=1.0"):
        dataclasses.replace(SMALL, conditioning=1.0)


def test_the_table_shows_what_the_suite_is_about():
    shown = summaries.summarize(records("sgd") + records("homeostasis"))
    text = tables.markdown(shown)
    header = text.splitlines()[0]
    for title in ("online accuracy", "first 250 steps", "slope", "last - first tasks", "dormant units", "rank"):
        assert f"| {title} " in header
    mean = 100 * np.mean([r["metrics"]["online_accuracy"] for r in records("sgd")])
    assert f"| sgd | {mean:.1f} ± " in text
    found = summaries.to_json(SMALL.name, "domain", records("sgd"))["methods"]["sgd"]["online_accuracy"]
    assert found["mean"] == pytest.approx(mean / 100)


def test_the_picture_is_drawn_in_stretches(tmp_path):
    online_plots.online_accuracy({"domain": records("sgd") + records("homeostasis")}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
    middle, means = online_plots.stretches(np.arange(200.0)[None])
    assert means.shape == (1, 40) and middle[0] == 3 and means[0, 0] == 2  # tasks 1 to 5 hold 0 to 4


@pytest.mark.parametrize("name", STREAMS)
def test_steps_cut_a_stream_to_whole_tasks(name):
    from benchmarks.commands import _cut, _tasks_of

    one = suite.load(name)
    each = (one.epochs or 1) * one.examples // one.batch_size
    assert _cut(one, _tasks_of(one, 3 * each)).tasks == 3
    assert _cut(one, _tasks_of(one, 3 * each + 1)).tasks == 4
    assert _cut(one, _tasks_of(one, None)) == one
    assert _cut(one, _tasks_of(one, 10**12)) == one


def test_steps_of_a_task_are_counted_as_the_experiment_counts_them():
    from benchmarks.commands import _tasks_of

    one = suite.load("growth_100")  # 10,000 images in batches of 128: 79 steps
    assert [_tasks_of(one, steps) for steps in (1, 79, 80, 790, 791)] == [1, 1, 2, 10, 11]
    for steps in (0, -50):
        with pytest.raises(UsageError, match=f"--steps {steps}: at least one"):
            _tasks_of(one, steps)


def test_a_stream_that_splits_its_classes_cannot_be_cut(capsys):
    assert cli.main(["run", "split_digits", "--steps", "100"]) == 2
    assert "split_digits" in capsys.readouterr().err
    assert cli.main(["tune", "split_digits", "--tasks", "2"]) == 2
    assert "fewer tasks would be other tasks" in capsys.readouterr().err


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


def tuned(monkeypatch, tmp_path, online, diverged, measure="online_accuracy"):
    """The row and the table of two values and one seed, of which `online` [2, phases, steps] is told."""
    found = types.SimpleNamespace(
        online_accuracy=np.array(online, float)[:, None],
        accuracy=np.ones((2, 1, 1, 1)),
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


def test_a_method_without_online_accuracy_is_not_chosen_by_it(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="sgd has no online_accuracy"):
        tuned(monkeypatch, tmp_path, np.full((2, 1, 1), NAN), [False, False])
    row, _ = tuned(monkeypatch, tmp_path, np.full((2, 1, 1), NAN), [False, False], "accuracy")
    assert row["chosen"] == 0.1


def test_all_suites_of_plasticity_know_their_methods_and_are_about_online_accuracy():
    for name in (*STREAMS, "label_permuted_cifar10", "random_label_mnist_long", "online_permuted_mnist_reduced"):
        one = suite.load(name)
        assert one.measure == "online_accuracy" and set(one.methods) <= set(methods)


def test_the_raster_shows_every_replacement():
    one = dataclasses.replace(SMALL, hyperparameters={"cbp": {"rate": 0.5, "maturity": 2.0}})
    found = raster.watched(Job(one, "domain", "cbp"), DATA, raster.renewed)
    assert {name: which.shape for name, which in found.items()} == {"hidden_0": (32, 6), "hidden_1": (32, 5)}
    counted = sum(which.sum() for which in found.values())
    assert counted == records("cbp", one)[0]["report"]["replaced"][-1] > 0


def test_the_raster_of_a_method_that_consolidates_is_that_of_its_run():
    """Growth when rank runs out needs what was consolidated: without it nobody is born."""
    given = {"consolidates": True, "when": "rank", "alive_percent": 50, "imagines": False}
    one = dataclasses.replace(SMALL, options={"growth": given}, hyperparameters={"growth": {"patience": 2.0}})
    found = raster.watched(Job(one, "domain", "growth"), DATA, raster.alive)
    report = records("growth", one)[0]["report"]
    for name, living in found.items():
        at_ends = living.reshape(one.tasks, -1, living.shape[-1])[:, -1].sum(-1)
        assert at_ends.tolist() == report[f"alive {name}"]
    assert report["born"][-1] > 0
