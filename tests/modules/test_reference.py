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


@pytest.mark.parametrize("initialization", [name for name in INITIALIZATIONS if name != "smooth"])  # below
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
    with pytest.raises(UsageError, match="'xavier'.*glorot, lecun, smooth, torch"):
        mlp(4, [3], 2, initialization="xavier")


def test_a_convolutional_network_has_no_smooth_receptive_fields():
    with pytest.raises(UsageError, match="smooth.*mlp"):
        cnn((8, 8, 3), (4,), initialization="smooth")


# --- initialization="smooth" ---

SHAPE = (28, 28, 1)
smooth = jax.jit(mlp(SHAPE, [60, 50], 10, initialization="smooth").init)


def first_layer(params):
    return np.asarray(params["layers"][0]["kernel"])


def test_smooth_filters_have_length_two_and_no_mean():
    for shape in (SHAPE, (12, 16, 3)):
        params, _ = mlp(shape, [40], 10, initialization="smooth").init(KEY)
        kernel = first_layer(params)
        assert kernel.shape == (math.prod(shape), 40) and kernel.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 2, rtol=1e-5)
        np.testing.assert_allclose(kernel.sum(0), 0, atol=1e-4)
        assert np.abs(kernel).sum(0).min() > 5  # so that the sum is zero by no chance
        assert not params["layers"][0]["bias"].any()


def neighbours(kernel, axis):
    """Returns the correlation of each pixel of each filter with the next one along an axis of the image."""
    images = kernel.reshape(28, 28, -1)
    one, next_one = (np.take(images, places, axis) for places in (np.arange(27), np.arange(1, 28)))
    return (one * next_one).sum() / np.sqrt((one**2).sum() * (next_one**2).sum())


def test_smooth_filters_are_smooth():
    rough = first_layer(jax.jit(mlp(SHAPE, [60], 10).init)(KEY)[0])
    for axis in (0, 1):
        assert neighbours(first_layer(smooth(KEY)[0]), axis) > 0.8
        assert abs(neighbours(rough, axis)) < 0.2


def test_smooth_filters_are_small_and_lie_all_over_the_image():
    energy = first_layer(smooth(KEY)[0]).reshape(28, 28, 60) ** 2 / 4
    places = np.mgrid[:28, :28, :1][:2]
    centres = (energy * places).sum((1, 2))
    spread = (energy * (places - centres[:, None, None]) ** 2).sum((1, 2))
    assert np.sqrt(spread.max()) < 0.25 * 28  # noise over the whole image would have 0.29
    quarters = {tuple(quarter) for quarter in (centres > 13.5).T.tolist()}
    assert len(quarters) == 4 and centres.min() < 5 and centres.max() > 22
    assert len(np.unique(centres.round(3), axis=1).T) == 60  # no two at one place


def test_the_other_layers_of_a_smooth_network():
    params, _ = jax.jit(mlp(SHAPE, [60, 500], 40, initialization="smooth").init)(KEY)
    second, head = params["layers"][1], params["head"]
    np.testing.assert_allclose(np.std(second["kernel"]), math.sqrt(4 * 2 / 60), rtol=0.02)
    assert np.abs(second["kernel"]).max() > 3 * math.sqrt(4 * 2 / 60)  # a normal distribution, not cut off
    assert not second["bias"].any()
    for weights in head.values():  # as "torch"
        assert 0.8 / math.sqrt(500) < np.abs(weights).max() <= 1 / math.sqrt(500)
    linear, _ = mlp(SHAPE, (), 3, initialization="smooth").init(KEY)
    assert np.abs(linear["head"]["kernel"]).max() <= 1 / 28


def test_a_key_is_a_smooth_network():
    one, again, other = (smooth(jax.random.key(seed))[0] for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    pairs = np.corrcoef(first_layer(one).T, first_layer(other).T)[:60, 60:]
    assert np.abs(np.diag(pairs)).max() < 0.9 and np.abs(np.diag(pairs)).mean() < 0.2


def test_smooth_networks_of_many_keys_are_those_of_each():
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    together = jax.jit(jax.vmap(lambda key: smooth(key)[0]))(keys)
    for i, key in enumerate(keys):
        alone = smooth(key)[0]
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6), together, alone)


@pytest.mark.parametrize("inputs", [784, (784,), (28, 28)])
def test_smooth_filters_need_an_image(inputs):
    with pytest.raises(UsageError, match=r"smooth.*\(height, width, channels\), not ") as error:
        mlp(inputs, [5], 2, initialization="smooth").init(KEY)
    assert str(inputs) in str(error.value)


# --- pooling ---


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
