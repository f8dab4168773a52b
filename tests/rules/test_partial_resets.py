"""Calibrated partial resets: against a plain loop, and how far which neuron goes."""

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


def moves(*speeds):
    """Steps in which neuron j of the first population moves at the given speed, all others alike."""
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    return ones | {"a": ones["a"] | {"kernel": jnp.broadcast_to(jnp.asarray(speeds, jnp.float32), (3, 6))}}


def test_a_hundred_steps_are_those_of_a_plain_loop():
    length, every, draw = 98, 7, jax.random.key(1)
    settings = {"sharpness": 5.0, "threshold": 0.9, "decay": 0.8}
    tx = neuroml.partial_resets(NAMES, network, 0.3, every=every, **settings)
    params, step, state = PARAMS, jax.jit(tx.update), tx.init(PARAMS)
    w = jax.tree.map(lambda leaf: np.array(leaf, np.float64), PARAMS)
    utility, moved = {name: np.ones(n) for name, n in SIZES.items()}, 0.0
    for t in range(length):
        key = jax.random.fold_in(KEY, t)
        updates = jax.tree.map(lambda leaf: 0.1 * leaf, network(jax.random.fold_in(draw, t)))
        steps, state = step(updates, state, params, key=key)
        params = optax.apply_updates(params, steps)

        w = jax.tree.map(lambda x, u: x + np.asarray(u, np.float64), w, updates)
        for name, maker in {"first": "a", "second": "b"}.items():
            speed = np.abs(np.asarray(updates[maker]["kernel"], np.float64)).mean(0)
            utility[name] = 0.8 * utility[name] + 0.2 * speed / speed.mean()
        if (t + 1) % every == 0:
            fresh = network(jax.random.split(key)[0])
            for name, (maker, reader) in {"first": ("a", "b"), "second": ("b", "c")}.items():
                r = 0.3 * np.minimum(1, 2 / (1 + np.exp(5.0 * (utility[name] - 0.9))))
                for leaf in ("kernel", "bias"):
                    w[maker][leaf] = (1 - r) * w[maker][leaf] + r * np.asarray(fresh[maker][leaf])
                w[reader]["kernel"] = (1 - r)[:, None] * w[reader]["kernel"]
                moved += r.sum()
                assert r.min() < 0.2 < r.max() or t > every, "the calibration is put to the test"
            utility = {name: np.ones_like(u) for name, u in utility.items()}
    np.testing.assert_allclose(state.report()["replaced"], moved, rtol=1e-4)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), params, w)


def test_the_share_falls_from_the_whole_strength_as_the_utility_rises_over_the_mean():
    tx = neuroml.partial_resets(NAMES, network, 0.015, decay=0.0, every=1)
    steps = moves(0.0, 0.5, 1.0, 1.0, 1.5, 2.0)
    out, state = tx.update(steps, tx.init(PARAMS), PARAMS, key=KEY)
    share = 0.015 * np.minimum(1, 2 / (1 + np.exp(16 * np.array([-1, -0.5, 0, 0, 0.5, 1]))))
    assert share[0] == share[3] == 0.015 and share[4] < 2e-5
    fresh = network(jax.random.split(KEY)[0])
    after, moved = optax.apply_updates(PARAMS, out), optax.apply_updates(PARAMS, steps)
    expected = (1 - share) * moved["a"]["bias"] + share * fresh["a"]["bias"]
    np.testing.assert_allclose(after["a"]["bias"], expected, rtol=1e-5)
    # The neurons of the second population move alike: all of them go the whole strength.
    leaving = (1 - share)[:, None] * moved["b"]["kernel"]
    np.testing.assert_allclose(
        after["b"]["kernel"], 0.985 * leaving + 0.015 * fresh["b"]["kernel"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(state.moved, share.sum() + 5 * 0.015, rtol=1e-4)
    assert all((utility == 1).all() for utility in state.utilities.values())


def test_the_defaults_reach_the_state():
    state = neuroml.partial_resets(NAMES, network).init(PARAMS)
    given = {name: round(float(getattr(state, name)), 6) for name in state.hyperparameters}
    assert given == {"strength": 0.015, "sharpness": 16.0, "threshold": 1.0, "decay": 0.99}


@pytest.mark.parametrize("scale", [1e-6, 1.0, -30.0])
def test_the_learning_rate_does_not_matter(scale):
    tx = neuroml.partial_resets(NAMES, network, 0.5, every=2)
    steps = moves(0.2, 0.4, 1.0, 1.0, 1.5, 2.0)
    _, state = tx.update(jax.tree.map(lambda leaf: scale * leaf, steps), tx.init(PARAMS), PARAMS, key=KEY)
    _, unit = tx.update(steps, tx.init(PARAMS), PARAMS, key=KEY)
    np.testing.assert_allclose(state.utilities["first"], unit.utilities["first"], rtol=1e-5)


def test_between_resets_steps_are_left_as_they_are():
    tx = neuroml.partial_resets(NAMES, network, 0.5, every=3)
    state, steps = tx.init(PARAMS), moves(0.1, 0.2, 1.0, 1.0, 1.5, 2.0)
    changed = []
    for _ in range(7):
        out, state = tx.update(steps, state, PARAMS, key=KEY)
        changed.append(bool(jnp.any(out["a"]["kernel"] != steps["a"]["kernel"])))
    assert changed == [False, False, True, False, False, True, False]


def test_moments_stay_unless_a_neuron_is_replaced_whole():
    grads = moves(0.0, 1.0, 1.0, 1.0, 1.0, 3.0)

    def first_moment(strength):
        rule = neuroml.partial_resets(NAMES, network, strength, sharpness=1e3, decay=0.0, every=1)
        tx = neuroml.renewal(optax.sgd(0.1, momentum=0.9), rule, NAMES)
        _, state = tx.update(grads, tx.init(PARAMS), PARAMS, key=KEY)
        return state.rule.renewed["first"], state.base[0].trace["a"]["bias"]

    renewed, trace = first_moment(0.9)
    assert not renewed.any() and (trace == 1).all()
    renewed, trace = first_moment(1.0)
    np.testing.assert_array_equal(renewed, [True] * 5 + [False])
    np.testing.assert_array_equal(trace, [0] * 5 + [1])


def test_the_control_deals_the_same_shares_to_any():
    steps = moves(0.0, 1.4, 1.4, 1.4, 1.4, 1.4)  # only the first is of little use
    tx = neuroml.partial_resets(NAMES, network, 0.5, sharpness=1e3, decay=0.0, every=1, choose="random")
    step = jax.jit(lambda key: tx.update(steps, tx.init(PARAMS), PARAMS, key=key))
    pulled = []
    for i in range(120):
        out, state = step(jax.random.fold_in(KEY, i))
        changed = np.flatnonzero((out["a"]["kernel"] != steps["a"]["kernel"]).all(0))
        assert len(changed) == 1 and abs(float(state.moved) - (0.5 + 5 * 0.5)) < 1e-5
        pulled += changed.tolist()
    assert min(np.bincount(pulled, minlength=6)) > 8


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="every=0 must be at least 1"):
        neuroml.partial_resets(NAMES, network, every=0)
    with pytest.raises(UsageError, match="unknown choice 'lot'"):
        neuroml.partial_resets(NAMES, network, choose="lot")
    with pytest.raises(UsageError, match="partial_resets found no population between two layers"):
        neuroml.partial_resets({"a": NAMES["a"]}, network).init({"a": PARAMS["a"]})
