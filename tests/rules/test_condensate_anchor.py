"""Condensate anchor by hand: what condenses, what stays condensed, and where it is held."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError

N = 100
PARAMS = {"w": jnp.linspace(-1, 1, N)}
RANKED = {"w": jnp.arange(N, dtype=jnp.float32)}  # weight i ranks at (i + 0.5) / 100


def condensed(state):
    return np.flatnonzero(np.asarray(state.held()["w"]))


def consolidated(rule, *importances, params=PARAMS):
    state = rule.init(params)
    for importance in importances:
        state = neuroml.consolidate(state, params, importance=importance)
    return state


def swapped(i, j):
    """Returns importances in which weights i and j have changed places."""
    w = RANKED["w"]
    return {"w": w.at[i].set(w[j]).at[j].set(w[i])}


def test_one_weight_by_hand():
    rule = neuroml.condensate_anchor(0.5, shell_time=4.0)
    params = {"w": jnp.array([8.0, 0.0])}
    _, state = rule.update({"w": jnp.zeros(2)}, rule.init({"w": jnp.zeros(2)}), params)
    assert state.shell["w"].tolist() == [8 / 4, 0]  # a quarter of the way from 0, where it began
    state = neuroml.consolidate(state, params, importance={"w": jnp.array([5.0, 0.0])})
    assert state.occupancy["w"].tolist() == [0, 0]  # ranks 3/4 and 1/4: neither in the top fifth
    rule = neuroml.condensate_anchor(0.5, shell_time=4.0, budget=0.5, drive=4.0)
    state = neuroml.consolidate(state._replace(budget=0.5, drive=4.0), params, importance={"w": jnp.array([5.0, 0.0])})
    assert state.occupancy["w"].tolist() == [1, 0]  # 4 * (3/4 - 1/2) = 1, beyond 0.19
    assert state.core["w"].tolist() == [2, 0] and state.valence["w"].tolist() == [1, 0]
    step, _ = rule.update({"w": jnp.array([6.0, 6.0])}, state, params)
    # Half of the step is gated away, and c = 1/2: (8 + 3 + 2 / 2) / (3 / 2) = 8.
    np.testing.assert_allclose(params["w"] + step["w"], [8, 6], rtol=1e-6)


def test_by_default_the_top_tenth_condenses_and_the_top_three_tenths_stay():
    rule = neuroml.condensate_anchor(1.0)
    assert condensed(consolidated(rule, RANKED)).tolist() == list(range(90, 100))
    for rank, stays in [(80, True), (70, True), (69, False), (0, False)]:
        assert (95 in condensed(consolidated(rule, RANKED, swapped(95, rank)))) == stays
        assert rank in condensed(consolidated(rule, RANKED, swapped(95, rank)))  # it ranks 95 now


def test_what_has_not_condensed_is_not_touched():
    """Below the spinodal a supersaturated weight fills a little: it must neither lose steps nor be pulled."""
    state = consolidated(neuroml.condensate_anchor(1.0), RANKED)
    assert 0.1 < state.occupancy["w"][88] < 0.5
    step, _ = neuroml.condensate_anchor(1.0).update(RANKED, state, {"w": PARAMS["w"] + 3})
    assert step["w"][:90].tolist() == RANKED["w"][:90].tolist()


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("levels", [1, 3, 10, 10_000])
def test_no_more_than_the_budget_condenses_however_many_are_equal(budget, levels, key):
    importance = {"w": jax.random.randint(key, (N,), 0, levels).astype(jnp.float32)}
    rule = neuroml.condensate_anchor(1.0, budget=budget, drive=100.0)
    number = len(condensed(consolidated(rule, importance)))
    assert number <= budget * N
    assert number == 0 if levels == 1 else levels < 10_000 or number == round(budget * N)


def test_only_the_ranks_within_an_array_count(key):
    importance = {"w": jax.random.normal(key, (N,)), "b": jax.random.normal(key, (40,))}
    params = jax.tree.map(jnp.zeros_like, importance)
    changed = {"w": 1e6 * importance["w"], "b": jnp.exp(importance["b"])}
    rule = neuroml.condensate_anchor(1.0)
    left, right = (consolidated(rule, each, params=params).occupancy for each in (importance, changed))
    assert jax.tree.map(lambda a, b: a.tolist() == b.tolist(), left, right) == {"w": True, "b": True}
    assert {name: int((leaf > 0.5).sum()) for name, leaf in left.items()} == {"w": 10, "b": 4}


def test_the_core_follows_the_shell_ever_more_slowly():
    rule = neuroml.condensate_anchor(1.0)
    state = rule.init(PARAMS)
    cores = []
    for shell in (1.0, 2.0, 3.0):
        state = state._replace(shell={"w": jnp.full(N, shell)})
        state = neuroml.consolidate(state, PARAMS, importance=RANKED)
        cores.append(float(state.core["w"][-1]))
    second = 1 + np.exp(-1) * (2 - 1)
    np.testing.assert_allclose(cores, [1, second, second + np.exp(-2) * (3 - second)], rtol=1e-6)
    assert state.core["w"][0] == PARAMS["w"][0]


def test_a_weight_that_dissolved_starts_anew():
    rule = neuroml.condensate_anchor(1.0)
    state = consolidated(rule, RANKED, RANKED, swapped(99, 0))
    assert state.valence["w"][jnp.array([0, 98, 99])].tolist() == [1, 3, 0]
    state = neuroml.consolidate(state._replace(shell={"w": jnp.full(N, 7.0)}), PARAMS, importance=RANKED)
    assert state.core["w"][99] == 7


@pytest.mark.parametrize(("strength", "there"), [(0.0, 11.0), (0.5, 23 / 3), (1.0, 6.0), (3.0, 5.0), (1e30, 4.0)])
def test_a_condensed_weight_at_any_strength(strength, there):
    """At 8, its core at 4, about to step by 3: (8 + 1.5 + 2) / 1.5 = 23/3; from full freedom to the core itself."""
    rule = neuroml.condensate_anchor(strength)
    state = consolidated(rule, RANKED)._replace(core={"w": jnp.full(N, 4.0)})
    params = {"w": jnp.full(N, 8.0)}
    step, _ = rule.update({"w": jnp.full(N, 3.0)}, state, params)
    np.testing.assert_allclose(params["w"][-1] + step["w"][-1], there, rtol=1e-6)


def test_anchors_of_half_precision_weights_are_kept_in_full():
    """In bfloat16 a running mean over 100 steps would not move: 1 + 1 / 100 is 1."""
    params = {"w": jnp.ones(N, jnp.bfloat16)}
    tx = optax.chain(optax.sgd(0.1), neuroml.condensate_anchor(1.0))
    state = tx.init(params)
    _, state = tx.update(params, state, {"w": params["w"] + 1})
    np.testing.assert_allclose(state[1].shell["w"], 1.01, rtol=1e-6)


def test_held_weights_stay_while_the_others_learn():
    tx = optax.chain(optax.sgd(0.1), neuroml.condensate_anchor(1.0))
    state = neuroml.consolidate(tx.init(PARAMS), PARAMS, importance=RANKED)
    params = PARAMS
    for _ in range(20):
        updates, state = tx.update({"w": jnp.ones(N)}, state, params)
        params = optax.apply_updates(params, updates)
    moved = params["w"] - PARAMS["w"]
    np.testing.assert_allclose(moved[:90], -2, rtol=1e-5)
    np.testing.assert_allclose(moved[90:], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"budget": 0.0}, "budget=0.0 must lie between"),
        ({"budget": 1.0}, "budget=1.0 must lie between"),
        ({"drive": 0.9}, "drive . budget = 0.18 must pass the spinodal, 0.192"),
        ({"barrier": 3.0}, "nothing can condense"),
    ],
)
def test_what_cannot_be_is_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        neuroml.condensate_anchor(1.0, **kwargs)
