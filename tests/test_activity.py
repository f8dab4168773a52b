import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from neuroml.activity import capture_linen, capture_nnx, patches
from neuroml.errors import UsageError
from neuroml.modules.network import from_linen, from_nnx
from neuroml.modules.reference import CNN, MLP, cnn, max_pool, mlp

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (6, 3))
IMAGES = jax.random.normal(jax.random.key(2), (2, 4, 4, 3))
MODES = pytest.mark.parametrize("nnx_mode", [True, False], ids=["graph", "tree"], indirect=True)


@pytest.fixture
def nnx_mode(request):
    with nnx.set_graph_mode(request.param), nnx.set_graph_updates(request.param):
        yield


def affine(layer, inputs):
    return inputs @ layer["kernel"] + layer["bias"]


def assert_trees_close(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, two)


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = max_pool(linen.relu(linen.Conv(4, (3, 3), name="conv")(x)))
        x = linen.BatchNorm(use_running_average=not train, name="norm")(x)
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(2, name="head")(x.reshape(x.shape[0], -1))


# --- what is captured ---------------------------------------------------------------------------------------


@MODES
def test_dense_inputs_times_weights_are_the_outputs(nnx_mode):
    network = mlp(3, [5, 4], 2)
    params, state = network.init(KEY)
    outputs, _, activity = network.capture(params, state, X)
    layers, head = params["layers"], params["head"]
    np.testing.assert_array_equal(activity["layers"][0], X)
    np.testing.assert_allclose(activity["layers"][1], nnx.relu(affine(layers[0], X)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(affine(head, activity["head"]), outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs, network.apply(params, state, X)[0])
    assert set(activity) == {"layers", "head"} and set(activity["layers"]) == {0, 1}


@MODES
def test_convolution_inputs_by_patches_are_the_next_inputs(nnx_mode):
    network = cnn((4, 4, 3), channels=(2, 5), hidden=(), outputs=2)
    params, state = network.init(KEY)
    outputs, _, activity = network.capture(params, state, IMAGES)
    first = params["convolutions"][0]
    convolved = patches(activity["convolutions"][0], (3, 3)) @ first["kernel"].reshape(-1, 2) + first["bias"]
    expected = nnx.relu(max_pool(convolved))
    np.testing.assert_allclose(activity["convolutions"][1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(affine(params["head"], activity["head"]), outputs, rtol=1e-5, atol=1e-6)


def test_linen_inputs_and_changed_collections():
    network = from_linen(LinenCNN(), IMAGES, train=False)
    params, state = network.init(KEY)
    call = {"train": True, "rngs": {"dropout": KEY}}
    outputs, new_state, activity = network.capture(params, state, IMAGES, **call)
    plain_outputs, plain_state = network.apply(params, state, IMAGES, **call)
    assert jax.tree.map(jnp.shape, activity) == {"conv": (2, 4, 4, 3), "head": (2, 16)}
    np.testing.assert_array_equal(activity["conv"], IMAGES)
    np.testing.assert_allclose(affine(params["head"], activity["head"]), outputs, rtol=1e-5, atol=1e-6)
    assert_trees_close((outputs, new_state), (plain_outputs, plain_state), rtol=1e-6)


def test_linen_returns_what_apply_returns():
    module = LinenCNN()
    variables = module.init(KEY, IMAGES, train=False)
    outputs, _ = capture_linen(module, variables, IMAGES, train=False)
    np.testing.assert_array_equal(outputs, module.apply(variables, IMAGES, train=False))
    words = {"rngs": {"dropout": KEY}, "mutable": ["batch_stats"]}
    (_, changed), _ = capture_linen(module, variables, IMAGES, **words)
    assert_trees_close(changed, module.apply(variables, IMAGES, **words)[1], rtol=1e-6)


@MODES
def test_nnx_model_changes_as_by_a_plain_call_and_keeps_its_classes(nnx_mode):
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.dropout(self.norm(x)))

    watched, plain = Noisy(nnx.Rngs(0)), Noisy(nnx.Rngs(0))
    for _ in range(2):
        outputs, activity = capture_nnx(watched, X)
        np.testing.assert_array_equal(outputs, plain(X))
        np.testing.assert_allclose(watched.head(activity["head"]), outputs, rtol=1e-6)
    assert_trees_close(nnx.to_pure_dict(nnx.split(watched.norm)[1]), nnx.to_pure_dict(nnx.split(plain.norm)[1]))
    assert type(watched.head) is nnx.Linear


@MODES
def test_a_model_that_is_one_layer_has_one_array(nnx_mode):
    np.testing.assert_array_equal(capture_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), X)[1], X)
    dense = linen.Dense(2)
    np.testing.assert_array_equal(capture_linen(dense, dense.init(KEY, X), X)[1], X)


@MODES
def test_subclasses_count_also_when_they_do_not_call_their_parent(nnx_mode):
    class Cosine(nnx.Linear):
        def __call__(self, features):
            return features @ self.kernel / jnp.linalg.norm(self.kernel, axis=0)

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.head = Cosine(3, 2, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return self.head(features=x)

    np.testing.assert_array_equal(capture_nnx(Model(nnx.Rngs(0)), X)[1]["head"], X)


@MODES
def test_repeated_calls_are_joined_along_the_batch_and_unused_layers_left_out(nnx_mode):
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.shared = nnx.Linear(3, 3, rngs=rngs)
            self.unused = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.shared(self.shared(x))

    model = Twice(nnx.Rngs(0))
    _, activity = capture_nnx(model, X)
    assert set(activity) == {"shared"}
    np.testing.assert_array_equal(activity["shared"], jnp.concatenate([X, model.shared(X)]))


def test_linen_repeated_calls_are_joined_along_the_batch():
    class Twice(linen.Module):
        @linen.compact
        def __call__(self, x):
            shared = linen.Dense(3, name="shared")
            return shared(shared(x))

    module = Twice()
    variables = module.init(KEY, X)
    _, activity = capture_linen(module, variables, X)
    np.testing.assert_allclose(activity["shared"][6:], affine(variables["params"]["shared"], X), rtol=1e-5)


@pytest.mark.parametrize("nnx_mode", [True], ids=["graph"], indirect=True)  # tree mode has no shared Variables
def test_tied_weights_collect_the_inputs_of_both_layers(nnx_mode):
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)
            self.two.kernel = self.one.kernel

        def __call__(self, x):
            return self.two(self.one(x))

    _, activity = capture_nnx(Tied(nnx.Rngs(0)), X)
    assert jax.tree.map(jnp.shape, activity) == {"one": (12, 3)}


@MODES
@pytest.mark.parametrize("make", ["nnx", "linen"])
def test_a_layer_given_other_inputs_hands_them_on(make, nnx_mode):
    """Behind convolutions; layers before it see what they always see."""
    network = cnn((4, 4, 3), channels=(4,), hidden=(5,), outputs=2)
    where, last = "layers/0", "head"
    if make == "linen":
        network, where, last = from_linen(LinenCNN(), IMAGES, train=False), "head", "head"
    params, state = network.init(KEY)
    rows, words = jax.random.normal(KEY, (2, 16)), {"train": False} if make == "linen" else {}
    outputs, _, activity = network.capture(params, state, IMAGES, replaced={where: rows}, **words)
    _, _, plain = network.capture(params, state, IMAGES, **words)
    layer = params["head"] if make == "linen" else params["layers"][0]
    hidden = rows if make == "linen" else nnx.relu(affine(layer, rows))
    np.testing.assert_allclose(activity[last], hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(affine(params[last], hidden), outputs, rtol=1e-5, atol=1e-6)
    first = "conv" if make == "linen" else "convolutions"
    jax.tree.map(np.testing.assert_array_equal, activity[first], plain[first])


def test_an_unknown_layer_is_not_given_other_inputs_in_silence():
    with pytest.raises(UsageError, match=r"layer in `replaced` 'layers/9'"):
        capture_nnx(nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), X, replaced={"layers/9": X})
    dense = linen.Sequential([linen.Dense(2)])
    with pytest.raises(UsageError, match=r"layer in `replaced` 'layers_9'"):
        capture_linen(dense, dense.init(KEY, X), X, replaced={"layers_9": X})


# --- under transformations ----------------------------------------------------------------------------------


def nnx_mlp():
    return from_nnx(lambda rngs: nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs)))


def linen_mlp():
    return from_linen(linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)]), X)


@MODES
@pytest.mark.parametrize("make", [nnx_mlp, linen_mlp])
def test_gradients_are_the_same_with_and_without_capture(make, nnx_mode):
    network = make()
    params, state = network.init(KEY)

    def captured(params):
        outputs, _, activity = network.capture(params, state, X)
        return (outputs**2).sum(), activity

    (value, activity), grads = jax.jit(jax.value_and_grad(captured, has_aux=True))(params)
    plain = jax.jit(jax.value_and_grad(lambda params: (network.apply(params, state, X)[0] ** 2).sum()))
    assert_trees_close((value, grads), plain(params), rtol=1e-5, atol=1e-6)
    assert sum(bool((leaf == X).all()) for leaf in jax.tree.leaves(activity) if leaf.shape == X.shape) == 1


@MODES
@pytest.mark.parametrize("make", [nnx_mlp, linen_mlp])
def test_vmap_over_seeds_and_over_single_examples(make, nnx_mode):
    network = make()
    params, state = jax.vmap(network.init)(jax.random.split(KEY, 2))
    over_seeds = jax.vmap(network.capture, in_axes=(0, 0, None))(params, state, X)[2]
    first = jax.tree.map(lambda leaf: leaf[0], (params, state))
    alone = network.capture(*first, X)[2]
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], over_seeds), alone, rtol=1e-5, atol=1e-6)
    by_example = jax.vmap(network.capture, in_axes=(None, None, 0))(*first, X)[2]
    assert_trees_close(jax.tree.map(lambda leaf: leaf[:, 0], by_example), alone, rtol=1e-5, atol=1e-6)


@MODES
def test_scan_over_batches(nnx_mode):
    network = nnx_mlp()
    params, state = network.init(KEY)

    def step(state, x):
        _, state, activity = network.capture(params, state, x)
        return state, activity["layers"][2]

    _, heads = jax.lax.scan(step, state, jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(heads[1], network.capture(params, state, 2 * X)[2]["layers"][2], rtol=1e-5, atol=1e-6)


@MODES
def test_unbatched_images_get_a_batch_axis(nnx_mode):
    _, activity = capture_nnx(nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), IMAGES[0])
    np.testing.assert_array_equal(activity, IMAGES[:1])


def test_linen_remat_within_the_model_is_captured():
    module = linen.Sequential([linen.remat(linen.Dense)(4), linen.Dense(2)])
    variables = module.init(KEY, X)
    _, activity = capture_linen(module, variables, X)
    np.testing.assert_array_equal(activity["layers_0"], X)
    jax.grad(lambda v: capture_linen(module, v, X)[0].sum())(variables)


# --- what cannot be captured, and what must not leak --------------------------------------------------------


class Hidden(nnx.Module):
    def __init__(self, rngs, wrap):
        self.layer, self.wrap = nnx.Linear(3, 3, rngs=rngs), wrap

    def __call__(self, x):
        return self.wrap(self.layer, x)


@MODES
@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer, x: jax.checkpoint(layer)(x),
        lambda layer, x: nnx.remat(lambda layer, x: layer(x))(layer, x),
    ],
    ids=["closure", "module"],
)
def test_a_transformation_within_the_model_is_refused(wrap, nnx_mode):
    with pytest.raises(UsageError, match="inside a transformation within the model"):
        jax.jit(lambda x: capture_nnx(Hidden(nnx.Rngs(0), wrap), x))(X)


def test_linen_scan_within_the_model_is_refused():
    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x, _):
            return linen.Dense(3)(x), None

    class Stack(linen.Module):
        @linen.compact
        def __call__(self, x):
            scan = linen.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
            return scan()(x, None)[0]

    variables = Stack().init(KEY, X)
    with pytest.raises(UsageError, match="inside a transformation within the model"):
        capture_linen(Stack(), variables, X)


def test_models_without_layers_are_refused():
    with pytest.raises(UsageError, match="Dropout has no layer.*nnx.Linear"):
        capture_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), X)
    with pytest.raises(UsageError, match="LayerNorm has no layer"):
        capture_linen(linen.LayerNorm(), linen.LayerNorm().init(KEY, X), X)


def test_inputs_that_make_no_batch_are_refused():
    class Pyramid(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)

        def __call__(self, x):
            return self.conv(max_pool(self.conv(x)))

    with pytest.raises(UsageError, match="conv met inputs of several shapes"):
        capture_nnx(Pyramid(nnx.Rngs(0)), IMAGES)


def test_a_layer_within_a_layer_is_refused():
    class Adapted(nnx.Linear):
        def __init__(self, rngs):
            super().__init__(3, 3, rngs=rngs)
            self.adapter = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return super().__call__(x) + self.adapter(x)

    with pytest.raises(UsageError, match="adapter is part of another layer"):
        capture_nnx(from_model := nnx.Sequential(Adapted(nnx.Rngs(0))), X)
    assert from_model(X).shape == X.shape


@MODES
def test_a_model_that_raises_leaves_no_trace(nnx_mode):
    def fail(layer, x):
        layer(x)
        raise RuntimeError("broken model")

    model = Hidden(nnx.Rngs(0), fail)
    with pytest.raises(RuntimeError, match="broken model"):
        capture_nnx(model, X)
    assert type(model.layer) is nnx.Linear and model.layer(X).shape == X.shape
    with pytest.raises(RuntimeError, match="broken model"):
        capture_nnx(model, X)


def test_captures_may_be_nested_and_concurrent():
    inner = MLP(3, [4], 3, rngs=nnx.Rngs(0))
    outer = Hidden(nnx.Rngs(1), lambda layer, x: layer(capture_nnx(inner, x)[1]["head"][:, :3]))
    assert set(capture_nnx(outer, X)[1]) == {"layer"}
    barrier, results = threading.Barrier(2), {}

    def slow(layer, x):
        barrier.wait(timeout=30)  # both captures are open now
        y = layer(x)
        barrier.wait(timeout=30)
        return y

    model = Hidden(nnx.Rngs(2), slow)

    def work(index):
        results[index] = capture_nnx(model, (index + 1) * X)[1]["layer"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for index in range(2):
        np.testing.assert_array_equal(results[index], (index + 1) * X)


@MODES
def test_layers_are_where_their_parameters_are(nnx_mode):
    model = CNN((4, 4, 3), (2,), (3,), 2, rngs=nnx.Rngs(0))
    _, activity = capture_nnx(model, IMAGES)
    params = nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[1])
    kernels = {jax.tree_util.keystr(path[:-1]) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(activity)} == kernels


# --- patches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 3), (1, 1)])
@pytest.mark.parametrize("strides", [1, (2, 1), (3, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1))])
def test_patches_times_the_kernel_are_the_convolution(kernel_size, strides, padding):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(*kernel_size, 3, 4)).astype(np.float32)
    steps = (strides, strides) if isinstance(strides, int) else strides
    expected = jax.lax.conv_general_dilated(x, kernel, steps, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    unfolded = patches(jnp.asarray(x), kernel_size, strides, padding)
    np.testing.assert_allclose(unfolded @ kernel.reshape(-1, 4), expected, rtol=1e-4, atol=1e-5)


def test_patches_name_an_unknown_padding():
    with pytest.raises(UsageError, match="unknown padding 'CIRCULAR'"):
        patches(IMAGES, (3, 3), padding="CIRCULAR")


def test_importing_activity_and_wiring_imports_no_flax():
    code = "import neuroml.activity, neuroml.wiring, sys; assert 'flax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
