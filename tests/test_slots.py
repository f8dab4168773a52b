"""Slots: nothing is lost, one nucleates where many agree, merging is exact, reading is a kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroml import slots
from neuroml.errors import UsageError

SIZES = np.array([40, 3, 25, 2, 8, 1, 17, 5])
KINDS = np.array([0, 0, 1, 1, 0, 1, 2, 2])


@functools.partial(jax.jit, static_argnames="nucleus")
def absorb(state, keys, values, radius, nucleus=1, mobility=1.0, sound=None):
    return slots.absorb(state, keys, values, radius=radius, nucleus=nucleus, mobility=mobility, sound=sound)


def column(*numbers):
    return jnp.array(numbers, jnp.float32)[:, None]


def take(numbers, radius, budget=4, **kwargs):
    """Absorbs numbers on a line, each with the value 1, into an empty memory."""
    return absorb(slots.empty(budget, 1, 1), column(*numbers), jnp.ones((len(numbers), 1)), radius, **kwargs)


def alive(state):
    """Returns the mass of each slot that exists, by place."""
    place, mass = np.asarray(state.place[:, 0]), np.asarray(state.mass)
    return {round(float(place[k]), 3): float(mass[k]) for k in range(mass.size) if mass[k] > 0}


def droplets():
    """Eight slots on a line at 0, 1, 2, ..., of three kinds, and two that are empty."""
    pad = lambda a: jnp.asarray(np.concatenate([a, np.zeros((2, *a.shape[1:]))]).astype(np.float32))
    values = np.eye(3)[KINDS] * SIZES[:, None]
    return slots.Slots(pad(np.arange(8.0)[:, None]), pad(SIZES), pad(values), pad(np.arange(1.0, 9.0)))


@given(
    seed=st.integers(0, 2**31),
    budget=st.sampled_from([1, 3, 8]),
    radius=st.sampled_from([0.0, 0.5, 2.0, np.inf]),
    nucleus=st.sampled_from([1, 4]),
    mobility=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_every_example_is_in_one_slot_whatever_the_budget(seed, budget, radius, nucleus, mobility):
    random = np.random.default_rng(seed)
    keys = jnp.asarray(random.normal(size=(24, 2)), jnp.float32)
    values = jax.nn.one_hot(random.integers(0, 3, 24), 3)
    state, joined = absorb(slots.empty(budget, 2, 3), keys, values, jnp.float32(radius), nucleus, mobility)
    assert state.mass.sum() == 24
    np.testing.assert_array_equal(state.mass, np.bincount(joined, minlength=budget))
    np.testing.assert_array_equal(state.values, jax.nn.one_hot(joined, budget).T @ values)
    if mobility == 1:
        sums = jax.nn.one_hot(joined, budget).T @ keys
        np.testing.assert_allclose(state.place * state.mass[:, None], sums, rtol=1e-4, atol=1e-4)


def test_a_slot_nucleates_only_where_most_of_a_group_agrees_that_nothing_is_near():
    start, _ = take([0.0, 0.1, -0.1, 0.0], 1.0, nucleus=4)
    outlier, joined = absorb(start, column(0, 9, 0, 0), jnp.ones((4, 1)), 1.0, nucleus=4, mobility=0.0)
    assert alive(outlier) == {0.0: 8.0} and joined.tolist() == [0, 0, 0, 0]
    half, _ = absorb(start, column(0, 9, 9, 0), jnp.ones((4, 1)), 1.0, nucleus=4, mobility=0.0)
    assert alive(half) == {0.0: 8.0}
    most, joined = absorb(start, column(9, 10, 0, 11), jnp.ones((4, 1)), 1.0, nucleus=4, mobility=0.0)
    assert alive(most) == {0.0: 5.0, 10.0: 3.0} and joined.tolist() == [1, 1, 0, 1]
    one_by_one, _ = absorb(start, column(0, 9, 0, 0), jnp.ones((4, 1)), 1.0, nucleus=1, mobility=0.0)
    assert alive(one_by_one) == {0.0: 7.0, 9.0: 1.0}


def test_places_are_reused_in_order_and_near_ones_are_shared():
    state, joined = take([0, 5, 0.5, 9, 5.5], 2.0)
    assert joined.tolist() == [0, 1, 0, 2, 1]
    assert alive(state) == {0.25: 2.0, 5.25: 2.0, 9.0: 1.0}


def test_a_budget_of_one_slot():
    state, joined = take([0, 100, 200], 1.0, budget=1)
    assert alive(state) == {100.0: 3.0} and joined.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("mobility", "place"), [(1.0, 5.0), (0.0, 4.0)])
def test_an_infinite_radius_is_one_slot_where_the_stream_began(mobility, place):
    state, _ = take([4, 4, 6, 6], jnp.inf, nucleus=2, mobility=mobility)
    assert alive(state) == {place: 4.0}


def test_a_radius_of_zero_gives_each_place_a_slot():
    assert alive(take([1, 2, 1, 3], 0.0)[0]) == {1.0: 2.0, 2.0: 1.0, 3.0: 1.0}


def test_mobility_moves_a_slot_to_the_mean_or_leaves_it():
    assert alive(take([0, 1, 2], 3.0, mobility=0.0)[0]) == {0.0: 3.0}
    assert alive(take([0, 1, 2], 3.0, mobility=1.0)[0]) == {1.0: 3.0}


def test_what_is_not_sound_joins_nothing_and_nucleates_nothing():
    keys, sound = [0.5, np.nan, 9, np.inf, 0.6], jnp.array([True, False, True, False, True])
    with_them, _ = take(keys, 1.0, sound=sound)
    without, _ = take([0.5, 9, 0.6], 1.0)
    jax.tree.map(np.testing.assert_array_equal, with_them, without)
    start, _ = take([0], 1.0)
    few, _ = absorb(start, column(9, 9, np.nan, np.nan), jnp.ones((4, 1)), 1.0, 4, 0.0, jnp.arange(4) < 2)
    assert alive(few) == {0.0: 3.0}  # two of four are not most
    first, _ = take([np.nan, 7, np.nan, np.nan], 1.0, nucleus=4, mobility=0.0, sound=jnp.arange(4) == 1)
    assert alive(first) == {7.0: 1.0}  # there was none that it could join
    nothing, _ = take([np.nan] * 4, 1.0, nucleus=4, sound=jnp.zeros(4, bool))
    jax.tree.map(np.testing.assert_array_equal, nothing, slots.empty(4, 1, 1))


def test_valence_counts_the_calls_that_recruited_a_slot():
    state, _ = take([0, 0.1, 0.2, 9], 1.0)
    assert state.valence.tolist() == [1, 1, 0, 0]
    state, _ = absorb(state, column(0.0, 0.1), jnp.ones((2, 1)), 1.0)
    assert state.valence.tolist() == [2, 1, 0, 0]


def test_merging_keeps_all_sums_and_leaves_the_others_as_they_were():
    state = droplets()
    into = jnp.array([0, 0, 2, 2, 0, 5, 6, 7, 8, 9])
    merged = slots.merge(state, into)
    assert merged.mass[:3].tolist() == [51, 0, 27]
    assert merged.mass.sum() == state.mass.sum()
    np.testing.assert_array_equal(merged.values.sum(0), state.values.sum(0))
    moment = lambda s: (s.place * s.mass[:, None]).sum()
    np.testing.assert_allclose(moment(merged), moment(state), rtol=1e-6)
    np.testing.assert_allclose(merged.place[0, 0], (0 * 40 + 1 * 3 + 4 * 8) / 51, rtol=1e-6)
    assert merged.valence[:3].tolist() == [5, 0, 4]
    for before, after in zip(state, merged, strict=True):
        np.testing.assert_array_equal(after[5:8], before[5:8])


def test_places_that_nothing_goes_into_are_empty_however_it_is_compiled():
    """Of an empty segment the largest is -infinity, and that times 0 no number, unless XLA happens to rewrite it."""
    with jax.disable_jit():
        merged = slots.merge(droplets(), jnp.array([0, 0, 2, 2, 0, 5, 6, 7, 8, 9]))
    assert merged.valence.tolist() == [5, 0, 4, 0, 0, 6, 7, 8, 0, 0]


def test_without_tension_nothing_merges():
    assert slots.coarsening(droplets(), 0.0).tolist() == list(range(10))


def test_more_tension_leaves_fewer_slots_and_all_the_mass():
    state, left, merge = droplets(), [], jax.jit(lambda s, t: slots.merge(s, slots.coarsening(s, t)))
    for tension in (0.0, 0.5, 2.0, 5.0, 20.0, 1e6):
        after = merge(state, tension)
        assert after.mass.sum() == SIZES.sum()
        left.append(int(after.alive.sum()))
    assert left == sorted(left, reverse=True)
    assert left[0] == 8 and 1 <= left[-1] < 4 and len(set(left)) > 3


def test_a_slot_dissolves_into_the_nearest_that_stays_of_its_majority():
    """Slots 3 and 5 (kind 1) go to slot 2, past nearer ones of other kinds; 1 (kind 0) to 0; 7 (kind 2) to 6."""
    into = slots.coarsening(droplets(), 12.0).tolist()
    radius = np.cbrt(SIZES)
    gone = 12 * (1 - radius / radius.mean()) >= SIZES
    assert gone.tolist() == [False, True, False, True, False, True, False, False]
    assert into == [0, 0, 2, 2, 4, 2, 6, 7, 8, 9]


def test_without_kin_a_slot_dissolves_into_the_nearest_that_stays():
    state = slots.Slots(column(0, 4, 5), jnp.array([90.0, 1, 90]), jnp.diag(jnp.array([90.0, 1, 90])), jnp.ones(3))
    assert slots.coarsening(state, 5.0).tolist() == [0, 2, 2]


def test_an_empty_memory_coarsens_to_itself():
    state = slots.empty(3, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, slots.merge(state, slots.coarsening(state, 9.0)), state)


def test_what_was_recruited_often_outlives_what_was_recruited_once():
    state, _ = take([0, 0, 0, 0, 9, 9, 9, 9], 1.0)
    for _ in range(3):
        state = absorb(state, column(0), jnp.zeros((1, 1)), 1.0)[0]
    state = state._replace(mass=jnp.array([4.0, 4, 0, 0]))  # the same mass: only valence differs
    for _ in range(12):
        state = slots.evaporate(state, 0.5, binding=1.0)
    assert state.alive.tolist() == [True, False, False, False]
    assert state.valence.tolist() == [4, 0, 0, 0] and state.values[1] == 0
    unbound = slots.evaporate(state._replace(mass=jnp.array([4.0, 4, 0, 0])), 0.5)
    assert unbound.mass.tolist() == [2, 2, 0, 0]


def test_less_than_one_example_is_read_and_merged_as_itself():
    state, _ = take([3, 3], 1.0)
    state = slots.evaporate(state, 0.7)
    np.testing.assert_allclose(state.mass[0], 0.6, rtol=1e-6)
    np.testing.assert_allclose(slots.read(state, column(3), 1.0), 1, rtol=1e-6)
    assert slots.merge(state, jnp.arange(4)).place[0] == 3
    assert slots.evaporate(state, 0.7).mass[0] == 0


def test_shares_are_a_softmax_over_the_slots_that_exist():
    state, linker, keys = droplets(), 0.7, np.array([-1, 1.3, 4, 6.6, 9], np.float32)
    kernel = np.exp(-((keys[:, None] - np.arange(8.0)) ** 2) / (2 * linker**2))
    found = slots.shares(state, column(*keys), linker)
    np.testing.assert_allclose(found[:, :8], kernel / kernel.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)
    assert (found[:, 8:] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(slots.read(state, column(*keys), linker), found[:, :8] @ np.eye(3)[KINDS], rtol=1e-5)
    assert slots.nearest(state, column(*keys)).tolist() == [0, 1, 4, 7, 7]


@pytest.mark.parametrize("ask", [slots.read, slots.shares])
def test_an_empty_memory_answers_zero(ask):
    found = ask(slots.empty(3, 2, 4), jnp.ones((5, 2)), 0.5)
    assert (found == 0).all()


@pytest.mark.parametrize("ask", [slots.read, slots.shares])
def test_answers_have_gradients_even_at_a_slot_and_beside_empty_ones(ask):
    grad = jax.grad(lambda keys: (ask(droplets(), keys, 1.0) ** 2).sum())(column(0, 0.5, 3))
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(UsageError, match="at least 1"):
        slots.empty(*sizes)


@pytest.mark.parametrize("nucleus", [2, 0])
def test_examples_that_do_not_split_into_groups(nucleus):
    with pytest.raises(UsageError, match="groups of nucleus"):
        slots.absorb(slots.empty(1, 1, 1), column(1, 2, 3), jnp.ones((3, 1)), radius=1.0, nucleus=nucleus)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: slots.absorb(slots.empty(1, 1, 1), column(1), column(1), radius=-1),
        lambda: slots.absorb(slots.empty(1, 1, 1), column(1), column(1), radius=float("nan")),
        lambda: slots.absorb(slots.empty(1, 1, 1), column(1), column(1), radius=1, mobility=7),
        lambda: slots.read(droplets(), column(1), 0),
        lambda: slots.shares(droplets(), column(1), -1.0),
        lambda: slots.evaporate(droplets(), 1.5),
    ],
)
def test_numbers_that_mean_nothing(wrong):
    with pytest.raises(UsageError, match=r"a slot needs a `\w+` in"):
        wrong()


def test_distances_far_from_the_origin_are_those_near_it():
    state, _ = absorb(slots.empty(2, 3, 1), jnp.array([[0.0, 0, 0], [2, 1, 0]]), jnp.ones((2, 1)), 0.5)
    keys = jnp.array([[0.5, 0.25, 0.125]])
    far = state._replace(place=state.place + 4096)
    np.testing.assert_array_equal(slots.squared_distances(far, keys + 4096), slots.squared_distances(state, keys))
