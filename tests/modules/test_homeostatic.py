"""Streaming normalization and CReLU: against the pure functions, in stock models, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import neuroml
from neuroml import adaptation
from neuroml.errors import UsageError

X = 5 + 3 * jax.random.normal(jax.random.key(0), (10, 8, 3))


@pytest.fixture(autouse=True, params=[True, False], ids=["graph", "tree"])
def nnx_mode(request):
    """Runs every test in NNX's graph mode and in its tree mode."""
    with nnx.set_graph_mode(request.param), nnx.set_graph_updates(request.param):
        yield request.param


def stock(rngs):
    return nnx.Sequential(neuroml.StreamingNorm(3), nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs))


def statistics(model):
    return nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])


def same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), one, two)


@pytest.mark.parametrize("settings", [{}, {"decay": 0.5, "epsilon": 0.1, "largest": 1.0, "shift": 0.5, "pooled": True}])
def test_it_does_what_the_pure_functions_do(settings):
    norm, pure = neuroml.StreamingNorm((3,), **settings), adaptation.make(**settings)
    state = pure.init((3,))
    for x in X:
        state = pure.update(state, x)
        same(norm(x), pure.apply(state, x))
        same(norm.state, state)
    same(norm(np.asarray(X[0]), update=False), pure.apply(state, X[0]))
    same(norm.state, state, rtol=0, atol=0)


def test_a_stream_is_normalized_and_images_too():
    norm = neuroml.StreamingNorm((8, 3), decay=0.9)
    for _ in range(100):
        y = norm(X)
    assert abs(float(y.mean())) < 0.05 and abs(float(y.std()) - 1) < 0.1


def test_eval_and_train_of_a_stock_model_switch_it():
    model = stock(nnx.Rngs(0))
    model(X[0])
    before = statistics(model)
    model.eval()
    model(X[1])
    same(statistics(model), before, rtol=0, atol=0)
    model.train()
    model(X[1])
    assert not np.allclose(statistics(model)["layers"][0]["mean"], before["layers"][0]["mean"])


def test_under_jit_it_is_split_and_merged_and_compiles_once():
    model, plain, traces = stock(nnx.Rngs(0)), stock(nnx.Rngs(0)), []

    @jax.jit
    def call(graph, state, x):
        traces.append(None)
        model = nnx.merge(graph, state)
        return model(x), nnx.state(model)

    for x in X[:3]:
        y, state = call(*nnx.split(model), x)
        nnx.update(model, state)
        same(y, plain(x))
    same(statistics(model), statistics(plain))
    assert len(traces) == 1


def test_under_vmap_each_seed_has_its_own_statistics():
    network = neuroml.from_nnx(stock)
    params, state = jax.vmap(network.init)(jax.random.split(jax.random.key(0), 4))
    batches = X[0] * jnp.arange(1.0, 5)[:, None, None]
    outputs, after = jax.vmap(network.apply)(params, state, batches)
    for seed in range(4):
        one = lambda tree, seed=seed: jax.tree.map(lambda leaf: leaf[seed], tree)
        expected, alone = network.apply(one(params), one(state), batches[seed])
        same(one(outputs), expected)
        same(one(after), alone)
    means = after["layers"][0]["mean"]
    assert len(np.unique(means[:, 0])) == 4


def test_a_scan_carries_it():
    network = neuroml.from_nnx(stock)
    params, state = network.init(jax.random.key(0))
    step = lambda state, x: network.apply(params, state, x)[::-1]
    scanned, _ = jax.lax.scan(step, state, X)
    for x in X:
        _, state = network.apply(params, state, x)
    same(scanned, state)


def test_an_optimizer_leaves_it_alone_and_no_gradient_passes_through_the_statistics():
    network = neuroml.from_nnx(lambda rngs: neuroml.StreamingNorm(3, decay=0.0, largest=100.0))
    params, state = network.init(jax.random.key(0))
    assert not jax.tree.leaves(params)
    gradient = jax.grad(lambda x: network.apply(params, state, x)[0].sum())(X[0])
    variance = network.apply(params, state, X[0])[1]["variance"]
    same(gradient, jnp.broadcast_to(1 / jnp.sqrt(variance + 1e-3), (8, 3)))
    model = stock(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    graph, weights, rest = nnx.split(model, nnx.Param, ...)
    fresh = lambda: jax.tree.map(
        lambda leaf: leaf, rest
    )  # as with BatchNorm, a Variable changes at its own trace level
    loss = lambda weights: (nnx.merge(graph, weights, fresh())(X[0]) ** 2).sum()
    optimizer.update(model, jax.grad(loss)(weights))
    same(statistics(model), statistics(stock(nnx.Rngs(0))), rtol=0, atol=0)


def test_activity_is_captured_behind_it():
    _, activity = neuroml.activity.capture_nnx(stock(nnx.Rngs(0)), X[0])
    norm = neuroml.StreamingNorm(3)
    same(activity["layers"][1], norm(X[0]))


@pytest.mark.parametrize("x", [jnp.ones((4, 2)), jnp.ones(3), jnp.ones((0, 3)), jnp.ones((4, 4, 3))])
def test_another_shape_raises(x):
    with pytest.raises(UsageError, match=r"StreamingNorm of shape \(3,\) needs a batch"):
        neuroml.StreamingNorm(3)(x)


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"decay": -0.1}, {"short_decay": 1.5}, {"shift": -1.0}])
def test_a_number_out_of_range_raises(settings):
    with pytest.raises(UsageError, match=f"needs a `{[*settings][0]}` in "):
        neuroml.StreamingNorm(3, **settings)


def test_crelu_keeps_both_signs_and_always_has_a_slope():
    x = jax.random.normal(jax.random.key(1), (5, 4))
    y = neuroml.crelu(x)
    same(y, np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=1), rtol=0, atol=0)
    same(y[:, :4] - y[:, 4:], x)
    slopes = jax.jacobian(neuroml.crelu)(x[0])
    assert (jnp.abs(slopes).sum(0) == 1).all()
