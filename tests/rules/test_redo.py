"""ReDo: against a plain loop, who is dormant, and what the control replaces."""

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
CUT = jax.tree.map(jnp.copy, PARAMS)  # the second neuron hears nothing, the fifth is not heard
CUT["a"]["kernel"], CUT["b"]["kernel"] = PARAMS["a"]["kernel"].at[:, 1].set(0), PARAMS["b"]["kernel"].at[4].set(0)
STILL = jax.tree.map(jnp.zeros_like, PARAMS)


def answering(first, second=None, rows=1):
    """Activity in which each neuron answers the same number, to every example."""
    wide = lambda numbers: jnp.broadcast_to(jnp.asarray(numbers, jnp.float32), (rows, len(numbers)))
    return {"a": jnp.ones((rows, 3)), "b": wide(first), "c": wide(second or [1.0] * 5)}


def checked(tx, activities, state=None, params=PARAMS):
    state = tx.init(params) if state is None else state
    for i, activity in enumerate(activities):
        steps, state = tx.update(STILL, state, params, activity=activity, key=jax.random.fold_in(KEY, i))
    return steps, state


def test_a_hundred_steps_are_those_of_a_plain_loop():
    length, every, threshold, draw = 105, 7, 0.6, jax.random.key(1)
    noise = lambda i, *shape: np.asarray(jax.random.normal(jax.random.fold_in(draw, i), shape))
    scale = lambda t, n: 0.01 + np.abs(np.sin(np.arange(n) + t // every))  # others are quiet in each period
    loud = lambda t, n: noise(t * 10 + n, 4, n) * scale(t, n)
    answers = {name: np.stack([loud(t, n) for t in range(length)]) for name, n in SIZES.items()}
    step_of = lambda t: jax.tree.map(lambda leaf: 0.1 * leaf, network(jax.random.fold_in(draw, 10_000 + t)))
    updates = [step_of(t) for t in range(length)]
    w = jax.tree.map(lambda leaf: np.array(leaf, np.float64), PARAMS)
    born, silent = [], {name: np.zeros(n) for name, n in SIZES.items()}

    tx, params = neuroml.redo(NAMES, network, threshold=threshold, every=every), PARAMS
    step, state, births = jax.jit(tx.update), tx.init(params), []
    for t in range(length):
        key = jax.random.fold_in(KEY, t)
        activity = {"a": jnp.ones((4, 3)), "b": answers["first"][t], "c": answers["second"][t]}
        steps, state = step(updates[t], state, params, activity=activity, key=key)
        params = optax.apply_updates(params, steps)
        births += [(t, name, int(j)) for name in SIZES for j in np.flatnonzero(state.renewed[name])]

        w = jax.tree.map(lambda x, u: x + np.asarray(u, np.float64), w, updates[t])
        silent = {name: total + np.abs(answers[name][t]).mean(0) for name, total in silent.items()}
        if (t + 1) % every == 0:
            fresh = network(jax.random.split(key)[0])
            for name, (maker, reader) in {"first": ("a", "b"), "second": ("b", "c")}.items():
                for j in np.flatnonzero(silent[name] / silent[name].mean() < threshold):
                    w[maker]["kernel"][:, j] = fresh[maker]["kernel"][:, j]
                    w[maker]["bias"][j] = fresh[maker]["bias"][j]
                    w[reader]["kernel"][j] = 0
                    born.append((t, name, int(j)))
            silent = {name: 0 * total for name, total in silent.items()}
    assert births == born and len(born) == int(state.births) == int(state.report()["replaced"]) > 20
    assert {name for _, name, _ in born} == set(SIZES) and len({j for _, _, j in born}) == 6
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), params, w)


def test_the_sign_does_not_count_and_the_threshold_itself_is_spared():
    loud = [-1.0, 1.0, -1.0, 1.0]
    quiet = (4 + 0.25) / (6 / 0.5 - 1)  # with the other quiet one, just half of the layer's mean
    steps, state = checked(
        neuroml.redo(NAMES, network, threshold=0.5, every=1), [answering([*loud, 0.25, quiet + 1e-3])]
    )
    assert state.renewed["first"].tolist() == [False] * 4 + [True, False]
    exact = neuroml.redo(NAMES, network, threshold=1.0, every=1)
    assert not checked(exact, [answering([2.0] * 6)])[1].births
    assert (steps["b"]["kernel"][4] == -PARAMS["b"]["kernel"][4]).all()


def test_only_what_was_answered_since_the_last_check_counts():
    tx = neuroml.redo(NAMES, network, threshold=0.1, every=2)
    ones, hushed = [1.0] * 6, [1.0] * 5 + [0.0]
    assert int(checked(tx, [answering(ones), answering(hushed)])[1].births) == 0
    state = checked(tx, [answering(ones), answering(ones)])[1]
    state = checked(tx, [answering(hushed)], state)[1]
    assert int(state.births) == 0
    state = checked(tx, [answering(hushed)], state)[1]
    assert int(state.births) == 1 and state.renewed["first"].tolist() == [False] * 5 + [True]
    state = checked(tx, [answering(hushed)], state)[1]
    assert int(state.births) == 1 and not state.renewed["first"].any()


def test_a_layer_that_is_dead_is_replaced_whole_but_not_at_threshold_zero():
    dead = answering([0.0] * 6)
    assert checked(neuroml.redo(NAMES, network, threshold=1e-6, every=1), [dead])[1].renewed["first"].all()
    steps, state = checked(neuroml.redo(NAMES, network, threshold=0.0, every=1), [dead])
    assert int(state.births) == 0
    jax.tree.map(np.testing.assert_array_equal, steps, STILL)


def test_a_neuron_that_is_not_finite_is_spared_until_the_next_check_and_no_measure_of_the_others():
    tx = neuroml.redo(NAMES, network, threshold=0.5, every=1)
    for wrong in (jnp.nan, jnp.inf):
        _, state = checked(tx, [answering([1.0, 1, 1, 1, 0, wrong])])
        assert state.renewed["first"].tolist() == [False] * 4 + [True, False]
        assert checked(tx, [answering([1.0] * 5 + [0])], state)[1].renewed["first"].tolist() == [False] * 5 + [True]
    assert int(checked(tx, [answering([jnp.nan] * 6)])[1].births) == 0


def test_a_neuron_of_a_convolution_answers_at_every_place():
    names = {"a": {"kernel": (None, None, "colour", "channel")}, "b": {"kernel": (None, None, "channel", "answer")}}
    params = {"a": {"kernel": jnp.ones((3, 3, 2, 3))}, "b": {"kernel": jnp.ones((3, 3, 3, 1))}}
    images = jnp.zeros((2, 4, 4, 3)).at[0, 1, 2, 0].set(8.0).at[:, :, :, 1].set(1.0)
    tx = neuroml.redo(names, lambda key: params, threshold=0.3, every=1)  # means: 0.25, 1, 0
    words = {"activity": {"a": jnp.ones((2, 4, 4, 2)), "b": images}, "key": KEY}
    steps, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    assert state.renewed["channel"].tolist() == [False, False, True]
    assert (steps["b"]["kernel"][:, :, 2] == -1).all() and (steps["b"]["kernel"][:, :, :2] == 0).all()


def test_the_control_replaces_as_many_but_any():
    hushed = answering([1.0, 1, 0, 1, 0, 1], [0.0, 1, 1, 1, 1])
    tx = neuroml.redo(NAMES, network, every=1, choose="random")
    renewed = [checked(tx, [hushed] * i)[1].renewed for i in (1, 2, 3)]
    step = jax.jit(lambda key: tx.update(STILL, tx.init(PARAMS), PARAMS, activity=hushed, key=key)[1])
    states = [step(jax.random.fold_in(KEY, 1000 + i)) for i in range(200)]
    assert {int(state.births) for state in states} == {3} and all(int(r["first"].sum()) == 2 for r in renewed)
    shares = np.mean([state.renewed["first"] for state in states], axis=0)
    assert abs(shares - 2 / 6).max() < 0.12, shares


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="every=0 must be at least 1"):
        neuroml.redo(NAMES, network, every=0)
    with pytest.raises(UsageError, match="unknown choice 'randon'. Did you mean 'random'"):
        neuroml.redo(NAMES, network, choose="randon")
    with pytest.raises(UsageError, match="redo found no population between two layers"):
        neuroml.redo({"a": NAMES["a"]}, network).init({"a": PARAMS["a"]})
    with pytest.raises(UsageError, match="lacks layer 'b', which reads population 'first'"):
        checked(neuroml.redo(NAMES, network), [{"c": jnp.ones((1, 5))}])


def test_only_the_silent_who_were_destroyed_are_healed():
    """Neurons 1, 2 and 4 are silent, and neuron 2 is whole; neuron 4, not heard, may answer, and then stays."""
    for fifth, healed in ((0.0, [1, 4]), (1.0, [1])):
        tx = neuroml.redo(NAMES, network, every=1, heals="destroyed")
        _, state = checked(tx, [answering([1.0, 0.0, 0.0, 1.0, fifth, 1.0])], params=CUT)
        assert np.flatnonzero(state.renewed["first"]).tolist() == healed
    with pytest.raises(UsageError, match="'hurt'"):
        neuroml.redo(NAMES, network, heals="hurt")
