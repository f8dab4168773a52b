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
