import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml import wiring
from neuroml.errors import UsageError

PARAMS = {
    "layers": {
        0: {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
        1: {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)},
    },
    "head": {"kernel": jnp.ones((5, 2)), "bias": jnp.ones(2)},
}
WIRING = {
    "layers": {
        0: {"kernel": ("input", "hidden_0"), "bias": ("hidden_0",)},
        1: {"kernel": ("hidden_0", "hidden_1"), "bias": ("hidden_1",)},
    },
    "head": {"kernel": ("hidden_1", "output"), "bias": ("output",)},
}
ORDER = ["layers/0", "layers/1", "head"]


def test_populations_are_the_sizes_of_named_axes():
    assert wiring.populations(WIRING, PARAMS) == {"input": 4, "hidden_0": 3, "hidden_1": 5, "output": 2}


def test_an_axis_without_a_name_is_in_no_population():
    assert wiring.populations({"w": (None, "out"), "t": ()}, {"w": jnp.ones((9, 2)), "t": 1.0}) == {"out": 2}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"w": ("a", "b")}, "no names for b"),
        ({"w": ("a", "b"), "b": ("b",), "c": ("b",)}, "names c, which the parameters do not have"),
        ({"w": ("a", "b"), "b": ("a", "b")}, r"b has shape \(3,\) but is wired as \('a', 'b'\)"),
        ({"w": ("a", "b"), "b": "b"}, "b has shape"),
        ({"w": ("a", "b"), "b": ("a",)}, "'a' has 3 neurons in b but 2 in w"),
    ],
)
def test_a_wiring_that_does_not_fit_says_where(broken, message):
    with pytest.raises(UsageError, match=message):
        wiring.populations(broken, {"w": jnp.ones((2, 3)), "b": jnp.ones(3)})


def test_spread_reaches_every_axis_that_carries_the_name():
    gain = {"hidden_0": jnp.array([1.0, 2.0, 3.0]), "hidden_1": jnp.arange(5.0)}
    result = wiring.spread(gain, WIRING, PARAMS)
    assert jax.tree.map(jnp.shape, result) == jax.tree.map(jnp.shape, PARAMS)
    np.testing.assert_array_equal(result["layers"][0]["kernel"], np.tile(gain["hidden_0"], (4, 1)))
    np.testing.assert_array_equal(result["layers"][1]["kernel"], np.outer(gain["hidden_0"], gain["hidden_1"]))
    np.testing.assert_array_equal(result["layers"][1]["bias"], gain["hidden_1"])
    np.testing.assert_array_equal(result["head"]["kernel"], np.repeat(gain["hidden_1"], 2).reshape(5, 2))
    np.testing.assert_array_equal(result["head"]["bias"], np.ones(2))


def test_spread_of_masks_and_dtypes():
    awake = {"hidden_0": jnp.array([True, False, True])}
    mask = wiring.spread(awake, WIRING, PARAMS, combine=jnp.logical_and, initial=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(mask)} == {jnp.dtype(bool)}
    assert int(mask["layers"][1]["kernel"].sum()) == 2 * 5
    half = wiring.spread({"hidden_0": jnp.ones(3, jnp.bfloat16)}, WIRING, PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_spread_combines_both_ends_of_a_recurrent_weight():
    result = wiring.spread({"h": jnp.array([1.0, 3.0])}, {"w": ("h", "h")}, {"w": jnp.zeros((2, 2))}, jnp.add, 0.0)
    np.testing.assert_array_equal(result["w"], [[2.0, 4.0], [4.0, 6.0]])


def test_spread_under_jit_vmap_and_grad():
    def total(gain, params):
        return sum(leaf.sum() for leaf in jax.tree.leaves(wiring.spread({"hidden_0": gain}, WIRING, params)))

    gradients = jax.jit(jax.vmap(jax.grad(total), in_axes=(0, None)))(jnp.ones((6, 3)), PARAMS)
    np.testing.assert_array_equal(gradients, np.full((6, 3), 4 + 1 + 5))  # fan-in, bias, fan-out


def test_spread_refuses_strangers():
    with pytest.raises(UsageError, match="unknown population 'hiden_0'. Did you mean 'hidden_0'"):
        wiring.spread({"hiden_0": jnp.ones(3)}, WIRING, PARAMS)
    with pytest.raises(UsageError, match="'hidden_0' has 3 neurons, but its values have shape"):
        wiring.spread({"hidden_0": jnp.ones(4)}, WIRING, PARAMS)


def test_chain_infers_a_dense_stack():
    assert wiring.chain(PARAMS, ORDER) == WIRING


def test_chain_of_convolutions():
    params = {
        "a": {"kernel": jnp.ones((3, 3, 1, 4)), "bias": jnp.ones(4)},
        "b": {"kernel": jnp.ones((1, 1, 4, 2))},
    }
    inferred = wiring.chain(params, ["a", "b"])
    assert inferred == {
        "a": {"kernel": (None, None, "input", "hidden_0"), "bias": ("hidden_0",)},
        "b": {"kernel": (None, None, "hidden_0", "output")},
    }
    assert wiring.populations(inferred, params) == {"input": 1, "hidden_0": 4, "output": 2}


def test_chain_works_on_shapes_alone():
    assert wiring.chain(jax.eval_shape(lambda: PARAMS), ORDER) == WIRING


def test_chain_stops_at_a_flattened_image_unless_it_is_left_out():
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 1, 4))},
        "a": {"kernel": jnp.ones((16, 3))},
        "b": PARAMS["layers"][1],
    }
    with pytest.raises(UsageError, match="conv has 4 outputs but a has 16 inputs.*flattened"):
        wiring.chain(params, ["conv", "a", "b"])
    inferred = wiring.chain(params, ["a", "b"], unnamed=["conv"])
    assert inferred["conv"]["kernel"] == (None,) * 4
    assert wiring.populations(inferred, params) == {"input": 16, "hidden_0": 3, "output": 5}


def test_chain_refuses_gaps_and_strangers():
    with pytest.raises(UsageError, match="layers/0 has 3 outputs but head has 5 inputs"):
        wiring.chain(PARAMS, ["layers/0", "head"])
    with pytest.raises(UsageError, match="layers/0/bias, layers/0/kernel would be left without names"):
        wiring.chain(PARAMS, ["layers/1", "head"])
    with pytest.raises(UsageError, match="unknown layer 'layers/2'"):
        wiring.chain(PARAMS, ["layers/0", "layers/2", "head"])


def test_chain_refuses_a_layer_that_stands_twice():
    square = {name: {"kernel": jnp.ones((3, 3))} for name in "ab"}  # the sizes alone would fit
    with pytest.raises(UsageError, match="a would stand twice"):
        wiring.chain(square, ["a", "a", "b"])


def test_a_normalization_is_named_as_the_layer_before_it():
    params = {**PARAMS, "norms": {0: {"bias": jnp.ones(3), "scale": jnp.ones(3)}}}
    inferred = wiring.chain(params, ORDER, norms={"norms/0": "layers/0"})
    with pytest.raises(UsageError, match="unknown layer 'layers/9'"):
        wiring.chain(params, ORDER, norms={"norms/0": "layers/9"})
    assert inferred["norms"] == {0: {"bias": ("hidden_0",), "scale": ("hidden_0",)}}
