"""An experiment trains each phase for its own length, charges what it holds and computes, and checks its arguments."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import neuroml
from neuroml import cost
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, StepInfo
from neuroml.method import Method
from neuroml.streams import scenarios

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")

DATA = toy.dataset()
SMALLEST, OUTPUTS, PIXELS = 9, 6, 16  # of two classes of DATA together; of three tasks, class-incremental; of 4 x 4
shapes = lambda tree: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


# --- length ---


@functools.cache
def ragged():
    """A run over phases of different length, with rules that would notice an idle step, and the same by hand."""
    experiment = toy.experiment("everything")
    result = neuroml.run(experiment, DATA, seeds=[toy.SEED], hyperparameters={"learning_rate": 0.01})
    return result, toy.trained_by_hand(experiment, toy.SEED)


def test_ragged_phases_end_where_a_hand_made_loop_ends():
    result, by_hand = ragged()
    assert [len(losses) for losses in by_hand.losses] == [6, 9, 6]
    np.testing.assert_allclose(result.accuracy[0], by_hand.accuracy, atol=1e-6)
    for name in ("loss", "online_accuracy"):
        curves = getattr(result, name)[0]
        wanted = by_hand.losses if name == "loss" else by_hand.online
        for curve, own in zip(curves, wanted, strict=True):
            np.testing.assert_allclose(curve[: len(own)], own, rtol=1e-3, atol=1e-5)


def test_curves_are_nan_at_idle_steps_and_nowhere_else():
    result, by_hand = ragged()
    idle = np.arange(result.loss.shape[-1]) >= np.array([len(losses) for losses in by_hand.losses])[:, None]
    assert idle.any()
    np.testing.assert_array_equal(np.isnan(result.loss[0]), idle)
    np.testing.assert_array_equal(np.isnan(result.online_accuracy[0]), idle)


def test_an_idle_step_changes_nothing_at_all():
    experiment = toy.experiment("everything")
    hyper, phase = toy.numbers_of(experiment), jnp.int32(0)
    stream, state = jax.jit(experiment.begin)(jax.random.key(toy.SEED), hyper, DATA)
    _, keys, positions = jax.jit(experiment.order)(jax.random.key(toy.SEED), stream, phase)
    length = int(experiment.length(stream, phase))
    assert length < experiment.steps(stream) == len(keys)
    take = jax.jit(experiment.step)
    last, _ = take(hyper, stream, phase, state, (jnp.int32(length - 1), keys[-1], positions[-1]))
    idle, info = take(hyper, stream, phase, state, (jnp.int32(length), keys[-1], positions[-1]))
    jax.tree.map(np.testing.assert_array_equal, idle, state)
    assert np.isnan(info.loss) and np.isnan(info.accuracy)
    assert not np.array_equal(jax.tree.leaves(last.params)[0], jax.tree.leaves(state.params)[0])


@pytest.mark.parametrize("epochs", [1, 3])
def test_each_example_is_used_in_each_epoch(epochs):
    experiment = toy.experiment(epochs=epochs)
    stream = experiment.stream(DATA, jax.random.key(0))
    for phase, size in enumerate(np.asarray(stream.size)):
        _, _, positions = experiment.order(jax.random.key(0), stream, jnp.int32(phase))
        steps = int(experiment.length(stream, jnp.int32(phase)))
        assert steps == math.ceil(epochs * size / 4) <= experiment.steps(stream)
        used = np.ravel(positions[:steps])[: epochs * size]
        np.testing.assert_array_equal(np.bincount(used), np.full(size, epochs))


def test_iterations_are_the_steps_of_every_phase():
    experiment = toy.experiment(iterations=7)
    stream = experiment.stream(DATA, jax.random.key(0))
    assert stream.ragged and experiment.steps(stream) == 7
    assert [int(experiment.length(stream, jnp.int32(phase))) for phase in range(3)] == [7, 7, 7]


def test_seeds_differ_in_all_they_draw():
    experiment = toy.experiment("everything")
    hyper = toy.numbers_of(experiment)
    (one, first), (two, second) = (jax.jit(experiment.begin)(jax.random.key(s), hyper, DATA) for s in (0, 1))
    assert not np.array_equal(one.labels, two.labels)
    kernel = lambda state: state.params["head"]["kernel"]
    assert not np.array_equal(kernel(first), kernel(second))
    # Equal seeds are alike also as trees with static parts, so that programs for one take the other.
    again = jax.eval_shape(experiment.begin, jax.random.key(0), hyper, DATA)[1]
    assert jax.tree.structure(again) == jax.tree.structure(first)


def test_phases_and_steps_have_keys_of_their_own():
    experiment = toy.experiment()
    stream = experiment.stream(DATA, jax.random.key(0))
    all_keys = [experiment.order(jax.random.key(s), stream, jnp.int32(p))[1] for s in (0, 1) for p in range(3)]
    numbers = jax.random.key_data(jnp.concatenate(all_keys))
    assert len({tuple(row) for row in np.asarray(numbers)}) == len(numbers)


def test_joint_training_is_one_phase_over_everything():
    experiment = toy.experiment("joint", epochs=3)
    stream = experiment.stream(DATA, jax.random.key(0))
    assert (stream.phases, stream.tasks, experiment.steps(stream)) == (1, 3, math.ceil(3 * 39 / 4))
    assert np.asarray(stream.seen).all()


@pytest.mark.parametrize("samples, wanted", [(4, 4), (1000, SMALLEST)])
def test_a_consolidation_sees_different_examples_of_its_own_phase(samples, wanted):
    seen = []

    def importance(predict, params, examples, key):
        seen.append(examples)
        return jax.tree.map(jnp.ones_like, params)

    method = dataclasses.replace(neuroml.methods.methods["ewc"], importance=lambda given: importance)
    experiment = dataclasses.replace(toy.experiment(), method=method, samples=samples)
    key, hyper, phase = jax.random.key(0), toy.numbers_of(experiment), jnp.int32(1)
    stream, state = jax.jit(experiment.begin)(key, hyper, DATA)
    after, _ = experiment.finish(key, hyper, stream, phase, state)
    (examples,) = seen
    found = [toy.numbers(DATA)[np.asarray(image).tobytes()] for image in examples.x]
    assert len({place for _, place, _ in found}) == wanted and {part for part, _, _ in found} == {"train"}
    order = np.argsort(np.asarray(stream.labels)[0])
    assert {c for *_, c in found} <= set(order[2:4]) and (np.asarray(examples.task) == 1).all()
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(after.opt_state[0].importance))


def _probes(maker, method="naive", number=6):
    """Returns the tasks of the examples on which vital signs are taken, [phases, number], and their positions."""
    experiment = make(method=neuroml.methods.methods[method], maker=maker, inspected=number)
    stream, key = experiment.stream(DATA, jax.random.key(0)), jax.random.key(0)
    batches = [experiment._probe(key, stream, jnp.int32(phase)) for phase in range(stream.phases)]
    return stream, batches


def test_vital_signs_of_a_task_are_taken_on_the_first_examples_of_its_row():
    stream, batches = _probes(scenarios.split(3))
    for phase, batch in enumerate(batches):
        jax.tree.map(np.testing.assert_array_equal, batch, stream.train_batch(phase, jnp.arange(6)))


def test_vital_signs_over_several_tasks_are_taken_on_examples_of_all_of_them():
    _, (batch,) = _probes(scenarios.split(3), "joint", 39)  # a row sorted by task
    assert len({image.tobytes() for image in np.asarray(batch.x)}) == 39
    _, (batch,) = _probes(scenarios.split(3), "joint", 12)
    assert set(batch.task.tolist()) == {0, 1, 2}
    stream, (first, *_) = _probes(scenarios.blended(scenarios.split(3), 8), number=8)  # a row in the order of time
    early = stream.train_batch(0, jnp.arange(8))
    assert not np.array_equal(first.x, early.x) and first.x.shape == early.x.shape


# --- when it is tested ---


@pytest.mark.parametrize("method", ["naive", "joint", "ewc"])
def test_tests_at_the_ends_are_some_of_those_of_every_phase(method):
    run = lambda evaluation: neuroml.run(
        toy.experiment(method, evaluation=evaluation), DATA, seeds=[toy.SEED], hyperparameters={"learning_rate": 0.01}
    )
    ends, every = run("ends"), run("all")
    tested = np.eye(3, dtype=bool) if method != "joint" else np.zeros((1, 3), bool)
    tested[-1] = True
    np.testing.assert_array_equal(np.isfinite(ends.accuracy[0]), tested)
    assert np.isfinite(every.accuracy).all() and len(np.unique(every.accuracy)) > 1
    np.testing.assert_array_equal(ends.accuracy[0][tested], every.accuracy[0][tested])
    np.testing.assert_array_equal(ends.loss, every.loss)  # it changes nothing that is learnt
    assert (ends.bytes, ends.flops) == (every.bytes, every.flops)


# --- a learner of one's own ---

HELD = 6  # a batch and a half


def _watching(at, given):
    """A learner that learns nothing, and remembers what it was shown before the first step and since."""
    pixels, shown = at.example.x.size, 4 * 40

    def init(key):
        del key
        none = lambda number: jnp.full(number, -1)
        blank = lambda number: {"x": jnp.zeros((number, pixels)), "y": none(number), "task": none(number)}
        return LearnerState({"before": blank(given["held"]), "since": blank(shown)}, (jnp.int32(0), jnp.int32(0)))

    def prepare(state, examples, key):
        del key
        prepared, steps = state.opt_state
        return LearnerState(state.params | {"before": flat(examples)}, (prepared + 1, steps))

    def step(state, batch, key):
        del key
        prepared, steps = state.opt_state
        add = lambda all_of_them, now: jax.lax.dynamic_update_slice_in_dim(all_of_them, now, steps * len(now), 0)
        since = jax.tree.map(add, state.params["since"], flat(batch))
        info = StepInfo(jnp.float32(0), jnp.float32(0))
        return LearnerState(state.params | {"since": since}, (prepared, steps + 1)), info

    def flat(batch):
        return {"x": batch.x.reshape(-1, pixels).astype(jnp.float32), "y": batch.y, "task": batch.task}

    def report(state):
        before, since = state.params["before"], state.params["since"]
        alike = [(a == b[: len(a)]).all() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(since), strict=True)]
        prepared, steps = state.opt_state
        return {"alike": jnp.stack(alike).all(), "prepared": prepared, "steps": steps}

    silent = lambda state, batch: jnp.zeros(batch.active.shape)
    return Learner(init, step, lambda state, *_: state, silent, prepare=prepare, report=report)


WATCHING = Method("looks on", learner=_watching, options={"held": HELD}, prepares=lambda given: given["held"])


def watching(**changed):
    return make(method=WATCHING, epochs=None, iterations=7, **changed)


def test_a_learner_prepares_on_the_examples_that_it_then_sees_first():
    state = toy.trained_by_hand(watching(), toy.SEED).state
    before, since = state.params["before"], state.params["since"]
    for name in ("x", "y", "task"):
        np.testing.assert_array_equal(before[name], since[name][:HELD])
    found = [toy.numbers(DATA)[np.asarray(x).astype(np.uint8).tobytes()] for x in before["x"]]
    assert len(set(found)) == HELD and {part for part, *_ in found} == {"train"}
    assert not before["task"].any() and since["task"].max() == 2  # of the first phase, and all three were seen
    assert tuple(map(int, state.opt_state)) == (1, 21)


@pytest.mark.parametrize("window", [None, 8])
def test_a_compiled_run_prepares_likewise_for_each_seed(window):
    maker = scenarios.split(3) if window is None else scenarios.blended(scenarios.split(3), window)
    given = {"hyperparameters": {"learning_rate": 0.1}, "seeds_mode": "vmap"}
    result = neuroml.run(watching(maker=maker), DATA, seeds=[0, 1], **given)
    np.testing.assert_array_equal(result.report["alike"], np.ones((2, 3), bool))
    np.testing.assert_array_equal(result.report["prepared"], np.ones((2, 3)))  # once, before the first phase
    np.testing.assert_array_equal(result.report["steps"], [[7, 14, 21]] * 2)


def test_who_holds_nothing_back_does_not_prepare():
    experiment = watching(options={"held": 0})
    _, state = experiment.begin(jax.random.key(0), toy.numbers_of(experiment), DATA)
    assert state.opt_state == (0, 0) and state.params["before"]["x"].shape == (0, PIXELS)


def test_a_method_needs_a_transform_or_a_learner():
    experiment = make(method=Method("empty-handed"))
    with pytest.raises(UsageError, match="'empty-handed' has neither a transform nor a learner"):
        jax.eval_shape(experiment.begin, jax.random.key(0), toy.numbers_of(experiment), DATA)


# --- arguments ---


def make(**changed):
    usual = {"method": neuroml.methods.methods["ewc"], "maker": scenarios.split(3), "batch_size": 4, "epochs": 1}
    return neuroml.Experiment(**{"network": lambda s, o: neuroml.mlp(s, (6,), o), **usual, **changed})


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"iterations": 5}, ("epochs=1", "iterations=5")),
        ({"epochs": None}, ("epochs=None", "iterations=None")),
        ({"epochs": 0}, ("epochs=0",)),
        ({"epochs": None, "iterations": 0}, ("iterations=0",)),
        ({"batch_size": 0}, ("batch_size=0",)),
        ({"samples": -1}, ("samples=-1",)),
        ({"inspected": -1}, ("inspected=-1",)),
        ({"optimizer": "adm"}, ("'adm'", "'adam'", "sgd")),
        ({"options": {"anchor": "latest"}}, ("'anchor'", "'anchors'", "form")),
        ({"evaluation": "end"}, ("'end'", "'ends'", "all")),
    ],
)
def test_bad_arguments_are_named(changed, words):
    with pytest.raises(UsageError) as error:
        make(**changed)
    for word in words:
        assert word in str(error.value)


def test_bad_values_of_options_are_named():
    for options, words in [({"form": "implicit"}, "'implicit'"), ({"anchors": "last"}, "'last'")]:
        experiment = make(options=options)
        with pytest.raises(UsageError, match=words):
            jax.eval_shape(experiment.begin, jax.random.key(0), toy.numbers_of(experiment), DATA)


def test_a_method_that_means_nothing_in_a_scenario_is_refused():
    for name, scenario, able in (("xdg", "class", "scenario task"), ("icarl", "domain", "scenario task or class")):
        experiment = toy.experiment(name, scenario=scenario)
        with pytest.raises(UsageError, match=f"means nothing in a {scenario}-incremental stream.*{able}"):
            jax.eval_shape(experiment.begin, jax.random.key(0), toy.numbers_of(experiment), DATA)


def test_methods_that_are_told_of_boundaries_are_refused_where_there_are_none():
    refused = [name for name, method in neuroml.methods.methods.items() if method.boundaries(method.options)]
    told = {"agem", "dgr", "dgr_distill", "ewc", "gpm", "hat", "icarl", "l2", "lwf", "mas", "owm", "packnet"}
    told |= {"active_dendrites_si", "rwalk", "si", "xdg_si"}
    condensates = {f"condensate_{kind}" for kind in ("anchor", "head", "homeostasis", "projector", "shell", "shuffled")}
    assert set(refused) == told | condensates
    for name, method in neuroml.methods.methods.items():
        if "class" not in method.scenarios:
            continue  # is refused for another reason: tests/test_contexts.py
        experiment = toy.experiment(name, window=8)
        if "features" in experiment.options:  # the images are too small for patches
            experiment = dataclasses.replace(experiment, options={**experiment.options, "features": "pixels"})
        begin = lambda e=experiment: jax.eval_shape(e.begin, jax.random.key(0), toy.numbers_of(e), DATA)
        if name in refused:
            with pytest.raises(UsageError, match="does not tell.*si_every"):
                begin()
        else:
            begin()
    with_past = dataclasses.replace(toy.experiment("er", window=8), options={"replay": "past"})
    with pytest.raises(UsageError, match="does not tell"):
        jax.eval_shape(with_past.begin, jax.random.key(0), toy.numbers_of(with_past), DATA)


# --- cost ---

A, B, V, S = jnp.zeros((3, 4)), jnp.zeros((4, 5)), jnp.zeros(4), jnp.eye(6)
solve, cho_factor, cho_solve = jax.lax.linalg.triangular_solve, jax.scipy.linalg.cho_factor, jax.scipy.linalg.cho_solve
PRODUCT = 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    "function, arguments, wanted",
    [
        (lambda a, b: jnp.tanh(a @ b) + 1, (A, B), PRODUCT),
        (lambda v: v @ v, (V,), 2 * 4),
        (lambda a, b: jnp.einsum("gij,gjk->gik", a, b), (jnp.zeros((7, 3, 4)), jnp.zeros((7, 4, 5))), 7 * PRODUCT),
        (jax.vmap(lambda a, b: a @ b, (0, None)), (jnp.zeros((7, 3, 4)), B), 7 * PRODUCT),
        (lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0, length=6), (A, B), 6 * PRODUCT),
        (lambda a, b: jax.lax.map(lambda row: row @ b, a), (A, B), PRODUCT),
        (lambda a, b: jax.lax.fori_loop(0, 6, lambda i, c: c + a @ b, jnp.zeros((3, 5))), (A, B), 6 * PRODUCT),
        (lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a @ b + (a @ b) ** 2), (A, B), 2 * PRODUCT),
        (lambda a, b: jax.jit(jax.checkpoint(lambda a, b: a @ b))(a, b), (A, B), PRODUCT),
        (jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), argnums=(0, 1)), (A, B), 3 * PRODUCT),
        (lambda a: jnp.sin(a).sum(), (A,), 0),
        (jax.lax.linalg.cholesky, (S,), 6**3 / 3),
        (jax.vmap(jnp.linalg.cholesky), (jnp.zeros((7, 6, 6)),), 7 * 6**3 / 3),
        (lambda s, b: solve(s, b, left_side=True), (S, jnp.zeros((6, 5))), 5 * 6**2),
        (lambda s, b: solve(s, b, left_side=False), (S, jnp.zeros((5, 6))), 5 * 6**2),
        (lambda s, b: solve(s, b, left_side=True), (jnp.zeros((7, 6, 6)), jnp.zeros((7, 6, 5))), 7 * 5 * 6**2),
        (lambda s, v: jax.scipy.linalg.solve_triangular(s, v), (S, jnp.zeros(6)), 6**2),
        (lambda s, b: cho_solve(cho_factor(s), b), (S, jnp.zeros((6, 5))), 6**3 / 3 + 2 * 5 * 6**2),
    ],
)
def test_flops_of_small_functions(function, arguments, wanted):
    assert cost.flops(function, *arguments) == wanted


def test_flops_of_scans_in_scans():
    inner = lambda c, _: (c, A @ B)
    outer = lambda c, _: (c, jax.lax.scan(inner, 0, length=3))
    assert cost.flops(lambda: jax.lax.scan(outer, 0, length=5)) == 15 * PRODUCT


def test_flops_of_a_convolutional_network():
    network, n = neuroml.cnn((8, 8, 3), channels=(2, 5), hidden=(7,), outputs=4), 6
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    images = jnp.zeros((n, 8, 8, 3))
    apply = lambda params, x: network.apply(params, {}, x)[0]
    first, second, dense = 2 * n * 64 * 9 * 3 * 2, 2 * n * 16 * 9 * 2 * 5, 2 * n * (2 * 2 * 5 * 7 + 7 * 4)
    assert cost.flops(apply, params, images) == first + second + dense
    # Backwards: the weights' gradients cost what the layer costs, the inputs' too, but the images need none.
    backward = cost.flops(jax.grad(lambda p, x: apply(p, x).sum()), params, images) - (first + second + dense)
    assert backward == first + 2 * second + 2 * dense


def price(experiment):
    return experiment.cost(jax.random.key(0), toy.numbers_of(experiment), DATA)


def dense_flops(n, hidden=6):
    """Forwards, and a training step: two more products a layer, but for the gradient of the images."""
    first, head = 2 * n * PIXELS * hidden, 2 * n * hidden * OUTPUTS
    return first + head, 2 * first + 3 * head


def test_flops_of_training():
    assert price(toy.experiment(iterations=7))[1] == 3 * 7 * dense_flops(4)[1]
    assert price(toy.experiment("joint", iterations=7))[1] == 7 * dense_flops(4)[1]
    assert price(toy.experiment(epochs=2))[1] == math.ceil(39 / 4) * 2 * dense_flops(4)[1]


def test_flops_of_replay_and_of_the_fisher_information():
    assert price(toy.experiment("er", iterations=7))[1] == 2 * 3 * 7 * dense_flops(4)[1]
    gradients = 8 * OUTPUTS  # one for each of 8 samples and each output, on CPUs one at a time
    weighted_sum = 2 * gradients * (PIXELS * 6 + 6 + 6 * OUTPUTS + OUTPUTS)
    fisher = dense_flops(8)[0] + dense_flops(gradients)[1] + weighted_sum
    assert price(toy.experiment("ewc", iterations=7))[1] == 3 * (7 * dense_flops(4)[1] + fisher)


@pytest.mark.parametrize("method", ["naive", "ewc", "si", "mas", "er", "si_on_surprise"])
def test_bytes_are_those_of_the_real_state(method):
    experiment = toy.experiment(method)
    state = experiment.begin(jax.random.key(0), toy.numbers_of(experiment), DATA)[1]
    assert price(experiment)[0] == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    weights = PIXELS * 6 + 6 + 6 * OUTPUTS + OUTPUTS
    assert price(experiment)[0] >= 3 * 4 * weights  # the weights, and two means of Adam


def test_er_pays_for_what_it_stores():
    sizes = [price(dataclasses.replace(toy.experiment("er"), options={"capacity": c}))[0] for c in (100, 101)]
    assert sizes[1] - sizes[0] == PIXELS + 4 + 4 + OUTPUTS + 4  # uint8 image, label, task, active outputs, stamp


def test_examples_that_are_held_back_are_paid_for_beside_the_state():
    held, none = watching(), watching(options={"held": 0})
    state = lambda one: cost.tree_bytes(jax.eval_shape(one.begin, jax.random.key(0), toy.numbers_of(one), DATA)[1])
    assert price(none)[0] == state(none)
    assert price(held)[0] - state(held) == HELD * (PIXELS + 4 + 4 + OUTPUTS)  # uint8 image, label, task, active outputs
