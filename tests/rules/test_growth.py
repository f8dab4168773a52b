"""Growth: births that nobody notices, against plain references; when, where and how; youth, death and company."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import ground, growing, interventions, units
from neuroml.errors import MissingWordError, UsageError

KEY = jax.random.key(0)
NAMES = {
    "a": {"kernel": ("pixel", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "second"), "bias": ("second",)},
    "c": {"kernel": ("second", "answer"), "bias": ("answer",)},
}
SIZES = {"first": 6, "second": 5}


def network(key):
    keys = iter(jax.random.split(key, 6))
    layer = lambda *shape: {
        "kernel": jax.random.normal(next(keys), shape),
        "bias": jax.random.normal(next(keys), shape[1:]),
    }
    return {"a": layer(3, 6), "b": layer(6, 5), "c": layer(5, 2)}


FULL = network(KEY)
SMALL = growing.reserve(FULL, NAMES, alive=3)
STILL = jax.tree.map(jnp.zeros_like, FULL)
X = jax.random.normal(jax.random.key(7), (20, 3))
Y = jnp.sin(3 * X[:, :2])


def capture(params, x=X):
    first = jax.nn.sigmoid(
        x @ params["a"]["kernel"] + params["a"]["bias"]
    )  # a dead one answers 1/2: nobody may hear it
    second = jnp.tanh(first @ params["b"]["kernel"] + params["b"]["bias"])
    return second @ params["c"]["kernel"] + params["c"]["bias"], {"a": x, "b": first, "c": second}


def loss(params, x=X, y=Y):
    return ((capture(params, x)[0] - y) ** 2).mean()


def step(tx, params, state, key, **more):
    value, grads = jax.value_and_grad(loss)(params)
    words = {"activity": capture(params)[1], "key": key, "value": value} | more
    updates, state = tx.update(grads, state, params, **words)
    return optax.apply_updates(params, updates), state


def train(tx, params, count, state=None, key=KEY):
    state = tx.init(params) if state is None else state
    run = jax.jit(functools.partial(step, tx))
    for i in range(count):
        params, state = run(params, state, jax.random.fold_in(key, i))
    return params, state


def still(tx, state, count=1, params=SMALL, **words):
    """Takes some updates of zero, with weights that stay."""
    words = {"activity": capture(params)[1], "key": KEY, "value": 1.0} | words
    update = tx.update if count < 3 else jax.jit(tx.update)  # else each update compiles its branches anew
    for _ in range(count):
        updates, state = update(STILL, state, params, **words)
    return updates, state


def alive(state):
    return {name: one.alive.tolist() for name, one in state.neurons.items()}


def assert_dead_are_zero(params, state):
    found = units.find(NAMES, params)
    off = units.touched(found, params, {name: ~one.alive for name, one in state.neurons.items()})
    jax.tree.map(lambda leaf, gone: np.testing.assert_array_equal(leaf[gone], 0), params, off)


def same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), one, two)


# reserve


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


def growing_room(state):
    return sum(int((~one.alive).sum()) for one in state.neurons.values())


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


# when


def losses(tx, values, params=SMALL):
    """Returns the updates at which something was born."""
    state, born = tx.init(params), []
    run = jax.jit(lambda state, value, key: still(tx, state, params=params, value=value, key=key)[1])
    for i, value in enumerate(values):
        state = run(state, value, jax.random.fold_in(KEY, i))
        born += [i] if any(which.any() for which in state.renewed.values()) else []
    return born


def reference(values, when, threshold, patience, target=0.0):
    """Returns the updates at which growth is due."""
    fast = slow = wait = 0
    due = []
    for i, value in enumerate(values):
        if np.isfinite(value):
            fast += max(0.1, 1 / (i + 1)) * (value - fast)
            slow += max(0.01, 1 / (i + 1)) * (value - slow)
        wait += 1
        call = fast >= (1 - threshold) * slow and fast > target if when == "plateau" else fast > (1 + threshold) * slow
        if wait >= patience and call:
            due.append(i)
            wait = 0
    return due


def test_a_plateau_and_a_surprise_are_those_of_a_plain_loop():
    noise = np.asarray(jax.random.normal(KEY, (150,))) * 0.02
    values = np.concatenate([np.exp(-np.arange(50) / 15), np.full(50, 0.04), np.full(50, 0.5)]) + np.abs(noise)
    values[70] = np.nan
    for when, threshold in (("plateau", 0.1), ("surprise", 0.8)):
        tx = neuroml.growth(NAMES, when=when, threshold=threshold, patience=12, number=1)
        due = reference(values, when, threshold, 12)
        assert losses(tx, jnp.asarray(values, jnp.float32)) == due[:5] and len(due) > 1
    assert reference(values, "surprise", 0.8, 12)[0] > 100
    tx = neuroml.growth(NAMES, when="plateau", threshold=0.1, patience=12, target=0.3)
    assert losses(tx, jnp.asarray(values, jnp.float32)) == reference(values, "plateau", 0.1, 12, 0.3)[:5]


def test_the_controls_grow_at_fixed_and_at_random_times():
    assert losses(neuroml.growth(NAMES, when="steps", patience=7), jnp.zeros(30)) == [6, 13, 20, 27]
    tx = neuroml.growth(NAMES, when="random", patience=5, number=1)

    @jax.jit
    @jax.vmap
    def births(key):
        run = lambda state, key: (still(tx, state, key=key)[1], None)
        return jax.lax.scan(run, tx.init(SMALL), jax.random.split(key, 10))[0].births

    counts = np.asarray(births(jax.random.split(KEY, 200)))
    assert abs(np.minimum(counts, 9).mean() - 2) < 0.25 and len(set(counts.tolist())) > 3  # binomial, cut at 5 places


def test_rank_is_exhausted_when_what_was_consolidated_fills_the_readers_inputs():
    def grown(scale, activity):
        tx = neuroml.growth(NAMES, when="rank", threshold=0.5, patience=1, scale=scale)
        _, state = still(tx, tx.init(SMALL), activity=activity)
        assert int(state.births) == 0, "nothing is occupied before the first consolidation"
        return still(tx, neuroml.consolidate(state, SMALL), activity=activity)[1]

    wide = jnp.zeros((20, 5)).at[:, :3].set(jax.random.normal(KEY, (20, 3)))
    line = jnp.zeros((20, 6)).at[:, 0].set(1.0)  # in the first population all but one direction stays free
    activity = {"a": X, "b": line, "c": wide}
    state = grown(1e-3, activity)
    assert state.renewed["second"].sum() == 1 and not state.renewed["first"].any()
    assert int(grown(1e3, activity).births) == 0  # a ridge so large that nothing is held


def test_free_share_leaves_neurons_in_reserve_out():
    rows = jnp.concatenate([jax.random.normal(KEY, (50, 2)), jnp.zeros((50, 6))], axis=1)
    one = ground.settled(ground.felt(ground.bare(8), rows, jnp.array(True)), 1e-5)
    assert float(ground.free_share(one, 6)) < 0.01 and abs(float(ground.free_share(one, 0)) - 0.75) < 0.01
    same(ground.settled(one, 1e-5), one, atol=0)
    more = jax.random.normal(jax.random.key(1), (30, 8))
    both = ground.settled(ground.felt(one, more, jnp.array(True)), 0.1)
    moments = rows.T @ rows / 50 + more.T @ more / 30
    same(both.free, np.linalg.inv(np.eye(8) + moments / (0.1 * one.unit)), rtol=1e-3, atol=1e-4)
    bad = ground.felt(ground.bare(8), rows.at[0, 0].set(jnp.nan), jnp.array(False))
    same(ground.settled(bad, 1.0), ground.bare(8), atol=0)


# where


def test_it_grows_where_the_steps_are_largest_for_the_weights_of_a_neuron():
    wide = {**FULL, "c": {"kernel": jnp.ones((5, 20)), "bias": jnp.ones(20)}}
    tx, params = neuroml.growth(NAMES, when="steps", patience=1), growing.reserve(wide, NAMES, 3)
    # a neuron of `first` has 3 + 1 + 5 weights, one of `second` 6 + 1 + 20: three times as many
    for factor, name in ((0.8, "first"), (1.2, "second")):
        steps = jax.tree.map(jnp.zeros_like, wide)
        steps["b"]["kernel"] = jnp.full((6, 5), -0.1)  # 0.5 a neuron, also of those in reserve, who must not count
        steps["b"]["kernel"] = steps["b"]["kernel"].at[3:].set(9.0)
        steps["c"]["kernel"] = jnp.full((5, 20), 3 * factor * 0.5 / 20)
        words = {"activity": capture(SMALL)[1], "key": KEY}
        _, state = tx.update(steps, tx.init(params), params, **words)
        assert [n for n, which in state.renewed.items() if which.any()] == [name]


def test_it_grows_elsewhere_when_the_first_choice_is_full_and_by_lot_anywhere():
    full = growing.reserve(FULL, NAMES, {"first": 6, "second": 3})
    tx = neuroml.growth(NAMES, when="steps", patience=1)
    _, state = still(tx, tx.init(full), params=full)
    assert state.renewed["second"].any() and not state.renewed["first"].any()
    tx = neuroml.growth(NAMES, when="steps", patience=1, where="random")
    places = jax.jit(jax.vmap(lambda key: still(tx, tx.init(SMALL), key=key)[1].renewed["first"].any()))
    assert 0.35 < places(jax.random.split(KEY, 200)).mean() < 0.65


# youth and death


def test_the_young_learn_faster_until_they_are_mature():
    tx = neuroml.growth(NAMES, when="steps", patience=100, number=1, maturity=4, youth_gain=3.0)
    state = tx.init(SMALL)._replace(wait=jnp.int32(99))
    updates, state = still(tx, state)
    params, ones = optax.apply_updates(SMALL, updates), jax.tree.map(jnp.ones_like, STILL)
    name, maker = ("first", "a") if state.renewed["first"].any() else ("second", "b")
    gains = []
    for _ in range(6):
        updates, state = tx.update(ones, state, params, activity=capture(params)[1], key=KEY)
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
    cut = units.touched(units.find(NAMES, FULL), FULL, {"first": jnp.arange(6) == 1})
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


# inside transformations and beside other rules


def test_births_and_deaths_differ_by_seed_in_one_vmap_with_one_compilation():
    tx = neuroml.renewal(
        optax.adam(0.02),
        neuroml.growth(NAMES, when="random", patience=8, number=1, apoptosis=0.3, maturity=5),
        NAMES,
    )
    compilations = []

    @jax.jit
    @jax.vmap
    def run(params, state, key):
        compilations.append(1)
        return step(tx, params, state, key)

    keys = jax.random.split(KEY, 8)
    params = jax.vmap(lambda key: growing.reserve(network(key), NAMES, 2))(keys)
    state = jax.vmap(tx.init)(params)
    for i in range(60):
        params, state = run(params, state, jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys))
    assert len(compilations) == 1
    assert len(set(state.rule.births.tolist())) > 2 and len(set(state.rule.deaths.tolist())) > 1
    alone = growing.reserve(network(keys[3]), NAMES, 2)
    alone, last = train(tx, alone, 60, key=keys[3])
    assert int(last.rule.births) == int(state.rule.births[3])
    same(alone, jax.tree.map(lambda leaf: leaf[3], params), rtol=1e-3, atol=1e-4)


BASES = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.01),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01)),
    "projected": optax.chain(optax.adam(0.01), neuroml.condensate_projector()),
}


@pytest.mark.parametrize("name", BASES)
def test_moments_of_the_newborn_are_zero(name):
    rule = neuroml.growth(NAMES, when="steps", patience=5, number=2)
    begin = growing.reserve(FULL, NAMES, {"first": 3})
    params, state = train(neuroml.renewal(BASES[name], rule, NAMES), begin, 5)
    _, plain = train(optax.chain(BASES[name], rule), begin, 5)
    structure = jax.tree.structure(params)
    is_tree = lambda node: jax.tree.structure(node) == structure
    moments = lambda state: [node for node in jax.tree.leaves(state, is_leaf=is_tree) if is_tree(node)]
    assert state.rule.renewed["first"].tolist() == [False] * 3 + [True] * 2 + [False]
    gone = units.touched(units.find(NAMES, params), params, state.rule.renewed)
    for mine, theirs in zip(moments(state.base), moments(plain[0]), strict=True):
        jax.tree.map(lambda m, t, off: np.testing.assert_array_equal(m, np.where(off, 0, t)), mine, theirs, gone)
        assert (theirs["b"]["kernel"][3:5] != 0).all(), "half an answer before birth left moments"


def test_moments_of_the_dead_are_zero():
    rule = neuroml.growth(NAMES, number=0, apoptosis=0.5, maturity=4)
    begin = {**FULL, "b": {**FULL["b"], "kernel": FULL["b"]["kernel"].at[2].multiply(1e-3)}}
    tx = neuroml.renewal(optax.sgd(1e-4, momentum=0.9), rule, NAMES)
    _, state = train(tx, begin, 5)
    assert state.rule.renewed["first"][2] and not state.rule.neurons["first"].alive[2]
    trace = state.base[0].trace
    assert (trace["b"]["kernel"][2] == 0).all() and (trace["a"]["kernel"][:, 2] == 0).all()


def er_of():
    batch_loss = lambda params, batch: loss(params, *batch)
    return neuroml.er(batch_loss, (X[0], Y[0]), neuroml.memory.reservoir(8), batch_size=4)


@pytest.mark.parametrize("name", ["ewc", "er", "condensate_projector"])
def test_it_composes_and_a_birth_changes_nothing_beside_the_other_rule(name):
    base = {
        "ewc": optax.chain(neuroml.ewc(strength=1.0), optax.sgd(0.05)),
        "er": optax.chain(er_of(), optax.sgd(0.05)),
        "condensate_projector": optax.chain(optax.sgd(0.05), neuroml.condensate_projector(scale=0.1)),
    }[name]
    number = jnp.float32(1)
    make = lambda number: neuroml.renewal(base, neuroml.growth(NAMES, when="steps", patience=4, number=number), NAMES)
    tx, params = make(number), SMALL
    state, run, born = tx.init(params), jax.jit(lambda p, s, k, n: step(make(n), p, s, k, batch=(X, Y))), 0
    for i in range(14):
        key = jax.random.fold_in(KEY, i)
        without, _ = run(params, state, key, jnp.float32(0))
        params, state = run(params, state, key, number)
        same(capture(params)[0], capture(without)[0])
        assert_dead_are_zero(params, state.rule)
        born += int(any(which.any() for which in state.rule.renewed.values()))
        if i == 6:
            importance = neuroml.spare_young(state, NAMES, jax.tree.map(jnp.ones_like, params))
            state = neuroml.consolidate(state, params, importance=importance)
    assert born == 3


def test_a_schedule_around_renewal_consolidates_it():
    tx = neuroml.every(neuroml.renewal(optax.sgd(0.05), neuroml.growth(NAMES), NAMES), 3)
    _, state = train(tx, SMALL, 4)
    assert int(state.consolidations) == 1 and float(state.inner.rule.ground["a"].unit) > 0


def test_a_convolution_grows_channels():
    names = {"a": {"kernel": (None, None, "colour", "channel")}, "b": {"kernel": (None, None, "channel", "answer")}}
    params = {"a": {"kernel": jax.random.normal(KEY, (3, 3, 2, 4))}, "b": {"kernel": jnp.ones((3, 3, 4, 1))}}
    params = growing.reserve(params, names, 2)
    image = jax.random.normal(KEY, (2, 5, 5, 2))
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    hidden = lambda params: jax.nn.relu(convolve(image, params["a"]["kernel"]))
    tx = neuroml.growth(names, when="steps", patience=2)
    state, zero = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    before = convolve(hidden(params), params["b"]["kernel"])
    for i in range(4):
        words = {"activity": {"a": image, "b": hidden(params)}, "key": jax.random.fold_in(KEY, i)}
        updates, state = tx.update(zero, state, params, **words)
        params = optax.apply_updates(params, updates)
        state = neuroml.consolidate(state, params)
    same(convolve(hidden(params), params["b"]["kernel"]), before)
    assert (
        int(state.births) == 2 and (params["a"]["kernel"] != 0).all() and (params["b"]["kernel"][:, :, 2:] == 0).all()
    )


# mistakes


def test_mistakes_are_named():
    for wrong, message in (
        ({"when": "plateu"}, "unknown value of `when` 'plateu'. Did you mean 'plateau'"),
        ({"where": "any"}, "unknown value of `where` 'any'"),
        ({"directions": "fre"}, "Did you mean 'free'"),
        ({"patience": 0}, "patience=0 must be at least 1"),
        ({"number": -1}, "number=-1 must be at least 0"),
        ({"apoptosis": 1.0}, "apoptosis=1.0 must be at least 0 and less than 1"),
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
