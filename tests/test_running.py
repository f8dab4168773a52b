"""Seeds and hyperparameters: one compiled program, and the results of as many single runs."""

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import programs as made
from neuroml import running
from neuroml.errors import UsageError
from neuroml.experiment import Findings
from neuroml.methods import Method
from neuroml.streams import scenarios

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")

DATA = toy.dataset()
CURVES = ("accuracy", "loss", "online_accuracy", "diverged")
SEEDS, STRENGTHS = (0, 1, 2, toy.SEED, 9), (0.0, 1e2, 1e4, 1e6)
# Other ways to drive a run round otherwise, and training amplifies that: a weight's 1e-7 becomes up to 1e-3 of the loss
# over these 21 steps. The test sets have 3 to 9 images, so one image that tips is 1/3 of an accuracy.
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}


@functools.cache
def run(method="ewc", *, seeds=SEEDS[:3], seeds_mode="map", steps_mode="scan", **given):
    """A run of the tiny experiment; the same call is made once."""
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    hyperparameters = {"learning_rate": 0.01, **settings}
    modes = {"seeds_mode": seeds_mode, "steps_mode": steps_mode}
    return neuroml.run(toy.experiment(method), DATA, seeds=seeds, hyperparameters=hyperparameters, **modes)


def curves(result, *where):
    return {name: getattr(result, name)[where] for name in CURVES}


def assert_equal(left, right):
    """Bit for bit, NaN where NaN."""
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def assert_close(left, right):
    for name in left:
        np.testing.assert_allclose(left[name], right[name], **TOLERANCE, err_msg=name)


@contextlib.contextmanager
def compilations(of=""):
    """Counts programs handed to XLA, also those that a cache on disk answers; `of` is part of their name."""
    names = []

    def listen(event, duration, *, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration" and of in fun_name:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# --- seeds and settings ---


def test_seeds_by_map_are_single_runs_bit_for_bit():
    together = run()
    for i, seed in enumerate(SEEDS[:3]):
        assert_equal(curves(together, i), curves(run(seeds=(seed,)), 0))
    assert together.modes == {"steps": "scan", "seeds": "map"}
    assert len(np.unique(together.loss[:, 0, 0])) == 3  # they are different runs


def test_seeds_by_vmap_are_single_runs_within_the_tolerance():
    assert_close(curves(run(seeds_mode="vmap")), curves(run()))


def test_a_loop_of_one_run_computes_one_branch_of_a_condition_and_a_batch_both():
    either = lambda x, y: jax.lax.cond(x > 0, lambda: x * y, lambda: x - y)
    alone, batch = (vmap(either, in_axes=(0, None), out_axes=0) for vmap in (made._alone, jax.vmap))
    given = jnp.ones(1), jnp.float32(3)
    assert "cond" in str(jax.make_jaxpr(alone)(*given)) and "cond" not in str(jax.make_jaxpr(batch)(*given))
    assert alone(*given).tolist() == batch(*given).tolist() == [3]


def test_a_loop_of_steps_is_the_scan_within_the_tolerance():
    looped = run(steps_mode="loop")
    assert looped.modes == {"steps": "loop", "seeds": "map"}
    assert np.isnan(looped.loss).any()  # phases differ in length
    assert_close(curves(looped), curves(run()))
    assert_equal(curves(looped, slice(1, 2)), curves(run(steps_mode="loop", seeds=SEEDS[1:2])))
    sweep = {"seeds": (0,), "strength": STRENGTHS[1:]}
    assert_close(curves(run(steps_mode="loop", **sweep)), curves(run(**sweep)))
    with compilations("step") as programs:
        batched = run(steps_mode="loop", seeds_mode="vmap")
    assert len(programs) == 1  # for three runs at once
    assert_close(curves(batched), curves(run()))


@pytest.mark.parametrize("seeds_mode", ["map", "vmap"])
def test_random_labels_run_in_a_loop_as_in_a_scan(seeds_mode):
    """Each seed has images of its own, and the loop batches all of a stream but the data."""
    experiment = dataclasses.replace(toy.experiment("naive"), maker=scenarios.random_labels(2, examples=9))
    drive = functools.partial(neuroml.run, experiment, DATA, seeds=[0, 1], hyperparameters={"learning_rate": 0.01})
    looped = drive(steps_mode="loop", seeds_mode=seeds_mode)
    assert_close(curves(looped), curves(drive(steps_mode="scan", seeds_mode="map")))


def test_strengths_times_seeds_compile_once_and_are_single_runs():
    singles = [[run(seeds=(seed,), strength=strength) for seed in SEEDS] for strength in STRENGTHS[:1]]
    with compilations() as anything:  # the program of single runs is there; no number makes it a new one
        singles += [[run(seeds=(seed,), strength=strength) for seed in SEEDS] for strength in STRENGTHS[1:]]
    assert not anything
    with compilations("every_run") as programs:
        sweep = run(seeds=SEEDS, strength=STRENGTHS)
    assert len(programs) == 1
    assert sweep.accuracy.shape == (4, 5, 3, 3) and sweep.loss.shape == (4, 5, 3, 9)
    for i, row in enumerate(singles):
        for j, single in enumerate(row):
            assert_equal(curves(sweep, i, j), curves(single, 0))
    assert len({sweep.loss[i, 0, -1].tobytes() for i in range(4)}) == 4  # the strength is not lost on the way


def test_other_numbers_reuse_the_program():
    run(seeds=SEEDS, strength=STRENGTHS)
    with compilations() as anything:
        run(seeds=(11, 12, 13, 14, 15), strength=(5.0, 6.0, 7.0, 8.0), learning_rate=(0.1, 0.2, 0.3, 0.4), decay=0.5)
    assert not anything


def test_hyperparameters_are_swept_in_step():
    result = run(seeds=(0,), strength=(0.0, 1e4, 0.0), learning_rate=(0.01, 0.01, 0.02))
    assert result.accuracy.shape == (3, 1, 3, 3)
    for i, (strength, rate) in enumerate([(0.0, 0.01), (1e4, 0.01), (0.0, 0.02)]):
        single = run(seeds=(0,), strength=strength, learning_rate=rate)
        assert_equal(curves(result, i, 0), curves(single, 0))


def test_strength_zero_is_the_optimizer_alone():
    assert_close(curves(run(strength=0.0)), curves(run("naive")))


def test_results_are_charged_per_run():
    one, three = run(seeds=(0,)), run()
    assert (one.bytes, one.flops) == (three.bytes, three.flops)
    assert one.bytes > run("naive").bytes and one.flops > run("naive").flops > 0
    assert three.seconds > 0 and three.compile_seconds >= 0


def test_the_driving_mode_follows_the_model():
    assert jax.default_backend() != "cpu" or running.choose_modes(toy.experiment(), DATA) == ("scan", "map")
    convolutional = dataclasses.replace(
        toy.experiment(), network=lambda shape, outputs: neuroml.cnn(shape, (2,), (), outputs)
    )
    assert jax.default_backend() != "cpu" or running.choose_modes(convolutional, DATA) == ("loop", "map")
    assert running.choose_modes(convolutional, DATA, "scan", "vmap") == ("scan", "vmap")


# --- divergence ---


@pytest.mark.parametrize("mode", ["map", "vmap"])
def test_a_setting_that_diverges_is_marked_and_the_others_never_notice(mode):
    good = run(seeds=(0,), seeds_mode=mode, learning_rate=(0.01, 0.02, 0.03))
    bad = run(seeds=(0,), seeds_mode=mode, learning_rate=(0.01, float("inf"), 0.03))
    # The loss of step 0 is from before the weights moved.
    np.testing.assert_array_equal(bad.diverged, [[[-1, -1]], [[0, 1]], [[-1, -1]]])
    for i in (0, 2):
        assert_equal(curves(bad, i), curves(good, i))
    assert not bad.accuracy[1].any()  # what is no number is wrong
    assert np.isnan(bad.loss[1, 0]).sum() > np.isnan(bad.loss[0, 0]).sum()


def _sometimes_nan(at, given):
    def update(updates, state, params, *, key, **_):
        breaks = given["active"] * (jax.random.uniform(key) < given["rate"])
        return jax.tree.map(lambda u: jnp.where(breaks > 0, jnp.nan, u), updates), state

    return optax.chain(at.optimizer, optax.GradientTransformationExtraArgs(lambda params: (), update))


@pytest.mark.parametrize("seeds_mode, steps_mode", [("map", "scan"), ("vmap", "loop")])
def test_a_seed_that_diverges_is_marked_with_its_phase_and_step(seeds_mode, steps_mode):
    rate, seeds = 0.04, tuple(range(12))
    method = Method("breaks down by chance", _sometimes_nan, hyperparameters={"rate": rate, "active": 1.0})
    experiment = dataclasses.replace(toy.experiment(), method=method)

    @jax.jit
    def by_hand(key):
        stream = experiment.stream(DATA, key)
        phases = jnp.arange(stream.phases)
        keys = jax.vmap(lambda phase: experiment.order(key, stream, phase)[1])(phases)
        length = jax.vmap(lambda phase: experiment.length(stream, phase))(phases)
        return jax.vmap(jax.vmap(jax.random.uniform))(keys) < rate, length

    wanted = []
    for seed in seeds:
        breaks, lengths = map(np.asarray, by_hand(jax.random.key(seed)))
        places = [(p, s) for p in range(3) for s in range(lengths[p]) if breaks[p, s]]
        # A NaN shows in the next loss; after the last step of a phase in the weights.
        wanted.append([(p, min(s + 1, int(lengths[p]) - 1)) for p, s in places[:1]] or [(-1, -1)])
    wanted = np.array(wanted)[:, 0]
    assert {-1, 0, 2} <= set(wanted[:, 0])

    drive = functools.partial(neuroml.run, experiment, DATA, seeds=seeds, seeds_mode=seeds_mode, steps_mode=steps_mode)
    result = drive(hyperparameters={"learning_rate": 0.01})
    np.testing.assert_array_equal(result.diverged, wanted)
    healthy = drive(hyperparameters={"learning_rate": 0.01, "active": 0.0})
    assert (healthy.diverged == -1).all()
    fine = wanted[:, 0] == -1
    assert_equal(curves(result, fine), curves(healthy, fine))


def test_a_break_in_the_last_step_of_a_phase_is_marked_there():
    ended = [[True, True], [False, False], [True, False], [True, True]]
    rows = running.Row(
        findings=Findings(np.zeros((4, 2, 2)), np.array(ended), {}, np.zeros((4, 2, 2, 0))),
        loss=np.array([[[1, 1, np.nan], [1, 1, 1]]] * 4, np.float32),  # phase 0 has two steps
        online=np.zeros((4, 2, 3)),
        steps=np.array([[2, 3]] * 4),
    )
    rows.loss[3, 1, 1] = np.inf
    wanted = [[-1, -1], [0, 1], [1, 2], [1, 1]]
    np.testing.assert_array_equal(running._first_divergence(rows), wanted)


# --- devices ---


ON_TWO_DEVICES = """
import sys, jax, numpy as np
sys.path[:0] = {path!r}
import toy, neuroml
used, shard_map = [], jax.shard_map
jax.shard_map = lambda function, *, mesh, **rest: used.append(mesh.size) or shard_map(function, mesh=mesh, **rest)
for runs, mode in {cases!r}:
    result = neuroml.run(toy.experiment(), toy.dataset(), seeds=range(runs), seeds_mode=mode, steps_mode="scan",
                         hyperparameters={{"learning_rate": 0.01}})
    np.savez({out!r} + f"/{{mode}}{{runs}}.npz", **{{name: getattr(result, name) for name in {names!r}}})
assert used == [2] * len({cases!r}), used
"""


def test_two_devices_give_the_results_of_one(tmp_path):
    cases = [(2, "map"), (3, "map"), (3, "vmap")]  # three runs: one device has a spare one, which is thrown away
    path = [str(toy.FOLDER), str(toy.FOLDER.parent)]
    script = ON_TWO_DEVICES.format(path=path, out=str(tmp_path), names=CURVES, cases=cases)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "XLA_FLAGS": flags, **cache}, check=True)
    for runs, mode in cases:
        here = curves(run("naive", seeds=SEEDS[:3]), slice(0, runs))
        assert_close(here, np.load(tmp_path / f"{mode}{runs}.npz"))


# --- mistakes ---


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"seeds": []}, ("no seeds",)),
        ({"seeds": [3, 4, 3]}, ("seeds=[3, 4, 3]", "not all different")),
        ({"seeds": [0, -1]}, ("seeds=[0, -1]", "from 0")),
        ({"seeds": [2**32]}, ("seeds=[4294967296]", "2**32 - 1")),
        ({"hyperparameters": {"learning_rate": 0.1, "strenght": 1.0}}, ("'strenght'", "'strength'", "decay")),
        ({"hyperparameters": {"strength": 1.0}}, ("learning_rate",)),
        ({"hyperparameters": {"learning_rate": [0.1, 0.2], "strength": [1.0, 2.0, 3.0]}}, ("[2, 3]",)),
        ({"hyperparameters": {"learning_rate": []}}, ("learning_rate has no values",)),
        ({"steps_mode": "skan"}, ("'skan'", "'scan'", "loop")),
        ({"seeds_mode": "scan"}, ("'scan'", "vmap", "map")),
    ],
)
def test_mistakes_are_named(arguments, words):
    usual = {"seeds": [0], "hyperparameters": {"learning_rate": 0.1}}
    with pytest.raises(UsageError) as error:
        neuroml.run(toy.experiment("ewc"), DATA, **{**usual, **arguments})
    for word in words:
        assert word in str(error.value)


def test_seeds_are_whole_numbers():
    running._check_seeds(range(3)), running._check_seeds([np.int64(3), 4])
    with pytest.raises(UsageError, match=r"seeds=\[0.2, 0.9\] must be whole numbers"):
        running._check_seeds([0.2, 0.9])  # would both be seed 0


@pytest.mark.parametrize("steps_mode", ["scan", "loop"])
def test_a_method_that_needs_boundaries_is_refused_before_anything_runs(steps_mode):
    experiment = toy.experiment("si", window=8)
    with compilations("every_run") as programs, pytest.raises(UsageError, match="does not tell"):
        neuroml.run(experiment, DATA, seeds=[0], hyperparameters={"learning_rate": 0.1}, steps_mode=steps_mode)
    assert not programs


def test_the_level_of_real_runs_compiles_where_tests_ask_for_less(request):
    """Tests run without optimizations (`conftest.py`), so none of them meets the option that all results had."""
    assert not made._compiler_options()
    jax.config.update("jax_disable_most_optimizations", False)
    request.addfinalizer(lambda: jax.config.update("jax_disable_most_optimizations", True))
    options = made._compiler_options()
    assert bool(options) == (jax.default_backend() == "cpu")
    assert jax.jit(lambda x: x + 1).lower(1.0).compile(options)(1.0) == 2.0
