"""Units: which neurons lie between layers, and what they answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml import units
from neuroml.errors import UsageError

KEY = jax.random.key(0)
NAMES = {
    "a": {"kernel": ("pixel", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "second"), "bias": ("second",)},
    "c": {"kernel": ("second", "answer"), "bias": ("answer",)},
}


def network(key, sizes=(3, 5, 4, 2)):
    def layer(name, k, before, after):
        w, b = jax.random.split(k)
        return {"kernel": jax.random.normal(w, (before, after)), "bias": jax.random.normal(b, (after,))}

    keys = jax.random.split(key, len(sizes) - 1)
    return {n: layer(n, k, *pair) for n, k, pair in zip("abc", keys, zip(sizes, sizes[1:], strict=False), strict=True)}


PARAMS, STEPS, FRESH = (network(jax.random.fold_in(KEY, i)) for i in range(3))
FOUND = units.find(NAMES, PARAMS)


def test_populations_lie_between_layers():
    assert FOUND == {"first": units.Units(5, ("a",), ("b",)), "second": units.Units(4, ("b",), ("c",))}


def test_a_population_may_have_several_makers_and_readers_and_an_axis_no_name():
    names = {
        "left": {"kernel": (None, "joint")},
        "right": {"kernel": (None, "joint")},
        "up": {"kernel": ("joint", None)},
        "down": {"kernel": ("joint", "self")},
        "norm": {"scale": ("joint",)},
    }
    params = {home: {"kernel": jnp.ones((3, 3))} for home in ("left", "right", "up", "down")}
    params["norm"] = {"scale": jnp.ones(3)}
    assert units.find(names, params) == {"joint": units.Units(3, ("left", "right"), ("down", "up"))}
    np.testing.assert_array_equal(units.incoming(units.find(names, params), params)["joint"], [6, 6, 6])


def test_names_that_do_not_fit_are_told_by_name():
    with pytest.raises(UsageError, match="no names for the kernel of layer 'b'"):
        units.find({"a": NAMES["a"], "c": NAMES["c"]}, PARAMS)
    with pytest.raises(UsageError, match="population 'first' has 5 neurons, but 4 in layer 'b'"):
        units.find(NAMES | {"b": {"kernel": ("first", "first")}}, PARAMS)
    with pytest.raises(UsageError, match="a_rule found no population between two layers"):
        units.begin("a_rule", {"a": NAMES["a"]}, {"a": PARAMS["a"]}, jnp.zeros)
    with pytest.raises(UsageError, match=r"lacks layer 'b', which reads population 'first'; it has \['a', 'c'\]"):
        units.outputs(FOUND, {"a": jnp.ones((1, 3)), "c": jnp.ones((1, 4))})


def test_a_population_that_is_spelt_in_two_ways_raises():
    for spelling in ("fir_st", "First", "first-"):
        names = NAMES | {"b": {"kernel": (spelling, "second"), "bias": ("second",)}}
        with pytest.raises(UsageError, match=f"make population 'first', and layers read '{spelling}'"):
            units.find(names, PARAMS)
    legitimate = NAMES | {"b": {"kernel": ("first_sampled", "second"), "bias": ("second",)}}
    assert list(units.find(legitimate, PARAMS)) == ["second"]


def test_answers_are_what_the_readers_are_given_a_row_for_each_place():
    activity = {"a": jnp.ones((2, 3)), "b": jnp.arange(10.0).reshape(2, 5), "c": jnp.ones((2, 4), jnp.bfloat16)}
    rows = units.outputs(FOUND, activity)
    np.testing.assert_array_equal(rows["first"], activity["b"])
    assert rows["second"].dtype == jnp.float32
    images = jax.random.normal(KEY, (2, 7, 6, 5))
    np.testing.assert_array_equal(units.outputs(FOUND, activity | {"b": images})["first"], images.reshape(-1, 5))


def test_weights_are_summed_around_each_neuron():
    entering, leaving = units.incoming(FOUND, PARAMS), units.outgoing(FOUND, PARAMS)
    for j in range(5):
        np.testing.assert_allclose(entering["first"][j], np.abs(PARAMS["a"]["kernel"][:, j]).sum(), rtol=1e-6)
        np.testing.assert_allclose(leaving["first"][j], np.abs(PARAMS["b"]["kernel"][j]).sum(), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 100])
def test_shuffled_each_neuron_has_the_value_of_another_one(size):
    own, given = jnp.arange(size), units.in_order(jnp.arange(size), True)
    assert sorted(given.tolist()) == own.tolist() and (size == 1 or not (given == own).any())
    np.testing.assert_array_equal(units.in_order(own, False), own)


@pytest.mark.parametrize("shape", [(5, 8), (5, 7), (2, 5, 4, 1), ()])
def test_answers_of_another_width_raise(shape):
    with pytest.raises(UsageError, match="`activity` of layer 'c' has shape .* population 'second', .* has 4 neurons"):
        units.outputs(FOUND, {"b": jnp.ones((5, 5)), "c": jnp.ones(shape)})


def test_an_image_that_its_reader_takes_flat_is_a_row():
    rows = units.outputs(FOUND, {"b": jnp.ones(5), "c": jnp.arange(12.0).reshape(3, 2, 2, 1)})
    np.testing.assert_array_equal(rows["second"], jnp.arange(12.0).reshape(3, 4))
    assert rows["first"].shape == (1, 5)


def two_layers(*names):
    """The wiring and the weights of layers that make the first name and read the second, and so on."""
    wiring = {str(at): {"kernel": pair} for at, pair in enumerate(names)}
    return wiring, {home: {"kernel": jnp.ones((3, 3))} for home in wiring}


@pytest.mark.parametrize("slip", ["hiden_1", "hiddden_1", "hdiden_1", "Hiden1", "hid_den_1"])
def test_a_slip_in_a_name_raises(slip):
    for names in ([("input", "hidden_1"), (slip, "output")], [("x", "hidden_1"), ("hidden_1", "y"), (slip, "z")]):
        with pytest.raises(UsageError, match=f"make population 'hidden_1', and layers read '{slip}'"):
            units.find(*two_layers(*names))
    with pytest.raises(UsageError, match=f"make population '{slip}', and layers read 'hidden_1'"):
        units.find(*two_layers(("x", slip), ("x", "hidden_1"), ("hidden_1", "y")))


@pytest.mark.parametrize(
    "pair",
    [
        ("hidden_0", "hidden_1"),
        ("hidden_1", "hidden_11"),
        ("hidden_1", "hidden"),
        ("input", "output"),
        ("a", "b"),
        ("tower_a", "tower_b"),
        ("encoder", "decoder"),
        ("afferent", "efferent"),
        ("stage", "state"),
        ("preactivation", "postactivation"),
        ("normalized", "unnormalized"),
        ("gate", "gated"),
        ("sample", "sampled"),
        ("network_input", "network_output"),
        ("fast", "last"),
    ],
)
def test_names_that_only_look_alike_are_different_names(pair):
    for made, read in (pair, pair[::-1]):
        assert list(units.find(*two_layers(("x", "between"), ("between", made), (read, "y")))) == ["between"]


def test_where_there_is_no_population_the_names_of_one_end_are_listed():
    with pytest.raises(UsageError, match="a_rule found no population .* Only made: rest, this; only read: that, x."):
        units.begin("a_rule", *two_layers(("x", "this"), ("that", "rest")), jnp.zeros)
