"""Growth: reserves, births that nobody notices, and mistakes, against plain references."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from growing_network import (
    FULL,
    KEY,
    NAMES,
    SMALL,
    X,
    assert_dead_are_zero,
    capture,
    growing_room,
    loss,
    network,
    same,
    still,
    train,
)

import neuroml
from neuroml import growing, units
from neuroml.errors import MissingWordError, UsageError


def test_reserve_zeroes_all_that_enters_or_leaves():
    keep = {"first": np.arange(6) < 3, "second": np.arange(5) < 3}
    same(SMALL["a"], {"kernel": FULL["a"]["kernel"] * keep["first"], "bias": FULL["a"]["bias"] * keep["first"]}, atol=0)
    both = keep["first"][:, None] * keep["second"]
    same(SMALL["b"], {"kernel": FULL["b"]["kernel"] * both, "bias": FULL["b"]["bias"] * keep["second"]}, atol=0)
    same(SMALL["c"]["kernel"], FULL["c"]["kernel"] * keep["second"][:, None], atol=0)
    count = lambda alive: [int(w.sum()) for w in growing.living(units.find(NAMES, FULL), alive).values()]
    assert count(growing.reserve(FULL, NAMES, 0.5)) == [3, 3] and count(
        growing.reserve(FULL, NAMES, {"second": 1})
    ) == [6, 1]
    assert count(FULL) == count(growing.reserve(FULL, NAMES, 1.0)) == [6, 5]  # a share of one: all
    assert count(growing.reserve(FULL, NAMES, 1)) == [1, 1]


@pytest.mark.parametrize("number", [0, 6, -1, 1.5, 0.0])
def test_reserve_refuses_numbers_that_a_population_does_not_have(number):
    with pytest.raises(UsageError, match="needs a share in \\(0, 1\\], or a number from 1 to"):
        growing.reserve(FULL, NAMES, number)
    with pytest.raises(UsageError, match="unknown population 'frist'. Did you mean 'first'"):
        growing.reserve(FULL, NAMES, {"frist": 2})


# births


@pytest.mark.parametrize("directions", ["free", "random"])
def test_a_birth_leaves_the_function_as_it_is(directions):
    tx = neuroml.growth(NAMES, network, when="steps", patience=1, number=2, directions=directions)
    params, state = SMALL, tx.init(SMALL)
    for i in range(4):
        before, _ = capture(params)
        updates, state = still(tx, state, params=params, key=jax.random.fold_in(KEY, i))
        params = optax.apply_updates(params, updates)
        assert abs(capture(params)[0] - before).max() < 1e-6
        assert_dead_are_zero(params, state)
    assert int(state.births) == 5 and int(state.refused) == 1 and growing_room(state) == 0
    assert float(state.report()["alive first"]) == 6 and float(state.report()["growth refused"]) == 1
    new = units.incoming(units.find(NAMES, params), params)
    assert all((value > 0).all() for value in new.values()), "the newborn listen"


@pytest.mark.parametrize("number", [2, 3])
def test_pairs_leave_the_function_as_it_is_and_their_weights_do_not_start_from_zero(number):
    """Of three that are born two are a pair, and the one left over hands on nothing."""
    tx = neuroml.growth(NAMES, network, when="steps", patience=1, number=number, directions="random", pairs=True)
    before, _ = capture(SMALL)
    updates, state = still(tx, tx.init(SMALL))
    params = optax.apply_updates(SMALL, updates)
    same(capture(params)[0], before, atol=1e-5)
    assert_dead_are_zero(params, state)
    ((name, which),) = [(name, one) for name, one in state.renewed.items() if one.any()]
    part = units.find(NAMES, params)[name]
    entering, leaving = params[part.makers[0]], params[part.readers[0]]["kernel"]
    first, second, *left = np.flatnonzero(which)
    same(entering["kernel"][:, first], entering["kernel"][:, second])
    same(entering["bias"][first], entering["bias"][second])
    same(leaving[first], -leaving[second])
    assert abs(leaving[first]).max() > 0.1 and len(left) == number - 2
    assert not leaving[np.array(left, int)].any()


@pytest.mark.parametrize(
    "given",
    [{"directions": "free"}, {"directions": "random"}, {"directions": "random", "pairs": True, "number": 2}],
    ids=["free", "random", "pairs"],
)
def test_newborns_get_the_fresh_weights_and_hear_no_neuron_in_reserve(given):
    tx = neuroml.growth(NAMES, network, when="steps", patience=1, where="random", **given)
    for i in range(20):
        key = jax.random.fold_in(KEY, i)
        updates, state = still(tx, tx.init(SMALL), key=key)
        if state.renewed["second"].any():
            drawn = network(jax.random.split(key, 3)[2])["b"]
            same(updates["b"]["kernel"][:, 3], drawn["kernel"][:, 3] * (jnp.arange(6) < 3))
            same(updates["b"]["bias"][3], drawn["bias"][3])
            return
    raise AssertionError("nothing was born in the second population")


def test_default_draws_are_those_of_a_network_as_large_as_the_living_part():
    params = {"a": {"kernel": jnp.ones((400, 300)).at[100:].set(0), "bias": jnp.ones(300)}}
    fresh = growing.draw(KEY, params)["a"]
    assert abs(float(fresh["kernel"].std()) * 10 - 1) < 0.02 and (fresh["bias"] == 0).all()


def test_free_directions_are_those_of_numpy():
    tx = neuroml.growth(NAMES, network, when="steps", patience=3, scale=0.005)
    x = X.at[:, 2].set(0.1 * X[:, 0])
    words = {"activity": capture(SMALL, x)[1], "key": KEY}
    _, state = still(tx, tx.init(SMALL), 2, **words)
    state = neuroml.consolidate(state, SMALL)
    updates, state = still(tx, state, 1, **words)
    rows = np.concatenate([np.asarray(x), np.ones((20, 1))], 1)
    moment = rows.T @ rows / 20
    free = np.linalg.inv(np.eye(4) + moment / (0.005 * np.trace(moment) / 4))
    drawn = network(jax.random.split(KEY, 3)[2])["a"]
    w = np.append(drawn["kernel"][:, 3], drawn["bias"][3])
    expected = np.linalg.norm(w) * free @ w / np.linalg.norm(free @ w)
    assert state.renewed["first"].tolist() == [False, False, False, True, False, False]
    same(np.append(updates["a"]["kernel"][:, 3], updates["a"]["bias"][3]), expected, rtol=1e-3, atol=1e-4)
    answer, blind = np.abs(rows @ expected).mean(), np.abs(rows @ w).mean()
    assert answer < 0.5 * blind, "what was consolidated must hardly excite the newborn"


def test_dead_weights_stay_exactly_zero_whatever_the_optimizer_does():
    noisy = optax.chain(optax.adamw(0.05, weight_decay=0.1), optax.add_noise(0.01, 0.5, jax.random.key(1)))
    tx = neuroml.renewal(noisy, neuroml.growth(NAMES, when="steps", patience=10), NAMES)
    params, state = train(tx, SMALL, 25)
    assert int(state.rule.births) == 2
    assert_dead_are_zero(params, state.rule)


@pytest.mark.parametrize("base", [optax.sgd(0.1), optax.adam(0.01)], ids=["sgd", "adam"])
def test_without_births_it_is_a_smaller_network(base):
    cut = {"a": ((3, 3), (3,)), "b": ((3, 3), (3,)), "c": ((3, 2), (2,))}
    corner = lambda tree: {
        home: {"kernel": tree[home]["kernel"][: k[0], : k[1]], "bias": tree[home]["bias"][: b[0]]}
        for home, (k, b) in cut.items()
    }
    grown, _ = train(neuroml.renewal(base, neuroml.growth(NAMES, number=0), NAMES), SMALL, 30)
    plain, _ = train(optax.with_extra_args_support(base), corner(SMALL), 30)
    same(corner(grown), plain)
    assert abs(corner(SMALL)["a"]["kernel"] - plain["a"]["kernel"]).max() > 0.01


def test_newborns_learn():
    tx = neuroml.renewal(optax.adam(0.02), neuroml.growth(NAMES, when="steps", patience=20, number=3), NAMES)
    params, _ = train(tx, growing.reserve(FULL, NAMES, 1), 400)
    small, _ = train(
        neuroml.renewal(optax.adam(0.02), neuroml.growth(NAMES, number=0), NAMES), growing.reserve(FULL, NAMES, 1), 400
    )
    assert loss(params) < 0.5 * loss(small)


# mistakes


def test_mistakes_are_named():
    for wrong, message in (
        ({"when": "plateu"}, "unknown value of `when` 'plateu'. Did you mean 'plateau'"),
        ({"where": "any"}, "unknown value of `where` 'any'"),
        ({"directions": "fre"}, "Did you mean 'free'"),
        ({"patience": 0}, "patience=0"),
        ({"number": -1}, "number=-1"),
        ({"apoptosis": 1.0}, "apoptosis=1.0"),
    ):
        with pytest.raises(UsageError, match=message):
            neuroml.growth(NAMES, **wrong)
    with pytest.raises(MissingWordError, match="growth needs `value`"):
        still(neuroml.growth(NAMES), neuroml.growth(NAMES).init(SMALL), value=None)
    with pytest.raises(UsageError, match="growth found no population between two layers"):
        neuroml.growth({"a": NAMES["a"]}).init({"a": FULL["a"]})
    with pytest.raises(UsageError, match="lacks layer 'b', which reads population 'first'"):
        still(neuroml.growth(NAMES, number=0), neuroml.growth(NAMES).init(SMALL), activity={"c": X})
    small = lambda key: {**FULL, "a": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    with pytest.raises(UsageError, match="make the rule with a `fresh` of the new size"):
        tx = neuroml.growth(NAMES, small, when="steps", patience=1)
        still(tx, tx.init(SMALL))


def test_what_cannot_grow_is_refused():
    shared = {"in": {"kernel": ("pixel", "h")}, "loop": {"kernel": ("h", "h")}, "out": {"kernel": ("h", "answer")}}
    params = {
        "in": {"kernel": jnp.ones((2, 3))},
        "loop": {"kernel": jnp.ones((3, 3))},
        "out": {"kernel": jnp.ones((3, 1))},
    }
    for call in (neuroml.growth(shared).init, lambda p: growing.reserve(p, shared, 1)):
        with pytest.raises(UsageError, match="'h': layer 'loop' makes it and reads it"):
            call(params)
    layer_norm = neuroml.mlp(3, [6, 5], 2, layer_norm=True)
    params, _ = layer_norm.init(KEY)
    with pytest.raises(UsageError, match="'hidden_0': norms/0/bias belongs to it and is no kernel or bias"):
        neuroml.growth(layer_norm.wiring(params)).init(params)
    normed, names = {**FULL, "norm": {"scale": jnp.ones(6)}}, {**NAMES, "norm": {"scale": ("first",)}}
    with pytest.raises(UsageError, match="norm/scale belongs to it and is no kernel or bias"):
        neuroml.growth(names).init(normed)


def test_attention_heads_are_refused():
    """Queries and keys meet in a product: a new neuron would change who listens to whom, whatever reads it."""
    into, out = jnp.ones((4, 2, 3)), jnp.ones((2, 3, 4))
    params = {home: {"kernel": into} for home in ("query", "key", "value")} | {"out": {"kernel": out}}
    names = {home: {"kernel": ("embedding", "head", "hidden")} for home in ("query", "key", "value")}
    names |= {"out": {"kernel": ("head", "hidden", "answer")}}
    for call in (neuroml.growth(names).init, lambda p: growing.reserve(p, names, 1)):
        with pytest.raises(UsageError, match="'hidden': the axes of layer 'key'.*attention heads"):
            call(params)
