"""Self-normalized resets: against a plain loop, when a silence is too long, and how often by mistake."""

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
STILL = jax.tree.map(jnp.zeros_like, PARAMS)


def renewed_at(tx, fires):
    """Updates at which neuron 0 of the first population is replaced, where `fires` says when it fires; others do."""
    state, times, step = tx.init(PARAMS), [], jax.jit(tx.update)
    for t, fire in enumerate(fires):
        first = jnp.ones((4, 6)).at[:, 0].set(0).at[t % 4, 0].set(fire)
        activity = {"a": jnp.ones((4, 3)), "b": first, "c": jnp.ones((4, 5))}
        _, state = step(STILL, state, PARAMS, activity=activity, key=jax.random.fold_in(KEY, t))
        times += [t] * bool(state.renewed["first"][0])
        assert not state.renewed["first"][1:].any() and not state.renewed["second"].any()
    assert int(state.births) == int(state.report()["replaced"]) == len(times)
    return times


def test_several_hundred_steps_are_those_of_a_plain_loop():
    length, rejection, minimum, decay, draw = 300, 0.03, 4, 0.9, np.random.default_rng(0)
    rates = {"first": np.array([0.9, 0.5, 0.3, 0.2, 0.7, 0.0]), "second": np.array([0.6, 0.15, 0.4, 0.8, 1.0])}
    fires = {name: draw.random((length, len(rate))) < rate for name, rate in rates.items()}
    updates = [
        jax.tree.map(lambda leaf: 0.1 * leaf, network(jax.random.fold_in(KEY, 10_000 + t))) for t in range(length)
    ]
    w = jax.tree.map(lambda leaf: np.array(leaf, np.float64), PARAMS)
    silence, firings, mean = {}, {}, {}
    for name, n in SIZES.items():
        silence[name], firings[name], mean[name] = np.zeros(n), np.zeros(n), np.ones(n)
    born, births = [], []

    tx = neuroml.self_normalized_resets(NAMES, network, rejection=rejection, minimum=minimum, decay=decay)
    params, step, state = PARAMS, jax.jit(tx.update), tx.init(PARAMS)
    for t in range(length):
        key = jax.random.fold_in(KEY, t)
        answer = {name: np.where(fire[t], 0.5, -0.5)[None] for name, fire in fires.items()}
        activity = {"a": jnp.ones((1, 3)), "b": answer["first"], "c": answer["second"]}
        steps, state = step(updates[t], state, params, activity=activity, key=key)
        params = optax.apply_updates(params, steps)
        births += [(t, name, int(j)) for name in SIZES for j in np.flatnonzero(state.renewed[name])]

        w = jax.tree.map(lambda x, u: x + np.asarray(u, np.float64), w, updates[t])
        fresh = network(jax.random.split(key)[0])
        for name, (maker, reader) in {"first": ("a", "b"), "second": ("b", "c")}.items():
            for j in range(SIZES[name]):
                silence[name][j] += 1
                if fires[name][t, j]:
                    firings[name][j] += 1
                    mean[name][j] += max(1 / firings[name][j], 1 - decay) * (silence[name][j] - mean[name][j])
                    silence[name][j] = 0
                chance = (1 - 1 / mean[name][j]) ** silence[name][j]
                if silence[name][j] >= minimum and chance < rejection:
                    w[maker]["kernel"][:, j] = fresh[maker]["kernel"][:, j]
                    w[maker]["bias"][j] = fresh[maker]["bias"][j]
                    w[reader]["kernel"][j] = 0
                    silence[name][j], firings[name][j], mean[name][j] = 0, 0, 1
                    born.append((t, name, int(j)))
    assert births == born and len(born) == int(state.births) > 70  # the sixth, which never fires, every fourth update
    assert {(name, j) for _, name, j in born} > {("first", 5), ("first", 3), ("second", 1)}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), params, w)


@pytest.mark.parametrize(("minimum", "last"), [(2, 7), (7, 7), (20, 20)])
def test_a_silence_ends_a_neuron_when_it_is_too_long_for_its_past(minimum, last):
    """Fires at every other update, so (1 - 1/2)^silence falls below 0.01 at a silence of 7."""
    tx = neuroml.self_normalized_resets(NAMES, network, rejection=0.01, minimum=minimum)
    fires = [t % 2 for t in range(41)][1:] + [0] * (last + 2)
    last_firing = 38
    assert fires[last_firing:][:2] == [1, 0] and sum(fires[last_firing:]) == 1
    assert renewed_at(tx, fires)[:1] == [last_firing + last]


def test_one_that_fires_rarely_may_be_silent_for_longer_than_one_that_always_does():
    tx = neuroml.self_normalized_resets(NAMES, network, rejection=0.01, minimum=10)
    rare = ([0] * 9 + [1]) * 20 + [0] * 50
    limit = int(np.ceil(np.log(0.01) / np.log(0.9)))
    assert renewed_at(tx, rare) == [199 + limit] and limit == 44
    assert renewed_at(tx, [1] * 100 + [0] * 15) == [99 + 10]


def test_one_example_of_the_batch_is_a_firing_and_what_is_not_positive_is_none():
    tx = neuroml.self_normalized_resets(NAMES, network, minimum=5)
    assert renewed_at(tx, [1e-6] * 30) == []
    assert renewed_at(tx, [-3.0] * 12) == [4, 9]


def test_rejection_zero_never_replaces():
    assert (
        renewed_at(neuroml.self_normalized_resets(NAMES, network, rejection=0.0, minimum=1), [1, 1] + [0] * 300) == []
    )


def test_a_stationary_neuron_is_replaced_by_mistake_about_as_often_as_asked_for():
    """Each silence is one test: of many, about the share `rejection` is too long by chance."""
    count, length, rejection = 400, 4000, 0.02
    names = {"a": {"kernel": (None, "first")}, "b": {"kernel": ("first", None)}}
    params = {"a": {"kernel": jnp.ones((1, count))}, "b": {"kernel": jnp.ones((count, 1))}}
    tx = neuroml.self_normalized_resets(names, lambda key: params, rejection=rejection, minimum=40, decay=0.99)
    still = jax.tree.map(jnp.zeros_like, params)

    def step(state, t):
        fires = jax.random.bernoulli(jax.random.fold_in(KEY, t), 0.05, (1, count)).astype(jnp.float32)
        _, state = tx.update(still, state, params, activity={"b": fires}, key=KEY)
        return state, (fires.sum(), state.renewed["first"].sum())

    _, (fired, replaced) = jax.lax.scan(step, tx.init(params), jnp.arange(length))
    share = replaced[1000:].sum() / fired[1000:].sum()
    assert rejection / 2 < share < 3 * rejection, share  # young neurons know their rate badly, and err more often


def test_the_control_replaces_as_many_but_any():
    activity = {"a": jnp.ones((1, 3)), "b": jnp.array([[1.0, 0, 1, 0, 1, 1]]), "c": jnp.ones((1, 5))}
    tx = neuroml.self_normalized_resets(NAMES, network, minimum=3, choose="random")
    seen = []

    def step(state, key):
        _, state = tx.update(STILL, state, PARAMS, activity=activity, key=key)
        return state, (state.renewed["first"], state.renewed["second"].sum())

    _, (seen, others) = jax.lax.scan(step, tx.init(PARAMS), jax.random.split(KEY, 600))
    expected = np.where(np.arange(1, 601) % 3 == 0, 2, 0)  # those who stay silent are rejected every third update
    assert np.isin(seen.sum(1), [0, 1, 2]).all() and others.sum() == 0
    first = int(np.flatnonzero(seen.sum(1))[0])
    assert first == 2 and seen.sum(1)[first] == 2 and abs(seen.sum() - expected.sum()) < 0.35 * expected.sum()
    shares = seen.sum(0) / seen.sum()
    assert abs(shares - 1 / 6).max() < 0.06, shares


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="unknown choice 'silence'"):
        neuroml.self_normalized_resets(NAMES, network, choose="silence")
    with pytest.raises(UsageError, match="self_normalized_resets found no population between two layers"):
        neuroml.self_normalized_resets({"a": NAMES["a"]}, network).init({"a": PARAMS["a"]})
    tx = neuroml.self_normalized_resets(NAMES, network)
    with pytest.raises(UsageError, match="lacks layer 'c', which reads population 'second'"):
        tx.update(STILL, tx.init(PARAMS), PARAMS, activity={"b": jnp.ones((1, 6))}, key=KEY)
