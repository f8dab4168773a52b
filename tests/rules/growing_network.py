"""A network of three layers whose two populations grow, and what tests of growth do with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neuroml import growing, surgery, units

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
    update = jax.jit(tx.update)  # else each update compiles its branches anew
    for _ in range(count):
        updates, state = update(STILL, state, params, **words)
    return updates, state


def alive(state):
    return {name: one.alive.tolist() for name, one in state.neurons.items()}


def assert_dead_are_zero(params, state):
    found = units.find(NAMES, params)
    off = surgery.touched(found, params, {name: ~one.alive for name, one in state.neurons.items()})
    jax.tree.map(lambda leaf, gone: np.testing.assert_array_equal(leaf[gone], 0), params, off)


def same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), one, two)


def growing_room(state):
    return sum(int((~one.alive).sum()) for one in state.neurons.values())
