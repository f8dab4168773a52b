"""The recipes of the benchmarks that are built on condensates, in whole experiments on tiny data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import neuroml
from neuroml.cost import tree_bytes
from neuroml.experiment import Experiment
from neuroml.methods import methods
from neuroml.streams import scenarios

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("condensate methods")

DATA = toy.dataset((8,) * 6, (4,) * 6)  # three phases of 16 examples
PIXELS = {"features": "pixels", "held_back": 12}


def experiment(name, **options):
    method = methods[name]
    network = lambda shape, outputs: neuroml.mlp(shape, (6,), outputs)
    maker = scenarios.split(3, "class")
    return Experiment(method, network, maker, batch_size=4, epochs=2, options={**method.options, **options})


@functools.cache
def found(name, hyper=(), **options):
    """Returns the state of a method at the end, and what each phase left behind."""
    made = experiment(name, **options)
    return toy.whole(made)(jax.random.key(toy.SEED), toy.numbers_of(made, **dict(hyper)), DATA)


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def cores(state):
    """Returns what the projector holds, layer by layer."""
    of = lambda leaf: hasattr(leaf, "layers")
    return next(leaf for leaf in jax.tree.leaves(state.opt_state, is_leaf=of) if of(leaf)).layers


def test_a_share_of_the_energy_limits_what_cores_hold():
    whole, part = (cores(found("condensate_projector", (("kept", kept),))[0]) for kept in (1.0, 0.8))
    for home in whole:
        assert (part[home].energy > 0).sum() < (whole[home].energy > 0).sum()
        assert part[home].energy.sum() >= 0.8 * whole[home].energy.sum() * 0.8  # the tail goes, not the bulk


def test_bytes_limit_what_cores_hold():
    held = lambda state: sum(tree_bytes(one.basis) for one in cores(state).values())
    whole, part = (held(found("condensate_projector", max_bytes=limit)[0]) for limit in (0, 800))
    assert part <= 800 < whole


def test_a_shell_answers_before_anything_is_consolidated():
    silent, quick = (found("condensate_memory", (("shell_rate", rate),), **PIXELS) for rate in (0.0, 1.0))
    assert quick[1].online.mean() > silent[1].online.mean() + 0.2
    same(quick[1].findings.accuracy, silent[1].findings.accuracy)  # at the end of a phase the core has seen the same
    assert (quick[0].opt_state.memory.shell == 0).all()


@pytest.mark.parametrize(("name", "more"), [("condensate_memory", PIXELS), ("condensate_head", {})])
def test_tension_merges_slots_and_loses_none_of_their_mass(name, more):
    hyper = (("radius", 0.2), ("mix", 0.5))
    apart, merged = (found(name, hyper, slots=60, tension=tension, **more) for tension in (0, 20))
    assert merged[1].findings.report["slots"][-1] < apart[1].findings.report["slots"][-1]
    for state, _ in (apart, merged):
        memory = state.opt_state.memory
        assert memory.slots.mass.sum() == memory.seen == 2 * 48
    for one, two in zip(apart[0].opt_state.memory.core, merged[0].opt_state.memory.core, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)  # a shared core has nothing to do with slots


def test_the_head_stands_on_the_trunk_that_the_projector_trains():
    trunk, head = found("condensate_projector")[0], found("condensate_head", slots=5)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), trunk.params, head.params)


def test_the_control_of_the_dictionary_is_the_memory_without_its_rounds():
    small = {"width": 4, "size": 3, "pool": 1, "held_back": 12}
    control, memory, none = (
        found("patch_random", **small)[0],
        found("condensate_memory", **small)[0],
        found("condensate_memory", **small, rounds=0)[0],
    )
    same(jax.tree.leaves(control), jax.tree.leaves(none))
    assert (control.params["directions"] != memory.params["directions"]).any()


def test_a_memory_of_one_slot_is_ridge_regression_on_everything():
    """The brute-force reference: the normal equations of all 48 examples, each seen twice, in double precision."""
    memory = found("condensate_memory", (("ridge", 0.1),), **PIXELS)[0].opt_state.memory
    stream = experiment("condensate_memory", **PIXELS).stream(DATA, jax.random.key(toy.SEED))
    batches = [stream.train_batch(jnp.int32(phase), jnp.arange(16)) for phase in range(3)]
    x = np.concatenate([np.asarray(batch.x, np.float64).reshape(16, -1) / DATA.scale for batch in batches] * 2)
    y = np.eye(6)[np.concatenate([np.asarray(batch.y) for batch in batches] * 2)]
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    gram = x.T @ x
    weights = np.linalg.solve(gram + 0.1 * np.diag(np.diag(gram)), x.T @ y)
    np.testing.assert_allclose(memory.weights[0][:17], weights, rtol=1e-3, atol=1e-4)


def test_who_merges_slots_where_a_phase_ends_is_told_where_it_ends():
    told = lambda tension: experiment("condensate_memory", tension=tension).consolidates
    assert told(20) and not told(0)
