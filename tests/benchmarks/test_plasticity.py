"""Suites about learning on and on: their streams, methods, metrics, table, picture, and how they are cut."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_plasticity import DATA, SMALL, first_losses, records

import neuroml
from benchmarks import cli, online_plots, raster, suite, summaries, tables
from benchmarks.jobs import Job, jobs_of
from neuroml.errors import UsageError
from neuroml.gate_methods import methods as gates
from neuroml.growth_methods import methods as growing
from neuroml.learner import Task
from neuroml.method import Situation
from neuroml.methods import methods
from neuroml.penalty_methods import methods as penalties
from neuroml.plasticity_methods import methods as plasticity
from neuroml.repair_methods import methods as repair
from neuroml.running import run

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("plasticity")

STREAMS = ("input_permuted_mnist", "label_permuted_mnist", "random_label_mnist", "permuted_mnist_500")

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
    controls = [{}, {"pooled": True}, {"shuffled_inputs": True}, {"form": "shuffled"}, {"form": "zero"}]
    controls += [{"surprised": part, "surprise": 1.0} for part in ("all", "head", "head_always")]
    losses = set()
    for control in controls:
        one = dataclasses.replace(SMALL, examples=32, options={"homeostasis": {"every": 2, **control}})
        losses.add(tuple(first_losses("homeostasis", one).tolist()))
    assert len(losses) == len(controls)


@functools.cache
def plain_losses(batch_size):
    job = Job(dataclasses.replace(SMALL, batch_size=batch_size), "domain", "sgd")
    return run(job.experiment, DATA, seeds=[0], hyperparameters=job.hyperparameters).loss


@pytest.mark.parametrize("name", sorted([*gates, *penalties]))
def test_a_gate_or_penalty_that_is_switched_off_is_sgd(name):
    batch_size = 2 if name == "effective_rank" else 1  # a batch of one has a rank of one
    job = Job(dataclasses.replace(SMALL, batch_size=batch_size), "domain", name)
    dial = "speed" if "speed" in job.hyperparameters else "strength"
    dials = {**job.hyperparameters, dial: [0.0, job.hyperparameters[dial]]}
    found = run(job.experiment, DATA, seeds=[0], hyperparameters=dials).loss
    np.testing.assert_allclose(
        found[0], plain_losses(batch_size), rtol=1e-5
    )  # another program: bits are for the conformance tests
    assert np.isfinite(found).all() and not np.allclose(found[1], found[0], rtol=1e-5)


CONTROLS = {
    **dict.fromkeys((name for name in gates if "shuffled" in gates[name].options), "shuffled"),
    "activity_rate": "pooled",
}


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_the_control_of_a_gate_or_penalty_learns_otherwise(name):
    soon = {"maturity_lock": {"rate": 0.1}}  # locks need some time
    small = dataclasses.replace(SMALL, examples=32, hyperparameters=soon)
    one = lambda on: dataclasses.replace(small, options={name: {CONTROLS[name]: on}})
    own, control = (first_losses(name, one(on)) for on in (False, True))
    assert np.isfinite(control).all() and not np.allclose(own, control, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"), [("intrinsic_plasticity", -1.5), ("intrinsic_plasticity", 1.0), ("synaptic_scaling", 0.0)]
)
def test_targets_that_no_neuron_can_have_are_refused_before_anything_runs(name, value):
    one = dataclasses.replace(SMALL, hyperparameters={name: {"target": value}})
    with pytest.raises(UsageError, match=f"{methods[name].summary}.*needs a `target` in .*, but target={value}"):
        jobs_of(one, [name], ["domain"])
    job = Job(SMALL, "domain", name)
    swept = {**job.hyperparameters, "target": [0.5, value]}
    with pytest.raises(UsageError, match=f"but target={value}"):
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


@pytest.mark.parametrize(
    ("setting", "other", "tolerance"),
    [("decorrelation", "condensate_projector", 1e-3), ("strength", "sgd", 0.0)],  # the projector is rounded otherwise
)
def test_the_metric_without_its_parts_is_the_projector_or_sgd(setting, other, tolerance):
    quick = lambda **off: dataclasses.replace(
        SMALL,
        hyperparameters={"condensate_metric": {"input_decay": 0.5, **off}},
        options={"condensate_metric": {"every": 2}},
    )
    losses = lambda name, one=None: [record["loss_curve"] for record in records(name, one)]
    np.testing.assert_allclose(
        losses("condensate_metric", quick(**{setting: 0.0})), losses(other), rtol=tolerance, atol=tolerance / 10
    )
    assert not np.allclose(losses("condensate_metric", quick()), losses(other), rtol=0.01)


def test_a_shell_learns_as_homeostasis_does_and_its_core_keeps_what_condensates_keep():
    mine, core, alone = (records(name)[0] for name in ("condensate_shell", "condensate_homeostasis", "homeostasis"))
    assert mine["accuracy"] == core["accuracy"] and mine["bytes"] > core["bytes"] and mine["flops"] > core["flops"]
    assert mine["loss_curve"] == alone["loss_curve"] != core["loss_curve"]
    online = records("condensate_shell", dataclasses.replace(SMALL, options={"condensate_shell": {"start": "core"}}))
    online, steps = online[0]["loss_curve"], 2 * SMALL.examples
    assert online[:steps] == alone["loss_curve"][:steps] != core["loss_curve"][:steps]
    assert online[steps:] != alone["loss_curve"][steps:]  # its third task begins with what the core kept of the second


@pytest.mark.parametrize(
    ("core", "own", "strength"),
    [("condensate_homeostasis", {"adapts": False}, "protection"), ("condensate_metric", {}, "strength")],
)
def test_a_core_is_what_the_method_of_its_name_is(core, own, strength):
    one = dataclasses.replace(
        SMALL,
        options={"condensate_shell": {"adapts": False, "every": 2, "core": core}, core: {**own, "every": 2}},
        hyperparameters={
            "condensate_shell": {"input_decay": 0.5, "protection": 0.5},
            core: {"input_decay": 0.5, strength: 0.5},
        },
    )
    mine, other = (records(name, one)[0]["accuracy"] for name in ("condensate_shell", core))
    assert mine == other


def test_a_core_that_is_not_known_is_named():
    one = dataclasses.replace(SMALL, options={"condensate_shell": {"core": "condensate"}})
    with pytest.raises(UsageError, match="'condensate'.*condensate_homeostasis, condensate_metric"):
        records("condensate_shell", one)


def test_a_young_hyperparameter_is_part_of_the_identity_only_where_it_is_set():
    job = lambda bound: Job(suite.change(SMALL, {"homeostasis.bound": bound}, methods), "domain", "homeostasis")
    assert "bound" not in job(methods["homeostasis"].young["bound"]).config["hyperparameters"]
    assert job(2.0).config["hyperparameters"]["bound"] == 2.0
    bounded = dataclasses.replace(SMALL, hyperparameters={"homeostasis": {"bound": 0.5}})
    assert records("homeostasis", bounded)[0]["loss_curve"] != records("homeostasis")[0]["loss_curve"]


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


def test_all_suites_of_plasticity_know_their_methods_and_are_about_online_accuracy():
    for name in (*STREAMS, "label_permuted_cifar10", "random_label_mnist_long", "online_permuted_mnist_reduced"):
        one = suite.load(name)
        assert one.measure == "online_accuracy" and set(one.methods) <= set(methods)
    both = suite.load("permuted_mnist_100_short")
    assert both.is_online and both.measure == "online_and_final_accuracy" and not suite.load("split_mnist").is_online


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
