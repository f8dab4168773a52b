"""ReGraMa: against a plain loop, and why a gradient sees what an answer does not."""

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
SIZES = {"first": 6, "second": 5}


def network(key):
    keys = iter(jax.random.split(key, 6))
    layer = lambda *shape: {
        "kernel": jax.random.normal(next(keys), shape),
        "bias": jax.random.normal(next(keys), shape[1:]),
    }
    return {"a": layer(3, 6), "b": layer(6, 5), "c": layer(5, 2)}


PARAMS = network(KEY)


def moves(scale, key=KEY, still=(2,)):
    """Steps in which some neurons of the first population stand still."""
    steps = jax.tree.map(lambda leaf: scale * leaf, network(key))
    kernel = steps["a"]["kernel"].at[:, jnp.array(still)].set(0) if still else steps["a"]["kernel"]
    return steps | {"a": steps["a"] | {"kernel": kernel}}


def test_a_hundred_steps_are_those_of_a_plain_loop():
    length, every, threshold, draw = 98, 7, 0.5, jax.random.key(1)
    w = jax.tree.map(lambda leaf: np.array(leaf, np.float64), PARAMS)
    born, gone = [], {name: np.zeros(n) for name, n in SIZES.items()}
    tx, params = neuroml.regrama(NAMES, network, threshold=threshold, every=every), PARAMS
    step, state, births = jax.jit(tx.update), tx.init(params), []
    for t in range(length):
        key = jax.random.fold_in(KEY, t)
        slow = {"first": (t // every) % 6, "second": (t // every) % 5}  # who hardly moves changes with each period
        updates = jax.tree.map(lambda leaf: 0.1 * leaf, network(jax.random.fold_in(draw, t)))
        updates["a"]["kernel"] = updates["a"]["kernel"].at[:, slow["first"]].multiply(0.1)
        updates["b"]["kernel"] = updates["b"]["kernel"].at[:, slow["second"]].multiply(0.1)
        steps, state = step(updates, state, params, key=key)
        params = optax.apply_updates(params, steps)
        births += [(t, name, int(j)) for name in SIZES for j in np.flatnonzero(state.renewed[name])]

        w = jax.tree.map(lambda x, u: x + np.asarray(u, np.float64), w, updates)
        for name, maker in {"first": "a", "second": "b"}.items():
            gone[name] += np.abs(np.asarray(updates[maker]["kernel"], np.float64)).mean(0)
        if (t + 1) % every == 0:
            fresh = network(jax.random.split(key)[0])
            for name, (maker, reader) in {"first": ("a", "b"), "second": ("b", "c")}.items():
                for j in np.flatnonzero(gone[name] / gone[name].mean() < threshold):
                    w[maker]["kernel"][:, j] = fresh[maker]["kernel"][:, j]
                    w[maker]["bias"][j] = fresh[maker]["bias"][j]
                    w[reader]["kernel"][j] = 0
                    born.append((t, name, int(j)))
            gone = {name: 0 * total for name, total in gone.items()}
    assert births == born and len(born) == int(state.births) == int(state.report()["replaced"]) >= 28
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), params, w)


@pytest.mark.parametrize("scale", [1e-6, 1.0, -30.0])
def test_the_learning_rate_does_not_matter(scale):
    tx = neuroml.regrama(NAMES, network, threshold=0.5, every=1)
    _, state = tx.update(moves(scale), tx.init(PARAMS), PARAMS, key=KEY)
    _, unit = tx.update(moves(1.0), tx.init(PARAMS), PARAMS, key=KEY)
    assert bool(state.renewed["first"][2])
    jax.tree.map(np.testing.assert_array_equal, state.renewed, unit.renewed)


def test_behind_sgd_it_replaces_a_saturated_neuron_that_redo_takes_for_a_busy_one():
    params = network(KEY)
    params["a"]["bias"] = params["a"]["bias"].at[3].set(30.0)  # answers 1 to everything, and has no slope

    def forward(params, x):
        first = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
        second = jnp.tanh(first @ params["b"]["kernel"] + params["b"]["bias"])
        return second @ params["c"]["kernel"] + params["c"]["bias"], {"a": x, "b": first, "c": second}

    x, y = jax.random.normal(KEY, (32, 3)), jax.random.normal(jax.random.key(1), (32, 2))
    grads = jax.grad(lambda p: jnp.mean((forward(p, x)[0] - y) ** 2))(params)
    words = {"activity": forward(params, x)[1], "key": KEY}
    for rule, replaces in ((neuroml.regrama, True), (neuroml.redo, False)):
        tx = optax.chain(optax.sgd(0.1), rule(NAMES, network, threshold=0.01, every=1))
        _, (_, state) = tx.update(grads, tx.init(params), params, **words)
        assert int(state.births) == replaces and bool(state.renewed["first"][3]) == replaces


def test_threshold_zero_spares_those_that_stand_still():
    tx = neuroml.regrama(NAMES, network, threshold=0.0, every=1)
    steps, state = tx.update(moves(1.0), tx.init(PARAMS), PARAMS, key=KEY)
    assert int(state.births) == 0
    jax.tree.map(np.testing.assert_array_equal, steps, moves(1.0))


def test_between_checks_nothing_happens_and_each_check_begins_anew():
    tx = neuroml.regrama(NAMES, network, every=3)
    state, births = tx.init(PARAMS), []
    for still in ((2,), (2,), (2,), (4,), (4,), (), (4,), (4,), (4,)):
        steps, state = tx.update(moves(1.0, still=still), state, PARAMS, key=KEY)
        births.append(np.flatnonzero(state.renewed["first"]).tolist())
        if not births[-1]:
            jax.tree.map(np.testing.assert_array_equal, steps, moves(1.0, still=still))
    assert births == [[], [], [2], [], [], [], [], [], [4]]


def test_the_control_replaces_as_many_but_any():
    tx = neuroml.regrama(NAMES, network, every=1, choose="random")
    step = jax.jit(lambda key: tx.update(moves(1.0, still=(1, 2)), tx.init(PARAMS), PARAMS, key=key)[1])
    states = [step(jax.random.fold_in(KEY, i)) for i in range(200)]
    assert {int(state.births) for state in states} == {2}
    shares = np.mean([state.renewed["first"] for state in states], axis=0)
    assert abs(shares - 2 / 6).max() < 0.12, shares


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="every=-1 must be at least 1"):
        neuroml.regrama(NAMES, network, every=-1)
    with pytest.raises(UsageError, match="unknown choice 'gradient'"):
        neuroml.regrama(NAMES, network, choose="gradient")
    with pytest.raises(UsageError, match="regrama found no population between two layers"):
        neuroml.regrama({"a": NAMES["a"]}, network).init({"a": PARAMS["a"]})


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
def test_a_neuron_whose_step_is_not_finite_is_spared_and_no_measure_of_the_others(wrong):
    tx, updates = neuroml.regrama(NAMES, network, threshold=0.1, every=1), moves(1.0)
    kernel = updates["a"]["kernel"]
    with_kernel = lambda kernel: updates | {"a": updates["a"] | {"kernel": kernel}}
    _, state = tx.update(with_kernel(kernel.at[0, 1].set(wrong)), tx.init(PARAMS), PARAMS, key=KEY)
    assert np.flatnonzero(state.renewed["first"]).tolist() == [2]
    _, state = tx.update(with_kernel(kernel.at[:, 1].set(0)), state, PARAMS, key=KEY)
    assert np.flatnonzero(state.renewed["first"]).tolist() == [1, 2], "each period is judged anew"
