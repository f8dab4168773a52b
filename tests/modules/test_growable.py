"""Growable layers: a birth that nobody notices, units in reserve that do not exist, and a stock layer in all else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import neuroml
from neuroml.errors import UsageError

X = jax.random.normal(jax.random.key(0), (6, 3))
IMAGES = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))


@pytest.fixture(autouse=True, params=[True, False], ids=["graph", "tree"])
def nnx_mode(request):
    """Runs every test in NNX's graph mode and in its tree mode."""
    with nnx.set_graph_mode(request.param), nnx.set_graph_updates(request.param):
        yield request.param


class Dense(nnx.Module):
    def __init__(self, capacity=8, alive=2, rngs=None, **options):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.hidden = neuroml.GrowableDense(3, capacity, alive=alive, rngs=rngs, **options)
        self.head, self.other = nnx.Linear(capacity, 2, rngs=rngs), nnx.Linear(capacity, 1, rngs=rngs)

    def __call__(self, x):
        hidden = jax.nn.sigmoid(self.hidden(x))  # 1/2 at zero: readers hear units in reserve, until they are born
        return self.head(hidden), self.other(hidden)


class Image(nnx.Module):
    def __init__(self, rngs):
        self.first = neuroml.GrowableConv(1, 6, (3, 3), alive=2, strides=2, rngs=rngs)
        self.second = nnx.Conv(6, 3, (3, 3), rngs=rngs)
        self.flat = nnx.Linear(4 * 4 * 6, 2, rngs=rngs)

    def __call__(self, x):
        hidden = nnx.relu(self.first(x))
        return self.second(hidden), self.flat(hidden.reshape(x.shape[0], -1))


def weights(model):
    return jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), one, two)


def test_the_alive_answer_as_a_stock_layer_and_the_others_zero():
    layer, stock = neuroml.GrowableDense(3, 8, alive=5, rngs=nnx.Rngs(0)), nnx.Linear(3, 8, rngs=nnx.Rngs(0))
    same(layer(X), jnp.where(jnp.arange(8) < 5, stock(X), 0), atol=0)
    assert layer.alive.tolist() == [True] * 5 + [False] * 3 and layer.room == 3
    full = neuroml.GrowableDense(3, 8, alive=8, rngs=nnx.Rngs(0))
    same(full(X), stock(X), atol=0)
    conv, stock = (
        neuroml.GrowableConv(1, 4, (3, 3), alive=3, rngs=nnx.Rngs(0)),
        nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)),
    )
    same(conv(IMAGES), jnp.where(jnp.arange(4) < 3, stock(IMAGES), 0), atol=0)


def test_a_birth_leaves_the_function_as_it_is_with_several_readers():
    model = Dense(bias_init=jax.nn.initializers.normal(1.0))
    model.head.kernel[...] = model.head.kernel[...].at[2:].set(0)  # no sigmoid of nothing
    model.other.kernel[...] = model.other.kernel[...].at[2:].set(0)
    for count in (3, 0, 2, 1):
        before, room = model(X), model.hidden.room
        model.hidden.grow(count, model.head, model.other, rngs=nnx.Rngs(count))
        same(model(X), before)
        assert model.hidden.room == room - count
    assert (weights(model)["hidden"]["bias"] != 0).all() and (weights(model)["head"]["kernel"][2:] == 0).all()


def test_a_birth_in_a_convolution_leaves_a_convolution_and_a_flattened_image_as_they_are():
    model = Image(nnx.Rngs(0))
    before, old = model(IMAGES), weights(model)
    model.first.grow(3, model.second, model.flat, rngs=nnx.Rngs(1))
    same(model(IMAGES), before)
    assert model.first.alive.tolist() == [True] * 5 + [False]
    rows = weights(model)["flat"]["kernel"].reshape(16, 6, 2)
    assert (rows[:, 2:5] == 0).all() and (
        rows[:, [0, 1, 5]] == old["flat"]["kernel"].reshape(16, 6, 2)[:, [0, 1, 5]]
    ).all()


def train(model, steps=30):
    optimizer = nnx.Optimizer(model, optax.adamw(0.01), wrt=nnx.Param)
    for _ in range(steps):
        grads = nnx.grad(lambda model: sum((y**2).mean() for y in model(X)) + (model.hidden(X) - 1).var())(model)
        optimizer.update(model, grads)


def test_units_in_reserve_learn_nothing_and_the_newborn_do():
    model = Dense()
    train(model)
    assert (weights(model)["hidden"]["kernel"][:, 2:] == 0).all() and (weights(model)["hidden"]["bias"][2:] == 0).all()
    model.hidden.grow(2, model.head, model.other, rngs=nnx.Rngs(3))
    before = weights(model)
    train(model)
    moved = abs(weights(model)["hidden"]["kernel"] - before["hidden"]["kernel"]).max(0) > 1e-3
    assert moved.tolist() == [True] * 4 + [False] * 4
    assert (abs(weights(model)["head"]["kernel"][2:4]) > 1e-3).all()


def test_parameters_are_those_of_a_stock_layer_and_counted_as_allocated():
    rngs = nnx.Rngs(0)
    for layer, stock in (
        (neuroml.GrowableDense(3, 8, alive=1, rngs=rngs), nnx.Linear(3, 8, rngs=rngs)),
        (
            neuroml.GrowableConv(1, 4, (3, 3), alive=1, use_bias=False, rngs=rngs),
            nnx.Conv(1, 4, (3, 3), use_bias=False, rngs=rngs),
        ),
    ):
        assert jax.tree.map(jnp.shape, weights(layer)) == jax.tree.map(jnp.shape, weights(stock))


def test_the_rule_grows_it_inside_jit_and_activity_is_captured():
    network = neuroml.from_nnx(lambda rngs: Dense(rngs=rngs))
    params, _ = network.init(jax.random.key(0))
    names = {
        "hidden": {"kernel": ("input", "hidden"), "bias": ("hidden",)},
        "head": {"kernel": ("hidden", "one"), "bias": ("one",)},
        "other": {"kernel": ("hidden", "two"), "bias": ("two",)},
    }
    params = neuroml.reserve(params, names, 2)
    tx = neuroml.renewal(optax.adam(0.01), neuroml.growth(names, when="steps", patience=3), names)

    @jax.jit
    def step(params, state, key):
        _, _, activity = network.capture(params, {}, X)
        grads = jax.grad(lambda p: sum((y**2).mean() for y in network.apply(p, {}, X)[0]))(params)
        updates, state = tx.update(grads, state, params, activity=activity, key=key)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for i in range(10):
        params, state = step(params, state, jax.random.key(i))
    alive = (params["hidden"]["kernel"] != 0).any(0)
    assert alive.tolist() == state.rule.neurons["hidden"].alive.tolist() == [True] * 5 + [False] * 3


def test_it_is_split_and_merged_and_compiled():
    model = Dense()
    graph, state = nnx.split(model)
    traces = []

    @jax.jit
    def call(state, x):
        traces.append(x)
        return nnx.merge(graph, state)(x)

    same(call(state, X), model(X))
    model.hidden.grow(1, model.head, model.other, rngs=nnx.Rngs(0))
    same(call(nnx.split(model)[1], X), model(X))
    assert len(traces) == 1


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="alive=0 must be at least 1 and at most the capacity, 8"):
        neuroml.GrowableDense(3, 8, alive=0, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="alive=5 must be at least 1 and at most the capacity, 4"):
        neuroml.GrowableConv(1, 4, (3, 3), alive=5, rngs=nnx.Rngs(0))
    model = Dense()
    grow = model.hidden.grow
    with pytest.raises(UsageError, match="7 units cannot be born: 6 of 8 are in reserve. `neuroml.resize` makes room"):
        grow(7, model.head, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="needs a count >= 0 and the layers that read the units"):
        grow(1, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="a reader has 3 inputs; the units to be born are of 8"):
        grow(1, nnx.Linear(3, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    before = weights(model)
    with pytest.raises(UsageError, match="a reader has 16 inputs; the units to be born are of 8.*a layer of their own"):
        grow(1, model.head, nnx.Linear(16, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))  # a concatenation with a skip
    image, joined = Image(nnx.Rngs(0)), nnx.Conv(12, 2, (3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="a reader has 12 inputs; the units to be born are of 6"):
        image.first.grow(1, joined, rngs=nnx.Rngs(0))
    same(weights(model), before, rtol=0, atol=0)
    graph, state = nnx.split(model)

    @jax.jit
    def inside(state):
        model = nnx.merge(graph, state)
        model.hidden.grow(1, model.head, rngs=nnx.Rngs(0))

    with pytest.raises(UsageError, match="grow runs between steps, not inside `jit`"):
        inside(state)
