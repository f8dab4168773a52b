"""Resizing under projectors: what was held still is, and where new inputs are, nothing is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_resizing import KEY, NAMES, SMALL, capture, consolidate, exactly, network, same, train

import neuroml

PLACES = (None, None)
CHANNELS = {
    "a": {"kernel": (*PLACES, "colour", "channel"), "bias": ("channel",)},
    "b": {"kernel": (*PLACES, "channel", "answer"), "bias": ("answer",)},
}


def test_the_projectors_core_gains_rows_and_columns_where_the_inputs_are():
    tx = optax.chain(optax.sgd(0.05), neuroml.condensate_projector(scale=0.1))
    params, state = train(tx, SMALL, tx.init(SMALL), 12, consolidate_at=(6,))
    larger, after = neuroml.resize(tx, params, state, NAMES)
    rows = np.append(np.arange(8), 16)  # of layer b: 8 old inputs, 8 new ones, and the bias behind
    old, new = state[1].layers["b"], after[1].layers["b"]
    core = lambda one: np.asarray((one.basis * one.energy) @ one.basis.T)
    expected, shell = np.zeros((17, 17)), np.zeros((17, 17))
    expected[np.ix_(rows, rows)], shell[np.ix_(rows, rows)] = core(old), old.shell
    same(core(new), expected)
    exactly(new.shell, shell)
    assert abs(core(old)[8]).max() > 0.1, "the bias must be held"
    step = jax.tree.map(lambda leaf: jnp.ones_like(leaf), params)
    wide = neuroml.resize(tx, step, state, NAMES)[0]
    words = {"activity": capture(params)[1]}
    small = jax.jit(tx.update)(step, state, params, **words)[0]
    large = jax.jit(tx.update)(wide, after, larger, activity=capture(larger)[1])[0]
    same(large, neuroml.resize(tx, small, state, NAMES)[0])


def test_a_convolution_keeps_its_patches():
    names = {"a": {"kernel": (None, None, "colour", "channel")}, "b": {"kernel": (None, None, "channel", "answer")}}
    params = {"a": {"kernel": jnp.ones((3, 3, 1, 2))}, "b": {"kernel": jax.random.normal(KEY, (3, 3, 2, 1))}}
    tx = neuroml.gpm(threshold=0.95)
    image = jax.random.normal(KEY, (4, 5, 5, 2))
    activity = {"a": image[..., :1], "b": image}
    _, state = jax.jit(tx.update)(params, tx.init(params), params, activity=activity)
    state = consolidate(state, params)
    larger, after = neuroml.resize(tx, params, state, names, {"channel": 5})
    wide = jnp.pad(image, [(0, 0)] * 3 + [(0, 3)])
    activity = {"a": image[..., :1], "b": wide}
    steps, after = jax.jit(tx.update)(larger, after, larger, activity=activity)
    small = jax.jit(tx.update)(params, state, params, activity={"a": image[..., :1], "b": image})[0]
    same(steps["b"]["kernel"][:, :, :2], small["b"]["kernel"])
    assert (steps["b"]["kernel"][:, :, 2:] == 0).all() and int(after.layers["b"].held) > 1
    old = np.zeros((3, 3, 5, 18))
    old[:, :, :2] = state.layers["b"].basis.reshape(3, 3, 2, 18)
    activity["b"] = jax.random.normal(jax.random.key(1), wide.shape)
    _, after = jax.jit(tx.update)(larger, after, larger, activity=activity)
    held = consolidate(after, larger).layers["b"]
    assert int(held.held) > int(state.layers["b"].held) > 3
    same(held.basis @ (held.basis.T @ old.reshape(45, 18)), old.reshape(45, 18))  # what was held still is


def convolutions(key=KEY):
    """Weights of two layers, and what enters them."""
    one, two, image = jax.random.split(key, 3)
    layer = lambda key, *shape: {"kernel": jax.random.normal(key, shape), "bias": jnp.ones(shape[-1:])}
    x = jax.random.normal(image, (4, 5, 5, 2))
    return {"a": layer(one, 3, 3, 1, 2), "b": layer(two, 3, 3, 2, 1)}, {"a": x[..., :1], "b": x}


def dense():
    params = network(4, 3)
    return params, capture(params)[1]


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("make, names", [(dense, NAMES), (convolutions, CHANNELS)], ids=["dense", "convolutions"])
def test_directions_that_are_held_stay_apart_and_new_neurons_learn_freely(make, names, rank):
    params, activity = make()
    tx = neuroml.condensate_projector(scale=0.01, rank=rank)
    state = consolidate(jax.jit(tx.update)(params, tx.init(params), params, activity=activity)[1], params)
    larger, after = neuroml.resize(tx, params, state, names)
    for home, old in state.layers.items():
        basis = after.layers[home].basis
        expected = np.zeros((basis.shape[1],) * 2)
        expected[: old.basis.shape[1], : old.basis.shape[1]] = np.eye(old.basis.shape[1])
        np.testing.assert_allclose(basis.T @ basis, expected, atol=1e-5)
    wide = {home: _padded(x, (*x.shape[:-1], larger[home]["kernel"].shape[-2])) for home, x in activity.items()}
    small = jax.jit(tx.update)(params, state, params, activity=activity)[0]
    step = jax.tree.map(lambda new, old: _padded(old, new.shape, 1.0), larger, params)
    large = jax.jit(tx.update)(step, after, larger, activity=wide)[0]
    same(jax.tree.map(lambda new, old: new[tuple(map(slice, old.shape))], large, small), small)
    outgoing = lambda tree: tree["b"]["kernel"][
        ..., params["b"]["kernel"].shape[-2] :, : small["b"]["kernel"].shape[-1]
    ]
    exactly(outgoing(large), outgoing(step))


def test_new_inputs_are_free_of_the_metric_and_old_ones_keep_theirs():
    params, activity = dense()
    tx = neuroml.condensate_metric(scale=0.01)
    state = consolidate(jax.jit(tx.update)(params, tx.init(params), params, activity=activity)[1], params)
    larger, after = neuroml.resize(tx, params, state, NAMES)
    rows = np.append(np.arange(4), 8)  # of layer b: 4 old inputs, and the bias behind 4 new ones
    old, new = state.layers["b"], after.layers["b"]
    for name in ("moment", "core", "inverse"):
        exactly(getattr(new, name)[np.ix_(rows, rows)], getattr(old, name))
    exactly(new.inverse[4:8], jnp.eye(9)[4:8])
    assert abs(old.inverse - jnp.eye(5)).max() > 0.1


def _padded(array, shape, value=0.0):
    room = [(0, after - before) for after, before in zip(shape, array.shape, strict=True)]
    return jnp.pad(array, room, constant_values=value)
