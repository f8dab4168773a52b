"""Rules of plasticity at their edges: half precision, zeros, no weights at all, what is no number."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import core, regularizers, surgery, units

NAMES = {
    "a": {"kernel": ("input", "hidden"), "bias": ("hidden",)},
    "b": {"kernel": ("hidden", "output"), "bias": ("output",)},
}
PARAMS = {
    "a": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "b": {"kernel": jnp.ones((3, 1)), "bias": jnp.zeros(1)},
}
SECOND_IS_SILENT = {"a": jnp.ones((1, 2)), "b": jnp.array([[5.0, 0.0, 4.0]])}


def decorrelated(gradient, x, **settings):
    rule = neuroml.decorrelation(every=1, **settings)
    params = {"kernel": jnp.zeros(gradient.shape, gradient.dtype)}
    return rule.update({"kernel": gradient}, rule.init(params), params, activity=x)[0]["kernel"]


@pytest.mark.parametrize("rows", [64, 1])
def test_decorrelation_of_bfloat16_weights_keeps_the_sign_of_what_all_inputs_share(rows):
    size = 128
    x = 1 + 0.001 * jax.random.normal(jax.random.key(0), (rows, size))
    shared = jnp.ones(size) / size**0.5
    along = [
        shared @ decorrelated(shared[:, None].astype(dtype), x, decay=0.0, ridge=0.01)[:, 0].astype(jnp.float32)
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    np.testing.assert_allclose(along[1], along[0], rtol=0.05)
    assert along[0] > 0


def test_decorrelation_that_has_seen_only_zeros_or_nothing_finite_changes_nothing():
    for x in (jnp.zeros((2, 2)), jnp.array([[jnp.inf, 1.0], [1.0, 1.0]])):
        np.testing.assert_array_equal(decorrelated(jnp.ones((2, 1)), x), 1)
    tiny = jnp.full((1, 2), 1e-12)
    expected = decorrelated(jnp.ones((2, 1)), jnp.concatenate([tiny, tiny]))
    np.testing.assert_allclose(decorrelated(jnp.ones((2, 1)), tiny), expected, rtol=1e-4)


@pytest.mark.parametrize("rule", [neuroml.decorrelation(every=1), neuroml.spectral_regularization(0.1)])
def test_a_layer_without_neurons_is_no_obstacle(rule):
    params = {"a": {"kernel": jnp.ones((2, 0))}, "b": {"kernel": jnp.ones((2, 1))}}
    activity = {"a": jnp.ones((3, 2)), "b": jnp.ones((3, 2))}
    step, _ = rule.update(params, rule.init(params), params, activity=activity)
    assert step["a"]["kernel"].shape == (2, 0) and np.isfinite(step["b"]["kernel"]).all()


def test_resets_do_not_depend_on_how_populations_are_called():
    """Both layers are replaced: the second hears the first, whichever name comes first in the alphabet."""

    def between(first, second):
        names = {
            "a": {"kernel": ("input", first)},
            "b": {"kernel": (first, second)},
            "c": {"kernel": (second, "output")},
        }
        params = {
            "a": {"kernel": jnp.ones((2, 3))},
            "b": {"kernel": jnp.ones((3, 4))},
            "c": {"kernel": jnp.ones((4, 1))},
        }
        fresh = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7.0), params)
        share = {name: jnp.ones(size) for name, size in sorted({first: 3, second: 4}.items())}
        found = units.find(names, params)
        new = optax.apply_updates(params, surgery.pull(found, params, params, fresh, share))
        return [float(new[name]["kernel"].mean()) for name in "abc"]

    assert between("hidden_1", "hidden_2") == between("hidden_9", "hidden_10") == [7.0, 7.0, 0.0]


def test_resets_take_updates_narrower_than_the_weights():
    rule = neuroml.redo(NAMES, lambda key: jax.tree.map(lambda leaf: leaf + 1, PARAMS), every=1)
    updates = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.bfloat16), PARAMS)
    step, state = rule.update(updates, rule.init(PARAMS), PARAMS, key=jax.random.key(0), activity=SECOND_IS_SILENT)
    assert state.renewed["hidden"].tolist() == [False, True, False] and step["a"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(step["a"]["kernel"].astype(jnp.float32), [[0, 1, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    "rule, field",
    [
        (functools.partial(neuroml.maturity_lock, strength=1.0, rate=0.1), "nets"),
        (neuroml.bcm, "threshold"),
        (neuroml.synaptic_scaling, "mean"),
        (neuroml.intrinsic_plasticity, "firing"),
    ],
    ids=["maturity_lock", "bcm", "synaptic_scaling", "intrinsic_plasticity"],
)
def test_nothing_is_known_of_a_neuron_that_was_replaced(rule, field):
    """Not the lock of its predecessor, nor its means."""
    redo = neuroml.redo(NAMES, lambda key: PARAMS, threshold=0.1, every=20)
    tx = neuroml.renewal(optax.chain(optax.sgd(0.0), rule(NAMES)), redo, NAMES)
    state, words = tx.init(PARAMS), {"key": jax.random.key(0), "value": 0.1}
    weak = {"a": jnp.ones((1, 2)), "b": jnp.array([[5.0, 0.1, 4.0]])}
    update = jax.jit(
        lambda state: tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS, activity=weak, **words)[1]
    )
    for _ in range(20):
        state = update(state)
    assert state.rule.renewed["hidden"].tolist() == [False, True, False]
    for leaf in jax.tree.leaves(getattr(state.base[1], field)["hidden"]):
        assert (leaf > 0).tolist() == [True, False, True]


class Copied(NamedTuple):
    """State of a rule that makes the second neuron a copy of the first one."""

    renewed: dict[str, jax.Array]
    donors: dict[str, jax.Array]
    drive: dict[str, jax.Array]


def test_of_a_copy_is_known_what_is_known_of_its_donor():
    state = Copied(
        {"hidden": jnp.array([False, True, False])}, {"hidden": jnp.array([0, 0, 2])}, {"hidden": jnp.ones(3)}
    )
    copying = core.rule(lambda params: state, lambda updates, state, params, **_: (updates, state))
    base = optax.chain(optax.sgd(0.0), neuroml.synaptic_scaling(NAMES))
    tx = neuroml.renewal(base, copying, NAMES)
    activity = {"a": jnp.ones((1, 2)), "b": jnp.array([[5.0, 1.0, 4.0]])}
    _, after = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS, activity=activity)
    assert after.base[1].mean["hidden"].tolist() == [5.0, 5.0, 4.0]


def test_three_factors_that_learn_from_the_trace_alone_do_not_look_at_the_gradient():
    rule, w = neuroml.three_factor(1.0), jnp.zeros(2)
    _, state = rule.update(jnp.ones(2), rule.init(w), w, value=1.0)
    step, _ = rule.update(jnp.array([jnp.nan, 1.0]), state, w, value=1.0)
    assert np.isfinite(step).all()


def test_upgd_knows_networks_without_weights():
    for params in ({}, {"w": jnp.zeros((0, 2)), "b": jnp.ones(2)}):
        rule = neuroml.upgd()
        step, _ = rule.update(params, rule.init(params), params, key=jax.random.key(0))
        assert jax.tree.map(jnp.shape, step) == jax.tree.map(jnp.shape, params)


def test_the_rank_of_what_is_no_number_is_no_number():
    assert np.isnan(regularizers.effective_rank(jnp.array([[jnp.nan, 1.0], [1.0, 1.0]])))
    assert float(regularizers.effective_rank(jnp.zeros((2, 2)))) == 0
