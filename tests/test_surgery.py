"""Surgery: what happens to the weights around a neuron that starts afresh, and to no others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_units import FOUND, FRESH, PARAMS, STEPS

from neuroml import surgery, units

KEY = jax.random.key(0)


def test_a_share_of_one_starts_the_neurons_afresh_and_no_others():
    which = {"first": jnp.array([0.0, 1, 0, 0, 1])}
    after = optax.apply_updates(PARAMS, surgery.pull(FOUND, STEPS, PARAMS, FRESH, which))
    plain = optax.apply_updates(PARAMS, STEPS)
    chosen, others = [1, 4], [0, 2, 3]
    for leaf in ("kernel", "bias"):
        np.testing.assert_allclose(after["a"][leaf][..., chosen], FRESH["a"][leaf][..., chosen], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after["a"][leaf][..., others], plain["a"][leaf][..., others])
    np.testing.assert_allclose(after["b"]["kernel"][jnp.array(chosen)], 0, atol=1e-6)
    np.testing.assert_array_equal(after["b"]["kernel"][jnp.array(others)], plain["b"]["kernel"][jnp.array(others)])
    np.testing.assert_array_equal(after["b"]["bias"], plain["b"]["bias"])
    jax.tree.map(np.testing.assert_array_equal, after["c"], plain["c"])


@pytest.mark.parametrize("value", [jnp.inf, -jnp.inf, jnp.nan])
def test_a_step_that_is_not_finite_ends_with_the_old_neuron(value):
    steps = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), STEPS)
    pulled = surgery.pull(FOUND, steps, PARAMS, FRESH, {"first": jnp.array([0.0, 1, 0, 0, 1])})
    after, chosen = optax.apply_updates(PARAMS, pulled), jnp.array([1, 4])
    for leaf in ("kernel", "bias"):
        np.testing.assert_allclose(after["a"][leaf][..., chosen], FRESH["a"][leaf][..., chosen], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after["b"]["kernel"][chosen], 0)


def test_a_smaller_share_is_a_part_of_the_way_and_none_is_no_change():
    share = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    after = optax.apply_updates(PARAMS, surgery.pull(FOUND, STEPS, PARAMS, FRESH, {"first": share}))
    plain = optax.apply_updates(PARAMS, STEPS)
    for leaf in ("kernel", "bias"):
        expected = (1 - share) * plain["a"][leaf] + share * FRESH["a"][leaf]
        np.testing.assert_allclose(after["a"][leaf], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after["b"]["kernel"], (1 - share)[:, None] * plain["b"]["kernel"], rtol=1e-4, atol=1e-6)
    nothing = surgery.pull(FOUND, STEPS, PARAMS, FRESH, {"first": jnp.zeros(5), "second": jnp.zeros(4)})
    jax.tree.map(np.testing.assert_array_equal, nothing, STEPS)


def test_fresh_weights_of_what_a_mask_hides_are_left_out():
    mask = jax.tree.map(lambda _: True, PARAMS) | {"a": {"kernel": True, "bias": False}}
    seen = lambda tree: jax.tree.map(lambda shown, leaf: leaf if shown else optax.MaskedNode(), mask, tree)
    share = {"first": jnp.array([0.0, 1.0, 0.3, 0.0, 1.0])}
    pulled = surgery.pull(FOUND, seen(STEPS), seen(PARAMS), FRESH, share)
    expected = seen(surgery.pull(FOUND, STEPS, PARAMS, FRESH, share))
    jax.tree.map(np.testing.assert_array_equal, pulled, expected)


def test_a_weight_between_two_new_neurons_is_the_later_ones():
    both = {"first": jnp.ones(5), "second": jnp.array([1.0, 0, 0, 0])}
    after = optax.apply_updates(PARAMS, surgery.pull(FOUND, STEPS, PARAMS, FRESH, both))
    np.testing.assert_allclose(after["b"]["kernel"][:, 0], FRESH["b"]["kernel"][:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after["b"]["kernel"][:, 1:], 0, atol=1e-6)
    np.testing.assert_allclose(after["c"]["kernel"][0], 0, atol=1e-6)


def test_channels_of_convolutions_are_neurons():
    names = {"a": {"kernel": (None, None, "colour", "channel")}, "b": {"kernel": (None, None, "channel", "answer")}}
    make = lambda key: {
        "a": {"kernel": jax.random.normal(key, (3, 3, 2, 4))},
        "b": {"kernel": jax.random.normal(jax.random.fold_in(key, 1), (2, 2, 4, 3))},
    }
    params, fresh = make(KEY), make(jax.random.key(1))
    steps, found = jax.tree.map(jnp.zeros_like, params), units.find(names, params)
    np.testing.assert_allclose(
        units.incoming(found, params)["channel"], np.abs(params["a"]["kernel"]).sum((0, 1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(
        units.outgoing(found, params)["channel"], np.abs(params["b"]["kernel"]).sum((0, 1, 3)), rtol=1e-5
    )
    share = {"channel": jnp.array([0.0, 0, 1, 0])}
    after = optax.apply_updates(params, surgery.pull(found, steps, params, fresh, share))
    expected = jax.tree.map(np.array, params)
    expected["a"]["kernel"][..., 2] = fresh["a"]["kernel"][..., 2]
    expected["b"]["kernel"][:, :, 2] = 0
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), after, expected)
    touched = surgery.touched(found, params, {"channel": share["channel"] > 0})
    jax.tree.map(lambda t, x, y: np.testing.assert_array_equal(t, np.array(x) != y), touched, params, expected)


def test_touched_are_the_weights_that_a_pull_changes():
    chosen = {"first": jnp.array([True, False, False, False, False]), "second": jnp.array([False, False, True, False])}
    share = {name: which.astype(jnp.float32) for name, which in chosen.items()}
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    moved = jax.tree.map(lambda u: u != 0, surgery.pull(FOUND, still, PARAMS, FRESH, share))
    jax.tree.map(np.testing.assert_array_equal, surgery.touched(FOUND, PARAMS, chosen), moved)


def test_bfloat16_updates_stay_bfloat16():
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    steps = surgery.pull(FOUND, low, low, FRESH, {"first": jnp.ones(5)})
    assert {leaf.dtype for leaf in jax.tree.leaves(steps)} == {jnp.dtype(jnp.bfloat16)}
