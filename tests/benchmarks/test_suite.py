"""Suites are plain data: each says its command, and `--set` changes what it may and names what it may not."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from benchmarks import suite
from benchmarks.jobs import Job, file_of, jobs_of
from benchmarks.results import config_hash
from neuroml.errors import UsageError
from neuroml.method import Situation
from neuroml.methods import methods
from neuroml.streams.sources import SOURCES

ROOT = Path(__file__).parents[2]
DIGITS = suite.load("split_digits")
TINY = toy.dataset()
SITUATION = Situation(None, optax.sgd(0.1), 0.1, None, 4, 6, 3, "class")
each = pytest.mark.parametrize("name", suite.names())


def changed(*settings, names=("naive", "ewc", "si", "er"), of=DIGITS):
    parsed = dict(suite.parse_setting(text) for text in settings)
    return suite.change(of, parsed, {name: methods[name] for name in names})


def test_the_suites_of_the_issue_are_there():
    assert {"split_digits", "split_mnist", "split_mnist_online", "permuted_mnist"} <= set(suite.names())


@each
def test_a_suite_says_its_own_command(name):
    docstring = ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))
    assert f"    python -m benchmarks run {name}" in docstring
    assert len(suite.load(name).summary) > 20 and suite.load(name).name == name


@each
def test_a_suite_names_only_what_there_is(name):
    one = suite.load(name)
    assert one.data in SOURCES and one.stream in suite.STREAMS and one.network in suite.NETWORKS
    assert (one.epochs is None) != (one.iterations is None)
    for method in {*one.methods, *one.hyperparameters, *one.options, *one.grids}:
        assert set(one.hyperparameters.get(method, {})) <= {"learning_rate", *methods[method].hyperparameters}
        assert set(one.grids.get(method, {})) <= {"learning_rate", *methods[method].hyperparameters}
        assert set(one.options.get(method, {})) <= set(methods[method].options)
    for job in jobs_of(one, one.methods, one.scenarios, asked=False):
        assert all(isinstance(number, float) for number in job.hyperparameters.values()), job
        assert job.experiment.options == job.options
        config_hash(job.config)


def test_importing_a_suite_imports_nothing_heavy():
    program = (
        "import sys; from benchmarks import suite; [suite.load(n) for n in suite.names()]; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@each
def test_numbers_stand_in_the_file_of_the_suite(name):
    # A suite is data: a literal call of Suite, nothing computed.
    tree = ast.parse((ROOT / "configs" / f"{name}.py").read_text())
    calls = [node for node in tree.body if isinstance(node, ast.Assign)]
    assert len(calls) == 1 and not [n for n in ast.walk(calls[0]) if isinstance(n, ast.ListComp | ast.For | ast.BinOp)]


# --- --set ---


@pytest.mark.parametrize(
    "text, field, value",
    [
        ("iterations=7", "iterations", 7),
        ("batch_size=5", "batch_size", 5),
        ("learning_rate=1", "learning_rate", 1.0),
        ("learning_rate=1e-2", "learning_rate", 0.01),
        ("optimizer=sgd", "optimizer", "sgd"),
        ("hidden=(8,4)", "hidden", (8, 4)),
        ("hidden=8", "hidden", (8,)),
        (" tasks = 2 ", "tasks", 2),
        ("window=50", "window", 50),
    ],
)
def test_set_changes_a_field_of_the_protocol(text, field, value):
    one = changed(text)
    assert getattr(one, field) == value and type(getattr(one, field)) is type(value)
    assert dataclasses.replace(one, **{field: getattr(DIGITS, field)}) == DIGITS  # and no other


def test_epochs_take_the_place_of_iterations_and_back():
    one = changed("epochs=3")
    assert (one.epochs, one.iterations) == (3, None)
    back = changed("iterations=9", of=one)
    assert (back.epochs, back.iterations) == (None, 9)


def test_set_changes_a_hyperparameter_of_one_method_or_of_all_that_have_it():
    strength = lambda one, name: one.given(name, "class").get("strength")
    all_of_them = changed("strength=3")
    assert [strength(all_of_them, name) for name in ("ewc", "si", "er")] == [3.0, 3.0, 3.0]
    assert type(strength(all_of_them, "ewc")) is float
    one = changed("ewc.strength=4.5")
    assert strength(one, "ewc") == 4.5
    assert [one.given(name, "class") for name in ("si", "er")] == [DIGITS.given(name, "class") for name in ("si", "er")]
    job = Job(one, "class", "ewc")
    assert job.hyperparameters["strength"] == 4.5 and job.options == methods["ewc"].options


def test_set_changes_a_static_option():
    one = changed("er.keep=reservoir", "er.capacity=50", "anchors=latest")
    er = one.given("er", "class")
    assert (er["keep"], er["capacity"]) == ("reservoir", 50)
    assert one.given("ewc", "class")["anchors"] == "latest"
    assert Job(one, "class", "er").experiment.options["capacity"] == 50


def test_set_overrides_what_a_suite_says_for_each_scenario():
    mnist = suite.load("split_mnist")
    assert len({mnist.given("ewc", name)["strength"] for name in mnist.scenarios}) > 1
    assert {changed("ewc.strength=7", of=mnist).given("ewc", name)["strength"] for name in mnist.scenarios} == {7.0}


def test_every_set_value_is_part_of_the_identity_of_a_result():
    texts = ["iterations=7", "learning_rate=1", "hidden=8", "ewc.strength=4.5", "ewc.anchors=latest", "samples=3"]
    hashes = [config_hash(Job(changed(*text), "class", "ewc").config) for text in ([], *zip(texts, strict=True))]
    assert len(set(hashes)) == len(texts) + 1
    assert config_hash(Job(changed("er.capacity=50"), "class", "ewc").config) == hashes[0]  # another method's


@pytest.mark.parametrize(
    "text, words",
    [
        ("strenght=3", ("'strenght'", "'strength'", "damping")),
        ("iteration=3", ("'iteration'", "'iterations'")),
        ("ewc.strenght=3", ("'ewc.strenght'", "strength", "anchors")),
        ("mas.strength=3", ("'mas'", "--methods", "ewc")),
        ("name=mine", ("'name'",)),
        ("seeds=3", ("'seeds'",)),
        ("iterations", ("name=value", "'iterations'")),
        ("iterations=", ("name=value", "'iterations='")),
        ("=3", ("name=value", "'=3'")),
        ("iterations=many", ("iterations='many'", "a whole number", str(DIGITS.iterations))),
        ("iterations=2.5", ("iterations=2.5", "a whole number")),
        ("iterations=True", ("iterations=True", "a whole number")),
        ("epochs=1.5", ("epochs=1.5", "whole number")),
        ("epochs=True", ("epochs=True", "whole number")),
        ("learning_rate=fast", ("learning_rate='fast'", "a number")),
        ("hidden=8x4", ("hidden='8x4'", "whole numbers with commas, like 100,100")),
        ("hidden=(8,'a')", ("hidden=(8, 'a')", "whole numbers with commas, like 100,100")),
        ("standardized=word", ("standardized='word'", "be numbers with commas, like 0.0,1.0")),
        ("er.capacity=1e3", ("er.capacity=1000.0", "a whole number")),
        ("si.clip_negative=1", ("si.clip_negative=1", "True or False")),
        ("optimizer=3", ("optimizer=3", "a word")),
        ("batch_size=0", ("batch_size=0", "at least 1")),
        ("inspected=-3", ("inspected=-3", "at least 0")),
        ("tasks=0", ("tasks=0", "at least 1")),
        ("examples=7", ("examples=7", "stream=permuted or label_permuted or random_labels", "split_digits", "split.")),
        ("pad=2", ("pad=2", "stream=permuted only")),
        ("interpolation=nonsense", ("interpolation='nonsense'", "stream=rotated only")),
        ("injury_at=7", ("injury_at=7", "needs injury or severed")),
        ("shared_head=True", ("shared_head=True", "stream=permuted or rotated")),
        ("standardized=(0.1,0.0)", ("standardized=(0.1, 0.0)", "deviation")),
        ("standardized=0.1", ("standardized=(0.1,)", "deviation")),
    ],
)
def test_what_cannot_be_set_is_named(text, words):
    with pytest.raises(UsageError) as error:
        changed(text)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_fields_that_nothing_in_the_suite_reads_are_refused_if_they_are_set_and_only_then():
    convolutional, labels = suite.load("split_cifar10"), suite.load("random_label_mnist")
    assert convolutional.hidden and changed("batch_size=5", of=convolutional).hidden == convolutional.hidden
    assert changed(f"hidden={convolutional.hidden}", of=convolutional) == convolutional  # nothing is changed by it
    with pytest.raises(
        UsageError, match=r"hidden=\(3,\) is read by network=mlp only, and split_cifar10 has network=cnn"
    ):
        changed("hidden=3", of=convolutional)
    assert changed("network=mlp", "hidden=3", of=convolutional).hidden == (3,)
    with pytest.raises(UsageError, match="ordered=True"):
        changed("ordered=True", of=labels)
    with pytest.raises(UsageError, match="examples=0 must be at least 1"):
        changed("examples=0", of=labels)
    with pytest.raises(UsageError, match="injury_at=-5 must be at least 0"):
        changed("injury=0.5", "injury_at=-5")


def test_a_setting_of_one_method_overrides_that_of_all_in_whichever_order_they_come():
    for settings in (("ewc.learning_rate=0.2", "learning_rate=0.1"), ("learning_rate=0.1", "ewc.learning_rate=0.2")):
        rate = {name: Job(changed(*settings), "class", name).hyperparameters["learning_rate"] for name in ("ewc", "si")}
        assert rate == {"ewc": 0.2, "si": 0.1}


@pytest.mark.parametrize("setting", ["learning_rate=-1.0", "naive.learning_rate=-1.0", "learning_rate=nan"])
def test_a_learning_rate_below_zero_is_refused(setting):
    name, value = setting.split("=")
    one = suite.change(DIGITS, {name: float(value)}, {"naive": methods["naive"]})
    with pytest.raises(UsageError, match="learning_rate=(-1|nan) of naive"):
        jobs_of(one, ["naive"], ["class"])


def test_unknown_names_of_suites_methods_and_scenarios_come_with_the_nearest():
    with pytest.raises(UsageError, match="'split_digit'. Did you mean 'split_digits'"):
        suite.load("split_digit")
    with pytest.raises(UsageError, match="'ewcc'. Did you mean 'ewc'"):
        jobs_of(DIGITS, ["ewcc"], ["class"])
    with pytest.raises(UsageError, match="'clas'. Did you mean 'class'.*domain, task"):
        jobs_of(DIGITS, ["ewc"], ["clas"])


def test_methods_that_need_boundaries_are_refused_where_there_are_none():
    blended = suite.load("blended_digits")
    with pytest.raises(UsageError, match="si must be told .* blended_digits does not tell") as error:
        jobs_of(blended, ["naive", "si"], ["class"])
    able = re.search("These run without: (.*)\\.", str(error.value))
    told = {name for name, method in methods.items() if method.boundaries(method.options)}
    of_one_task = {"separate", "xdg"}  # they take a batch to be of one task
    assert set(able.group(1).split(", ")) == set(methods) - told - of_one_task
    assert {"ewc", "si", "mas", "owm", "gpm"} < told
    with pytest.raises(UsageError, match="er must be told"):
        jobs_of(changed("er.replay=past", of=blended), ["er"], ["class"])
    with pytest.raises(UsageError, match="separate must be told"):
        jobs_of(changed("window=100"), ["separate"], ["task"])


def test_joint_training_takes_the_steps_of_all_tasks():
    job = lambda name, one=DIGITS: Job(one, "class", name).experiment
    assert (job("joint").iterations, job("naive").iterations) == (5 * DIGITS.iterations, DIGITS.iterations)
    online = suite.load("split_mnist_online")
    assert (job("joint", online).iterations, job("joint", online).epochs) == (None, 1)
    assert job("joint", changed("iterations=4", of=online)).iterations == 20


def test_files_tell_data_sets_and_scenarios_apart():
    job = Job(DIGITS, "class", "naive")
    other = Job(dataclasses.replace(DIGITS, data="mnist"), "task", "naive")
    assert file_of(Path("out"), job, "digits") == Path("out/split_digits.class.jsonl")
    assert file_of(Path("out"), other, "digits") == Path("out/split_digits.mnist.task.jsonl")


def test_a_method_is_left_out_of_scenarios_that_it_is_not_for_where_none_asked_for_it():
    one = suite.load("split_mnist")
    jobs = jobs_of(one, one.methods, one.scenarios, asked=False)
    scenarios = {name: {job.scenario for job in jobs if job.name == name} for name in ("hat", "icarl", "ewc")}
    assert scenarios == {"hat": {"task"}, "icarl": {"task", "class"}, "ewc": set(one.scenarios)}


def test_tasks_may_share_a_head_where_methods_do_not_need_one_each():
    told = suite.load("permuted_mnist_numenta")
    turned = dataclasses.replace(suite.load("rotated_mnist_20"), scenarios=("task",), shared_head=True)
    for one in (told, turned):
        (job,) = jobs_of(one, ["xdg"], ["task"])
        stream = job.experiment.stream(TINY, jax.random.key(0))
        assert (stream.scenario, stream.outputs) == ("task", TINY.classes)
    for name in ("hat", "packnet", "icarl", "generative_classifier"):
        with pytest.raises(UsageError, match=f"{name} takes each task to have its own outputs"):
            jobs_of(told, [name], ["task"])
    with pytest.raises(UsageError, match="no scenario task"):
        changed("shared_head=True", of=suite.load("permuted_mnist_20"))


def test_standardized_images_reach_the_network_once():
    plain, moved = (changed(*text) for text in ((), ("standardized=(0.25,0.5)",)))
    networks = [Job(one, "class", "naive").experiment.network((8, 8, 1), 10) for one in (plain, moved)]
    params, state = networks[0].init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    found, wanted = networks[1].apply(params, state, x)[0], networks[0].apply(params, state, (x - 0.25) / 0.5)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    fed = dataclasses.replace(moved, conditioning=0.99)
    for one, name in ((fed, "naive"), (moved, "homeostasis")):  # their running statistics take its place
        network = Job(one, "class", name).experiment.network((8, 8, 1), 10)
        np.testing.assert_array_equal(network.apply(params, state, x)[0], networks[0].apply(params, state, x)[0])
    plain = dataclasses.replace(moved, options={"homeostasis": {"adapts": False}})
    network = Job(plain, "class", "homeostasis").experiment.network((8, 8, 1), 10)
    np.testing.assert_array_equal(network.apply(params, state, x)[0], found)


@pytest.mark.parametrize("young", [{"shared_head": True}, {"standardized": (0.1, 0.3)}])
def test_a_young_field_is_part_of_the_identity_only_where_it_is_set(young):
    (name,) = young
    plain = suite.load("permuted_mnist_20")
    assert name not in Job(plain, "domain", "naive").config["protocol"]
    assert name in Job(dataclasses.replace(plain, **young), "domain", "naive").config["protocol"]


def test_a_ceiling_of_importance_reaches_si_and_is_named_where_it_is_set():
    jobs = [Job(changed(*text), "class", "si") for text in ((), ("si.ceiling=0.01",))]
    assert [job.config["hyperparameters"].get("ceiling") for job in jobs] == [None, 0.01]
    rules = [job.method.transform(SITUATION, {**job.options, **job.hyperparameters}) for job in jobs]
    ceilings = [float(rule.init({"w": jnp.ones(1)})[0].ceiling) for rule in rules]
    assert ceilings == [float("inf"), pytest.approx(0.01)]
    with pytest.raises(UsageError, match=r"needs a `ceiling` in \(0, inf\), but ceiling=-1"):
        jobs_of(changed("si.ceiling=-1.0"), ["si"], ["class"])


def test_a_number_without_end_is_within_its_limits_only_where_it_is_the_default():
    methods["si"].check({**methods["si"].hyperparameters, "ceiling": float("inf")})
    with pytest.raises(UsageError, match=r"needs a `target` in \(0, inf\), but target=inf"):
        methods["synaptic_scaling"].check({**methods["synaptic_scaling"].hyperparameters, "target": float("inf")})
