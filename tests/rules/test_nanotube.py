"""Nanotubes: who gives to whom, that the function stays, and what becomes of the optimizer's moments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError

KEY = jax.random.key(0)
NAMES = {
    "a": {"kernel": ("pixel", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "second"), "bias": ("second",)},
    "c": {"kernel": ("second", "answer"), "bias": ("answer",)},
}
SILENT = {"first": [1, 4], "second": [0]}


def network(key):
    keys = iter(jax.random.split(key, 6))
    layer = lambda *shape: {
        "kernel": jax.random.normal(next(keys), shape),
        "bias": jax.random.normal(next(keys), shape[1:]),
    }
    return {"a": layer(3, 6), "b": layer(6, 5), "c": layer(5, 2)}


def answers(params, x):
    first = jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"])
    second = jax.nn.relu(first @ params["b"]["kernel"] + params["b"]["bias"])
    return {"a": x, "b": first, "c": second}


def predict(params, x):
    return answers(params, x)["c"] @ params["c"]["kernel"] + params["c"]["bias"]


def destroyed():
    params = jax.tree.map(lambda leaf: leaf + 0.3, network(KEY))
    names = neuroml.wiring.spread(
        {name: jnp.ones(size).at[jnp.array(SILENT[name])].set(0) for name, size in (("first", 6), ("second", 5))},
        NAMES,
        params,
    )
    return jax.tree.map(jnp.multiply, params, names)


HURT = destroyed()
X = jax.random.normal(jax.random.key(5), (40, 3))
WORDS = {"activity": answers(HURT, X), "key": jax.random.key(7)}
STILL = jax.tree.map(jnp.zeros_like, HURT)


def repaired(updates=STILL, **settings):
    tx = neuroml.nanotube(NAMES, every=1, **settings)
    steps, state = tx.update(updates, tx.init(HURT), HURT, **WORDS)
    return optax.apply_updates(HURT, steps), state


def by_hand(updates):
    """The same in plain loops, without noise."""
    w = jax.tree.map(lambda leaf, step: np.array(leaf + step, np.float64), HURT, updates)
    given = {}
    for name, maker, reader in (("first", "a", "b"), ("second", "b", "c")):
        loud = np.abs(np.asarray(WORDS["activity"][reader])).mean(0)
        useful = loud * np.abs(np.asarray(HURT[reader]["kernel"])).sum(1)
        healthy = sorted((j for j in range(len(loud)) if j not in SILENT[name]), key=lambda j: -useful[j])
        given[name] = dict(zip(SILENT[name], healthy, strict=False))
        for to, donor in given[name].items():
            w[maker]["kernel"][:, to] = w[maker]["kernel"][:, donor]
            w[maker]["bias"][to] = w[maker]["bias"][donor]
            w[reader]["kernel"][donor] /= 2
            w[reader]["kernel"][to] = w[reader]["kernel"][donor]
    return w, given


@pytest.mark.parametrize("size", [0.0, 0.1])
def test_the_most_useful_give_to_the_silent_as_a_plain_loop_has_it(size):
    updates = jax.tree.map(lambda leaf: size * leaf, network(jax.random.key(3)))
    after, state = repaired(updates, noise=0.0)
    expected, given = by_hand(updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after, expected)
    for name, pairs in given.items():
        assert {j: int(d) for j, d in enumerate(state.donors[name]) if j != d} == pairs
    assert int(state.births) == 3


def test_the_function_does_not_change_without_noise():
    after, _ = repaired(noise=0.0)
    np.testing.assert_allclose(predict(after, X), predict(HURT, X), rtol=1e-5, atol=1e-6)
    assert all((np.abs(np.asarray(rows)).mean(0) > 0).all() for rows in answers(after, X).values())


def test_noise_is_in_units_of_the_donors_own_weights_and_spares_the_others():
    plain, state = repaired(noise=0.0)
    noisy, _ = repaired(noise=0.5)
    gap = np.asarray(noisy["a"]["kernel"] - plain["a"]["kernel"])
    assert (gap[:, SILENT["first"]] != 0).all() and not np.delete(gap, SILENT["first"], axis=1).any()
    spread = np.asarray(plain["a"]["kernel"]).std(0)[SILENT["first"]]
    assert (np.abs(gap[:, SILENT["first"]]) < 0.5 * 4 * spread).all()


def test_few_healthy_neurons_give_to_several():
    tx = neuroml.nanotube(NAMES, noise=0.0, every=1)
    loud = {**WORDS["activity"], "b": jnp.zeros((1, 6)).at[0, 2].set(1.0)}
    steps, state = tx.update(STILL, tx.init(HURT), HURT, activity=loud, key=KEY)
    assert state.donors["first"].tolist() == [2] * 6
    outgoing = optax.apply_updates(HURT, steps)["b"]["kernel"]
    np.testing.assert_allclose(outgoing[:, 1:], jnp.tile(HURT["b"]["kernel"][2, 1:] / 6, (6, 1)), rtol=1e-5)


def test_it_may_leave_those_alone_that_are_silent_and_heard():
    """Neuron 2 says nothing now, but what it says is heard: an earlier task may have used it."""
    quiet = {**WORDS["activity"], "b": WORDS["activity"]["b"].at[:, 2].set(0.0)}
    healed = {}
    for heals in ("silent", "destroyed"):
        tx = neuroml.nanotube(NAMES, every=1, heals=heals)
        _, state = tx.update(STILL, tx.init(HURT), HURT, activity=quiet, key=KEY)
        healed[heals] = np.flatnonzero(state.renewed["first"]).tolist()
    assert healed == {"silent": [1, 2, 4], "destroyed": [1, 4]}
    deaf = {**HURT, "b": {**HURT["b"], "kernel": HURT["b"]["kernel"] + 0.1}}  # a projector may let them be heard again
    _, state = tx.update(STILL, tx.init(deaf), deaf, activity=quiet, key=KEY)
    assert np.flatnonzero(state.renewed["first"]).tolist() == [1, 4]


def test_a_silent_neuron_that_is_left_alone_gives_nothing():
    """All but one of those that are heard are silent: a copy of a silent one would be silent, and never healed."""
    quiet = {**WORDS["activity"], "b": jnp.zeros((1, 6)).at[0, 5].set(1.0)}
    for choose in ("utility", "random"):
        tx = neuroml.nanotube(NAMES, every=1, heals="destroyed", choose=choose)
        _, state = tx.update(STILL, tx.init(HURT), HURT, activity=quiet, key=KEY)
        assert state.donors["first"].tolist() == [0, 5, 2, 3, 5, 5]


def test_where_all_are_silent_nothing_moves():
    tx = neuroml.nanotube(NAMES, every=1)
    silent = jax.tree.map(jnp.zeros_like, WORDS["activity"])
    steps, state = tx.update(STILL, tx.init(HURT), HURT, activity=silent, key=KEY)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(steps))
    assert state.donors["first"].tolist() == list(range(6)) and int(state.births) == 0


def test_the_control_draws_its_donors_among_those_that_answer():
    tx = neuroml.nanotube(NAMES, every=1, choose="random")
    draw = jax.jit(lambda key: tx.update(STILL, tx.init(HURT), HURT, **WORDS | {"key": key})[1].donors["first"])
    found = set()
    for seed in range(20):
        donors = {int(draw(jax.random.key(seed))[j]) for j in SILENT["first"]}
        assert not donors & set(SILENT["first"])
        found |= donors
    assert found == {0, 2, 3, 5}


@pytest.mark.parametrize(
    "base", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9), optax.chain(optax.trace(0.9), optax.adam(0.1))]
)
def test_moments_are_those_of_the_donor(base):
    tx = neuroml.renewal(base, neuroml.nanotube(NAMES, noise=0.0, every=2), NAMES)
    grads = network(jax.random.key(9))
    _, before = tx.update(grads, tx.init(HURT), HURT, **WORDS)
    _, after = tx.update(grads, before, HURT, **WORDS)
    _, plain = base.update(grads, before.base, HURT)
    donors = {name: np.asarray(donor) for name, donor in after.rule.donors.items()}
    assert (donors["first"] != np.arange(6)).any()
    moments = lambda state: [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (6, 5)]
    assert moments(after.base)
    for given, own in zip(moments(after.base), moments(plain), strict=True):
        np.testing.assert_allclose(given, np.asarray(own)[donors["first"]][:, donors["second"]], rtol=1e-6)


def test_bad_settings_are_named():
    with pytest.raises(UsageError, match="every=0"):
        neuroml.nanotube(NAMES, every=0)
    with pytest.raises(UsageError, match="'useful'"):
        neuroml.nanotube(NAMES, choose="useful")


def test_copies_of_the_destroyed_make_up_for_what_is_gone():
    """Neurons that did the same, of which most are destroyed: with compensation 1 the network says what it said."""
    same = lambda leaf, axis: jnp.repeat(jnp.take(leaf, jnp.array([0]), axis), leaf.shape[axis], axis)
    whole = network(KEY)
    whole["a"] = {"kernel": same(whole["a"]["kernel"], 1), "bias": jnp.ones(6)}
    whole["b"]["kernel"] = same(whole["b"]["kernel"], 0)
    gone = jnp.array([0, 1, 1, 0, 1, 1])
    hurt = {**whole, "a": jax.tree.map(lambda leaf: leaf * (1 - gone), whole["a"])}
    hurt["b"] = {**whole["b"], "kernel": whole["b"]["kernel"] * (1 - gone)[:, None]}
    words = {"activity": answers(hurt, X), "key": KEY}
    said = {}
    for compensation in (0.0, 0.5, 1.0):
        tx = neuroml.nanotube(NAMES, noise=0.0, compensation=compensation, heals="destroyed", every=1)
        steps, _ = tx.update(STILL, tx.init(hurt), hurt, **words)
        said[compensation] = answers(optax.apply_updates(hurt, steps), X)["c"]
    np.testing.assert_allclose(said[0.0], words["activity"]["c"], atol=1e-5)
    np.testing.assert_allclose(said[1.0], answers(whole, X)["c"], rtol=1e-4, atol=1e-5)
    assert not np.allclose(said[0.5], said[0.0]) and not np.allclose(said[0.5], said[1.0])


def test_only_what_was_destroyed_is_made_up_for():
    """Neuron 2 is silent, and heard: its donor shares with it; neurons 1 and 4 are cut off."""
    quiet = {**WORDS["activity"], "b": WORDS["activity"]["b"].at[:, 2].set(0.0)}
    tx = neuroml.nanotube(NAMES, noise=0.0, compensation=1.0, every=1)
    steps, state = tx.update(STILL, tx.init(HURT), HURT, activity=quiet, key=KEY)
    donors = state.donors["first"]
    after = optax.apply_updates(HURT, steps)["b"]["kernel"][:, 1:]  # neuron 0 of the second layer is destroyed, too
    for neuron, part in ((2, 0.5), (1, 1.0), (4, 1.0)):
        np.testing.assert_allclose(after[neuron], part * HURT["b"]["kernel"][donors[neuron], 1:], rtol=1e-5)


def test_later_copies_of_a_donor_differ_more():
    loud = {**WORDS["activity"], "b": jnp.zeros((1, 6)).at[0, 2].set(1.0)}
    kernels = {}
    for noise in (0.0, 0.1):
        tx = neuroml.nanotube(NAMES, noise=noise, every=1)
        steps, _ = tx.update(STILL, tx.init(HURT), HURT, activity=loud, key=KEY)
        kernels[noise] = optax.apply_updates(HURT, steps)["a"]["kernel"]
    gaps = np.abs(kernels[0.1] - kernels[0.0])[:, [0, 1, 3, 4, 5]]  # copies 1 to 5 of neuron 2
    draws = np.abs(jax.random.normal(jax.random.fold_in(jax.random.split(KEY)[1], place_of_kernel()), (3, 6)))
    spread = np.asarray(kernels[0.0]).std(0)[0]
    np.testing.assert_allclose(gaps, 0.1 * np.arange(1, 6) * spread * draws[:, [0, 1, 3, 4, 5]], rtol=1e-4)


def place_of_kernel():
    """Where the kernel of the first layer is among the leaves: it keys the noise."""
    return [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(HURT["a"])].index("kernel")


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("choose", ["utility", "random"])
def test_a_neuron_whose_answer_is_not_finite_neither_gets_nor_gives(choose, wrong):
    tx = neuroml.nanotube(NAMES, every=1, choose=choose)
    update = jax.jit(lambda activity, key: tx.update(STILL, tx.init(HURT), HURT, activity=activity, key=key)[1])
    broken = {**WORDS["activity"], "b": WORDS["activity"]["b"].at[0, 3].set(wrong)}
    for seed in range(10):
        state = update(broken, jax.random.key(seed))
        assert np.flatnonzero(state.renewed["first"]).tolist() == SILENT["first"]
        assert state.donors["first"][3] == 3 and 3 not in state.donors["first"][jnp.array(SILENT["first"])]
    none = {**broken, "b": jnp.zeros((1, 6)).at[0, 3].set(wrong)}
    assert int(update(none, KEY).births) == len(SILENT["second"]), "there is nobody to give in the first population"
