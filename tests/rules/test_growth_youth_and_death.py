"""The young learn faster and are spared; the useless and the destroyed make room."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from growing_network import FULL, KEY, NAMES, SMALL, STILL, X, assert_dead_are_zero, capture, growing_room, same, still

import neuroml
from neuroml import ground, growing, interventions, surgery, units


def test_the_young_learn_faster_until_they_are_mature():
    tx = neuroml.growth(NAMES, when="steps", patience=100, number=1, maturity=4, youth_gain=3.0)
    state = tx.init(SMALL)._replace(wait=jnp.int32(99))
    updates, state = still(tx, state)
    params, ones = optax.apply_updates(SMALL, updates), jax.tree.map(jnp.ones_like, STILL)
    name, maker = ("first", "a") if state.renewed["first"].any() else ("second", "b")
    gains, update = [], jax.jit(tx.update)
    for _ in range(6):
        updates, state = update(ones, state, params, activity=capture(params)[1], key=KEY)
        gains.append(float(updates[maker]["bias"][3]))
        assert float(updates[maker]["bias"][0]) == 1.0, "neurons of the start are no newborns"
    assert gains == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0] and not state.renewed[name].any()


def test_importance_spares_the_young():
    tx = neuroml.growth(NAMES, when="steps", patience=2, number=1, maturity=4)
    updates, state = still(tx, tx.init(SMALL), 2)
    _, state = still(tx, state, params=optax.apply_updates(SMALL, updates))
    name = next(n for n, one in state.neurons.items() if one.alive[3])
    ones = jax.tree.map(jnp.ones_like, FULL)
    importance = neuroml.spare_young((optax.EmptyState(), state), NAMES, ones)
    first = 0.25 if name == "first" else 1.0  # one update old of four
    assert float(importance["a"]["kernel"][0, 3]) == first and float(importance["a"]["kernel"][0, 0]) == 1
    assert float(importance["b"]["kernel"][3, 0]) == first and float(importance["c"]["bias"][0]) == 1
    assert importance["b"]["kernel"][0].tolist()[:3] == [1, 1, 1]
    assert float(importance["c"]["kernel"][3, 0]) == (
        0.25 if name == "second" else float(state.maturities()["second"][3])
    )
    same(neuroml.spare_young(optax.adam(0.1).init(FULL), NAMES, ones), ones, atol=0)


def test_the_useless_die_when_mature_and_their_place_is_used_again():
    answers = {"a": X, "b": jnp.ones((20, 6)).at[:, 1].set(0.0), "c": jnp.ones((20, 5))}
    tx = neuroml.growth(NAMES, number=1, when="steps", patience=6, apoptosis=0.1, maturity=3)
    state, params = tx.init(FULL), FULL
    for i in range(6):
        updates, state = still(tx, state, params=params, activity=answers)
        params = optax.apply_updates(params, updates)
        assert int(state.deaths) == (1 if i >= 3 else 0)
        assert state.neurons["first"].alive.tolist() == [True, i < 3 or i == 5, True, True, True, True]
        assert_dead_are_zero(params, state)
    assert int(state.births) == 1 and state.renewed["first"].tolist() == [False, True, False, False, False, False]
    assert int(still(neuroml.growth(NAMES, number=1), neuroml.growth(NAMES).init(FULL), 300, FULL)[1].deaths) == 0


def test_the_destroyed_are_in_reserve_again_and_born_anew():
    tx = neuroml.growth(NAMES, when="steps", patience=1, number=2)
    _, state = still(tx, tx.init(FULL), params=FULL)
    hurt = interventions.lesion(NAMES, FULL, 0.5, KEY)
    params = jax.tree.map(lambda leaf, gone: jnp.where(gone, 0, leaf), FULL, hurt)
    run = jax.jit(lambda state, params, key: still(tx, state, params=params, key=key))
    lost = {"first": hurt["a"]["bias"], "second": hurt["b"]["bias"]}
    for i in range(4):
        updates, state = run(state, params, jax.random.fold_in(KEY, i))
        params = optax.apply_updates(params, updates)
        assert_dead_are_zero(params, state)
        for name, one in state.neurons.items():
            assert not one.utility[~one.alive].any() and (one.age[lost[name]] <= i).all()
    assert int(state.births) == sum(int(which.sum()) for which in lost.values()) == 5
    assert growing_room(state) == 0 and int(state.deaths) == 0
    assert all(which.all() for which in growing.living(units.find(NAMES, params), params).values())


@pytest.mark.parametrize("by", ["apoptosis", "a lesion"])
def test_the_dead_occupy_no_ground(by):
    """The layer behind will hear nothing of the kind again, even where a neuron without weights answers 1/2."""
    rows = {"a": X, "b": jax.random.normal(KEY, (20, 6)).at[:, 1].multiply(0.01), "c": jnp.ones((20, 5))}
    tx = neuroml.growth(NAMES, number=0, when="rank", scale=1e-3, maturity=1, apoptosis=0.05 * (by == "apoptosis"))
    _, state = still(tx, tx.init(FULL), params=FULL, activity=rows)
    occupied = neuroml.consolidate(state, FULL)
    assert occupied.ground["b"].core[1].any() and occupied.ground["b"].free[1, 1] < 1
    cut = surgery.touched(units.find(NAMES, FULL), FULL, {"first": jnp.arange(6) == 1})
    params = jax.tree.map(lambda leaf, gone: jnp.where(gone, 0, leaf), FULL, cut) if by == "a lesion" else FULL
    _, state = still(tx, occupied, 2, params=params, activity=rows)
    one, kept = state.ground["b"], np.delete(np.arange(7), 1)
    assert state.neurons["first"].alive.tolist() == [True, False, True, True, True, True]
    assert not one.core[1].any() and not one.shell[:, 1].any() and one.free[1].tolist() == np.eye(7)[1].tolist()
    assert 0 <= float(ground.free_share(one, 1)) < float(ground.free_share(one, 0))
    same(one.core[kept][:, kept], occupied.ground["b"].core[kept][:, kept], atol=0)
    same(state.ground["c"].core, occupied.ground["c"].core, atol=0)


def test_utility_is_that_of_a_plain_loop():
    tx, u = neuroml.growth(NAMES, number=0, decay=0.8), np.zeros(6)
    state, out = tx.init(SMALL), np.abs(SMALL["b"]["kernel"]).sum(1)
    for i in range(8):
        h = np.asarray(jax.random.normal(jax.random.fold_in(KEY, i), (4, 6)))
        _, state = still(tx, state, activity={"a": X[:4], "b": jnp.asarray(h), "c": jnp.ones((4, 5))})
        u += max(0.2, 1 / (i + 1)) * (np.abs(h).mean(0) * out - u)
    same(state.neurons["first"].utility, u)
    _, after = still(tx, state, activity={"a": X[:4], "b": jnp.full((4, 6), jnp.nan), "c": jnp.ones((4, 5))})
    assert jnp.isfinite(after.neurons["first"].utility).all()
