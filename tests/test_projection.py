"""Layers as matrices: what counts as a layer, the way there and back, and what the matrix multiplies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from neuroml import projection
from neuroml.activity import capture_linen, capture_nnx
from neuroml.errors import UsageError

KEY = jax.random.key(0)
TREE = {
    "conv": {"kernel": jax.random.normal(KEY, (2, 3, 4, 5)), "bias": jnp.arange(5.0)},
    "dense": {"kernel": jnp.arange(6.0).reshape(3, 2), "bias": jnp.array([7.0, 8.0])},
    "bare": [{"kernel": jnp.ones((2, 3))}],
    "norm": {"scale": jnp.ones(3), "bias": jnp.ones(3)},
}


def test_layers_are_nodes_with_one_kernel():
    found = projection.layers(TREE)
    assert {home: (layer.inputs, layer.bias is not None) for home, layer in found.items()} == {
        "bare/0": (2, False),
        "conv": (2 * 3 * 4 + 1, True),
        "dense": (3 + 1, True),
    }
    assert projection.layers({"kernel": jnp.ones((3, 2))}).keys() == {""}  # the tree is itself a layer


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ({"kernel": jnp.ones((3, 2)), "recurrent": jnp.ones((2, 2)), "bias": jnp.ones(2)}, None),  # which kernel?
        ({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(3)}, 3),  # no bias of these outputs
        ({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "gain": jnp.ones(2)}, 3),  # which bias?
        ({"kernel": optax.MaskedNode(), "bias": jnp.ones(2)}, None),
        ({"kernel": jnp.ones((3, 2)), "bias": optax.MaskedNode()}, 3),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(2)}, 4),  # names are the user's
        ({"kernel": jnp.ones((5, 3, 2)), "bias": jnp.ones(2)}, 16),  # a convolution over time
        ({"segments": jnp.ones((5, 3, 2)), "bias": jnp.ones(2)}, None),
    ],
)
def test_what_is_not_clear_is_left_out(node, inputs):
    found = projection.layers({"node": node})
    assert {home: layer.inputs for home, layer in found.items()} == ({} if inputs is None else {"node": inputs})


def test_matrices_hold_kernel_and_bias():
    matrices = projection.matrices(TREE)
    np.testing.assert_array_equal(matrices["dense"], [[0, 1], [2, 3], [4, 5], [7, 8]])
    np.testing.assert_array_equal(matrices["conv"][:-1], TREE["conv"]["kernel"].reshape(-1, 5))
    np.testing.assert_array_equal(matrices["conv"][-1], TREE["conv"]["bias"])
    np.testing.assert_array_equal(matrices["bare/0"], TREE["bare"][0]["kernel"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_replace_puts_matrices_back(dtype):
    tree = jax.tree.map(lambda leaf: leaf.astype(dtype), TREE)
    same = projection.replace(tree, projection.matrices(tree))
    jax.tree.map(np.testing.assert_array_equal, same, tree)
    doubled = projection.replace(
        tree, {home: 2 * m.astype(jnp.float32) for home, m in projection.matrices(tree).items()}
    )
    expected = {**jax.tree.map(lambda leaf: leaf * 2, tree), "norm": tree["norm"]}
    jax.tree.map(np.testing.assert_array_equal, doubled, expected)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(doubled))


def of_nnx(make, **options):
    model = make(bias_init=nnx.initializers.normal(1.0), rngs=nnx.Rngs(0), **options)
    return nnx.as_pure(nnx.state(model, nnx.Param)), lambda x: capture_nnx(model, x)


def of_linen(make, shape):
    module = make(bias_init=linen.initializers.normal(1.0))
    variables = module.init(KEY, jnp.ones(shape))
    return variables["params"], lambda x: capture_linen(module, variables, x)


def nnx_dense(**options):
    return of_nnx(lambda **more: nnx.Linear(4, 3, **more), **options)


def nnx_conv(**options):
    return of_nnx(lambda **more: nnx.Conv(2, 3, (3, 2), **more), **options)


STOCK = {
    "nnx.Linear": (nnx_dense, (6, 4), None),
    "nnx.Linear on sequences": (nnx_dense, (6, 5, 4), None),
    "nnx.Linear without bias": (lambda: nnx_dense(use_bias=False), (6, 4), None),
    "nnx.Conv": (nnx_conv, (4, 5, 6, 2), None),
    "nnx.Conv with windows": (lambda: nnx_conv(strides=2, padding="VALID"), (4, 7, 6, 2), {"": (2, "VALID")}),
    "linen.Dense": (lambda: of_linen(lambda **more: linen.Dense(3, **more), (6, 4)), (6, 4), None),
    "linen.Conv": (lambda: of_linen(lambda **more: linen.Conv(3, (2, 2), **more), (4, 5, 5, 2)), (4, 5, 5, 2), None),
}


@pytest.mark.parametrize("name", STOCK)
def test_inputs_times_matrix_is_what_the_layer_answers(name):
    make, shape, windows = STOCK[name]
    params, capture = make()
    outputs, activity = capture(jax.random.normal(jax.random.key(1), shape))
    rows = projection.inputs(params, activity, windows)[""]
    answers = rows @ projection.matrices(params)[""]
    np.testing.assert_allclose(answers, outputs.reshape(-1, 3), rtol=1e-5, atol=1e-5)


def test_inputs_of_a_convolution_are_its_patches():
    tree = {"conv": {"kernel": jnp.ones((2, 2, 1, 3)), "bias": jnp.ones(3)}}
    image = jnp.arange(9.0).reshape(1, 3, 3, 1)
    rows = projection.inputs(tree, {"conv": image}, {"conv": (1, "VALID")})["conv"]
    assert rows.tolist() == [[0, 1, 3, 4, 1], [1, 2, 4, 5, 1], [3, 4, 6, 7, 1], [4, 5, 7, 8, 1]]


def test_layers_of_a_network_are_found_by_the_same_names_in_nnx_variables():
    """`nnx.Optimizer` gives `init` the weights in Variables, and `update` the bare arrays."""
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    state = nnx.state(model, nnx.Param)
    assert projection.layers(state) == projection.layers(nnx.as_pure(state))
    assert set(projection.layers(state)) == {"layers/0", "layers/2"}
    activity = capture_nnx(model, jnp.ones((5, 3)))[1]
    assert {home: rows.shape for home, rows in projection.inputs(nnx.as_pure(state), activity).items()} == {
        "layers/0": (5, 4),
        "layers/2": (5, 5),
    }


def test_activity_that_does_not_fit_is_refused():
    dense = {"dense": TREE["dense"]}
    with pytest.raises(UsageError, match="no inputs of layer 'dense', but of: other"):
        projection.inputs(dense, {"other": jnp.ones((2, 3))})
    with pytest.raises(UsageError, match="no inputs of layer 'dense', but of: none"):
        projection.inputs(dense, {})
    with pytest.raises(UsageError, match="inputs have 3 entries; `activity` there has 4"):
        projection.inputs(dense, {"dense": jnp.ones((2, 4))})
    with pytest.raises(UsageError, match="grouped ones are not supported"):
        projection.inputs({"conv": {"kernel": jnp.ones((3, 3, 1, 4))}}, {"conv": jnp.ones((2, 5, 5, 2))})
    with pytest.raises(UsageError, match="unknown layer in `windows` 'dens'. Did you mean 'dense'"):
        projection.inputs(dense, {"dense": jnp.ones((2, 3))}, {"dens": (2, "VALID")})


@pytest.mark.parametrize("axes", [1, 3])
def test_convolutions_along_other_than_two_axes_are_refused(axes):
    params, capture = of_nnx(lambda **more: nnx.Conv(2, 3, (3,) * axes, **more))
    activity = capture(jnp.ones((2, *(4,) * axes, 2)))[1]
    with pytest.raises(UsageError, match="Convolutions along other than two axes"):
        projection.inputs({"conv": params}, {"conv": activity})


def test_begin_wants_a_layer():
    assert projection.begin("a rule", TREE, dict) == {"bare/0": 2, "conv": 25, "dense": 4}
    with pytest.raises(UsageError, match="a rule found no layer"):
        projection.begin("a rule", {"norm": TREE["norm"]}, dict)
    with pytest.raises(UsageError, match="a rule found no layer"):
        projection.begin("a rule", {"dense": optax.MaskedNode()}, dict)


def test_gathered_is_the_mean_over_batches():
    batches = jax.random.normal(KEY, (3, 5, 4))
    moment, count = jnp.zeros((4, 4)), jnp.zeros(())
    for rows in batches:
        moment, count = projection.gathered(moment, count, rows, jnp.array(True))
    rows = np.asarray(batches.reshape(15, 4))
    np.testing.assert_allclose(moment, rows.T @ rows / 15, rtol=1e-5, atol=1e-6)
    refused = projection.gathered(moment, count, batches[0] * jnp.nan, jnp.array(False))
    jax.tree.map(np.testing.assert_array_equal, refused, (moment, jnp.float32(3)))


def test_project_takes_held_directions_out():
    basis = jnp.linalg.qr(jax.random.normal(KEY, (4, 2)))[0]
    matrix, grip = jax.random.normal(jax.random.key(1), (4, 3)), np.array([0.25, 1.0])
    expected = matrix - basis @ np.diag(grip) @ basis.T @ matrix
    np.testing.assert_allclose(projection.project(matrix, basis, jnp.asarray(grip)), expected, rtol=1e-5, atol=1e-6)
    half = matrix - basis @ basis.T @ matrix / 2
    np.testing.assert_allclose(projection.project(matrix, basis, 0.5), half, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf, 1e20])
def test_finite_sees_every_layer(wrong):
    assert projection.finite({"a": jnp.ones((2, 2)), "b": jnp.ones((1, 3))})
    assert not projection.finite({"a": jnp.ones((2, 2)), "b": jnp.ones((1, 3)).at[0, 2].set(wrong)})


def test_a_batch_without_examples_is_passed_over():
    rows = jnp.zeros((0, 2))
    assert not projection.finite({"a": jnp.ones((2, 2)), "b": rows})
    kept = projection.gathered(jnp.eye(2), jnp.ones(()), rows, jnp.array(False))
    jax.tree.map(np.testing.assert_array_equal, kept, (jnp.eye(2), jnp.ones(())))


def test_finite_bounds_what_the_rows_sum_to():
    rows = jnp.full((5, 2), 1.5e19)  # each has a square, their sum has not
    assert jnp.isfinite(rows**2).all() and not projection.finite({"a": rows})
