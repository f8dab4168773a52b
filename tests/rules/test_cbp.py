"""Continual backpropagation: against a plain loop, and what a replacement does to the network's answers."""

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


def forward(params, x):
    """Returns the answers and the activity of a network of tanh units."""
    first = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    second = jnp.tanh(first @ params["b"]["kernel"] + params["b"]["bias"])
    return second @ params["c"]["kernel"] + params["c"]["bias"], {"a": x, "b": first, "c": second}


def plain_loop(params, updates, answers, fresh, rate, decay, maturity):
    """Algorithm 1, one example at a time, in float64; returns the weights and (step, population, neuron) of births."""
    w = {home: {leaf: np.array(v, np.float64) for leaf, v in layer.items()} for home, layer in params.items()}
    around = {"first": ("a", "b"), "second": ("b", "c")}
    utility, mean, age = ({name: np.zeros(n) for name, n in SIZES.items()} for _ in range(3))
    due, born = dict.fromkeys(SIZES, 0.0), []
    for t, step in enumerate(updates):
        before = jax.tree.map(np.copy, w)
        w = jax.tree.map(lambda x, u: x + np.asarray(u, np.float64), w, step)
        worst = {}
        for name, (maker, reader) in around.items():
            h = np.asarray(answers[name][t], np.float64)
            age[name] += 1
            mean[name] = decay * mean[name] + (1 - decay) * h
            ratio = np.abs(before[reader]["kernel"]).sum(1) / np.abs(before[maker]["kernel"]).sum(0)
            worth = np.abs(h - mean[name] / (1 - decay ** age[name])) * ratio
            utility[name] = decay * utility[name] + (1 - decay) * worth
            mature = np.flatnonzero(age[name] > maturity)
            due[name] += rate * len(mature)
            fair = (utility[name] / (1 - decay ** age[name]))[mature]
            worst[name] = mature[np.argsort(fair)][: int(due[name])]
            due[name] -= len(worst[name])
        for name, (_, reader) in around.items():
            for j in worst[name]:
                w[reader]["bias"] += before[reader]["kernel"][j] * mean[name][j] / (1 - decay ** age[name][j])
        for name, (maker, reader) in around.items():
            for j in worst[name]:
                w[maker]["kernel"][:, j] = fresh[t][maker]["kernel"][:, j]
                w[maker]["bias"][j] = fresh[t][maker]["bias"][j]
                w[reader]["kernel"][j] = 0
                utility[name][j] = mean[name][j] = age[name][j] = 0
                born.append((t, name, int(j)))
    return w, born


def test_several_hundred_steps_are_those_of_a_plain_loop():
    length, settings = 400, {"rate": 0.00937, "decay": 0.9, "maturity": 7}
    keys = [jax.random.fold_in(KEY, t) for t in range(length)]
    draw = jax.random.key(1)
    noise = lambda n: np.asarray(jax.random.normal(jax.random.fold_in(draw, n), (length, n)))
    answers = {name: noise(n) for name, n in SIZES.items()}
    updates = [jax.tree.map(lambda leaf: 0.1 * leaf, network(jax.random.fold_in(draw, 100 + t))) for t in range(length)]
    tx, params = neuroml.cbp(NAMES, network, **settings), network(jax.random.key(2))
    expected, born = plain_loop(params, updates, answers, [network(key) for key in keys], **settings)

    step, state, births = jax.jit(tx.update), tx.init(params), []
    for t in range(length):
        activity = {"a": jnp.ones((1, 3)), "b": answers["first"][None, t], "c": answers["second"][None, t]}
        steps, state = step(updates[t], state, params, activity=activity, key=keys[t])
        params = optax.apply_updates(params, steps)
        births += [(t, name, int(j)) for name in SIZES for j in np.flatnonzero(state.renewed[name])]
    assert births == born and len(born) == int(state.births) > 25
    assert {name for _, name, _ in born} == set(SIZES) and len({j for _, _, j in born}) > 3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), params, expected)


def after_birth(params, batches, x):
    """Answers to x before and after the replacement of one neuron of the first population, and which it was."""
    tx = neuroml.cbp(NAMES, network, rate=1.01 / 6 / len(batches), decay=0.8, maturity=0)
    state, still = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    for i, batch in enumerate(batches):
        words = {"activity": forward(params, batch)[1], "key": jax.random.fold_in(KEY, i)}
        steps, state = tx.update(still, state, params, **words)
    assert state.renewed["first"].sum() == 1 and not state.renewed["second"].any()
    born = optax.apply_updates(params, steps)
    return forward(params, x), forward(born, x), int(jnp.argmax(state.renewed["first"]))


def test_answers_change_at_a_birth_only_by_the_deviation_from_the_mean():
    params, x = network(KEY), jax.random.normal(jax.random.key(5), (8, 3))
    batches = [jax.random.normal(jax.random.fold_in(KEY, 50 + i), (4, 3)) for i in range(3)]
    (_, old), (answers, _), j = after_birth(params, batches, x)
    means = np.array([forward(params, batch)[1]["b"][:, j].mean() for batch in batches])
    weights = 0.8 ** np.arange(len(means))[::-1]
    gap = old["b"][:, j] - (weights * means).sum() / weights.sum()
    inputs = old["b"] @ params["b"]["kernel"] + params["b"]["bias"] - gap[:, None] * params["b"]["kernel"][j]
    expected = jnp.tanh(inputs) @ params["c"]["kernel"] + params["c"]["bias"]
    np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-4)


def test_where_a_neuron_always_answered_alike_nothing_changes():
    params, x = network(KEY), jax.random.normal(jax.random.key(5), (1, 3))
    (before, _), (after, _), _ = after_birth(params, [x] * 3, x)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_readers_without_a_bias_are_served_too():
    params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    tx = neuroml.cbp(NAMES | {"b": {"kernel": ("first", "answer")}}, lambda key: params, rate=1.0, maturity=0)
    words = {"activity": {"a": jnp.ones((1, 2)), "b": jnp.ones((1, 3))}, "key": KEY}
    steps, _ = tx.update(params, tx.init(params), params, **words)
    np.testing.assert_array_equal(steps["b"]["kernel"], -params["b"]["kernel"])


def births_of(choose, length=600):
    """Neuron 2 of the first population never answers. Returns [length, size] births of that population, and counts."""
    tx, params = neuroml.cbp(NAMES, network, rate=0.02, maturity=5, choose=choose), network(KEY)
    still = jax.tree.map(jnp.zeros_like, params)

    def step(carry, key):
        params, state = carry
        _, activity = forward(params, jax.random.normal(key, (2, 3)))
        activity = activity | {"b": activity["b"].at[:, 2].set(0)}
        steps, state = tx.update(still, state, params, activity=activity, key=key)
        return (optax.apply_updates(params, steps), state), (state.renewed["first"], state.births)

    (_, state), seen = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(KEY, length))
    assert state.report()["replaced"] == seen[1][-1]
    return seen


def test_the_control_replaces_as_many_at_the_same_times_but_any():
    (useless, count), (lot, as_many) = births_of("utility"), births_of("random")
    np.testing.assert_array_equal(count, as_many)
    np.testing.assert_array_equal(useless.sum(1), lot.sum(1))
    assert useless[:, 2].mean() > 2 * lot[:, 2].mean() > 0
    shares = lot.sum(0) / lot.sum()
    assert lot.sum() > 60 and shares.min() > 0.08 and shares.max() < 0.3, shares


def test_the_control_spares_the_immature_too():
    lot, _ = births_of("random")
    for j in range(6):
        assert np.diff(np.flatnonzero(lot[:, j])).min() > 5


def test_a_batch_that_is_not_finite_is_passed_over_by_the_neurons_in_it():
    tx, params = neuroml.cbp(NAMES, network, rate=0.0), network(KEY)
    activity = {"a": jnp.ones((2, 3)), "b": jax.random.normal(KEY, (2, 6)), "c": jax.random.normal(KEY, (2, 5))}
    _, before = tx.update(params, tx.init(params), params, activity=activity, key=KEY)
    broken = activity | {"b": activity["b"].at[0, 2].set(jnp.nan)}
    _, after = tx.update(params, before, params, activity=broken, key=KEY)
    old, new = before.records["first"], after.records["first"]
    for name in ("utility", "mean", "age"):
        changed = np.asarray(getattr(new, name) != getattr(old, name))
        np.testing.assert_array_equal(changed, np.arange(6) != 2, err_msg=name)
    assert jnp.isfinite(new.utility).all()


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="unknown choice 'utilty'. Did you mean 'utility'"):
        neuroml.cbp(NAMES, network, choose="utilty")
    with pytest.raises(UsageError, match="cbp found no population between two layers"):
        neuroml.cbp({"a": NAMES["a"]}, network).init({"a": network(KEY)["a"]})
    tx, params = neuroml.cbp(NAMES, network), network(KEY)
    with pytest.raises(UsageError, match="lacks layer 'c', which reads population 'second'"):
        tx.update(params, tx.init(params), params, activity={"b": jnp.ones((1, 6))}, key=KEY)
