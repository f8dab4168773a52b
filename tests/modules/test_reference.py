import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neuroml.errors import UsageError
from neuroml.modules.reference import CNN, INITIALIZATIONS, MLP, cnn, max_pool, mlp

KEY = jax.random.key(0)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def test_mlp_layout_and_forward_pass():
    network = mlp((2, 3, 1), [5, 4], 3)
    params, model_state = network.init(KEY)
    assert model_state == {}
    assert shapes(params) == {
        "layers": {0: {"kernel": (6, 5), "bias": (5,)}, 1: {"kernel": (5, 4), "bias": (4,)}},
        "head": {"kernel": (4, 3), "bias": (3,)},
    }
    x = jax.random.normal(KEY, (7, 2, 3, 1))
    expected = x.reshape(7, 6)
    for layer in params["layers"].values():
        expected = jnp.maximum(expected @ layer["kernel"] + layer["bias"], 0)
    expected = expected @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(network.apply(params, {}, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_mlp_without_hidden_layers_is_linear():
    params, _ = mlp(4, (), 2).init(KEY)
    assert shapes(params["head"]) == {"kernel": (4, 2), "bias": (2,)} and not params.get("layers")


def test_mlp_takes_a_number_or_a_shape():
    one, two = (jax.eval_shape(mlp(inputs, [5], 2).init, KEY) for inputs in (6, (2, 3)))
    assert shapes(one) == shapes(two)


def test_cnn_layout_and_outputs():
    network = cnn((8, 8, 3), channels=(4, 6), hidden=(10,), outputs=5)
    params, model_state = jax.jit(network.init)(KEY)
    assert model_state == {}
    assert shapes(params) == {
        "convolutions": {
            0: {"kernel": (3, 3, 3, 4), "bias": (4,)},
            1: {"kernel": (3, 3, 4, 6), "bias": (6,)},
        },
        "layers": {0: {"kernel": (24, 10), "bias": (10,)}},
        "head": {"kernel": (10, 5), "bias": (5,)},
    }
    assert network.apply(params, {}, jnp.ones((2, 8, 8, 3)))[0].shape == (2, 5)


def test_cnn_default_is_the_network_of_the_benchmarks():
    params, _ = jax.eval_shape(cnn().init, KEY)
    assert params["layers"][0]["kernel"].shape == (4 * 4 * 128, 256)


def test_modules_work_without_the_wrapper():
    x = jnp.ones((2, 4, 4, 1))
    assert MLP((4, 4, 1), [3], 2, rngs=nnx.Rngs(0))(x).shape == (2, 2)
    assert CNN((4, 4, 1), (2,), (3,), 2, rngs=nnx.Rngs(0))(x).shape == (2, 2)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize("layer", ["dense", "convolution"])
def test_initializations_have_their_published_spread(initialization, layer):
    if layer == "dense":
        network = mlp(400, [300], 2, initialization=initialization)
        params = jax.jit(network.init)(KEY)[0]["layers"][0]
        fan_in, fan_out = 400, 300
    else:
        network = cnn((2, 2, 32), (64,), (), initialization=initialization)
        params = jax.jit(network.init)(KEY)[0]["convolutions"][0]
        fan_in, fan_out = 9 * 32, 9 * 64
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    if initialization == "lecun":
        deviation, bound = (
            1 / math.sqrt(fan_in),
            2 / math.sqrt(fan_in) / 0.8796,
        )  # flax cuts the normal at 2 sigma
    else:
        bound = 1 / math.sqrt(fan_in) if initialization == "torch" else math.sqrt(6 / (fan_in + fan_out))
        deviation = bound / math.sqrt(3)
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    assert 0.98 * bound < np.abs(kernel).max() <= 1.001 * bound
    if initialization == "torch":
        assert 0.8 * bound < np.abs(bias).max() <= bound
    else:
        assert not bias.any()


def test_unknown_initialization_names_the_known_ones():
    with pytest.raises(UsageError, match="'xavier'.*glorot, lecun, torch"):
        mlp(4, [3], 2, initialization="xavier")


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(UsageError, match="28x28 cannot be halved 3 times.*multiples of 8"):
        cnn((28, 28, 1))
    with pytest.raises(UsageError, match="5x4"):
        max_pool(jnp.ones((1, 5, 4, 1)))


def test_max_pool_is_max_pooling_and_splits_the_gradient_of_ties():
    x = jax.random.normal(KEY, (2, 6, 4, 3))
    np.testing.assert_array_equal(max_pool(x), nnx.max_pool(x, (2, 2), (2, 2)))
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_allclose(gradient, 0.25)


def test_pooling_before_relu_equals_relu_before_pooling():
    x = jax.random.normal(KEY, (2, 4, 4, 3))
    np.testing.assert_array_equal(nnx.relu(max_pool(x)), max_pool(nnx.relu(x)))
