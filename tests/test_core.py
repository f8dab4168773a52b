"""The verbs find every rule wherever Optax nested it, and say where a tree does not fit."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import neuroml
from neuroml import adaptation, core, regularizers
from neuroml.errors import MissingWordError, UsageError

PARAMS = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([[3.0]])}}
TWOS = jax.tree.map(lambda p: jnp.full_like(p, 2.0), PARAMS)
MOVED = jax.tree.map(lambda p: p + 1.0, PARAMS)

# A rule in each of Optax's containers, with the penalty of PARAMS moved by 1 where every importance is 2.
NESTED = {
    "bare": (neuroml.ewc(3.0), 3.0 / 2 * 2 * 3),
    "chain": (optax.chain(optax.chain(neuroml.mas(3.0), optax.adam(0.1)), optax.sgd(0.1)), 3.0 * 2 * 3),
    "named_chain": (optax.named_chain(("rule", neuroml.ewc(3.0)), ("rest", optax.sgd(0.1))), 3.0 / 2 * 2 * 3),
    "masked": (optax.masked(neuroml.mas(3.0), {"a": True, "b": False}), 3.0 * 2 * 2),
    "partition": (
        optax.partition({"held": neuroml.mas(3.0), "free": optax.sgd(0.1)}, {"a": "free", "b": "held"}),
        3.0 * 2 * 1,
    ),
    "inject_hyperparams": (optax.inject_hyperparams(neuroml.ewc)(strength=3.0), 3.0 / 2 * 2 * 3),
    "multi_steps": (optax.MultiSteps(neuroml.mas(3.0), 2).gradient_transformation(), 3.0 * 2 * 3),
    "every": (neuroml.every(neuroml.ewc(3.0), 10), 3.0 / 2 * 2 * 3),
}


@pytest.mark.parametrize("container", NESTED)
def test_a_nested_rule_is_found(container):
    tx, expected = NESTED[container]
    before = tx.init(PARAMS)
    after = neuroml.consolidate(before, PARAMS, importance=TWOS)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    assert neuroml.penalty(before, MOVED) == 0.0
    assert neuroml.penalty(after, PARAMS) == 0.0
    assert neuroml.penalty(after, MOVED) == expected
    assert "strength=3" in neuroml.describe(after)


def test_all_rules_of_a_state_are_found_and_their_penalties_add_up():
    tx = optax.chain(*(tx for tx, _ in NESTED.values()))
    state = neuroml.consolidate(tx.init(PARAMS), PARAMS, importance=TWOS)
    assert neuroml.penalty(state, MOVED) == sum(expected for _, expected in NESTED.values())
    lines = neuroml.describe(state).splitlines()
    assert [line.split()[0][:3] for line in lines] == [f"[{i}]" for i in range(len(NESTED))]


def test_a_line_of_describe():
    # anchor and importance of 3 weights, offset, strength and decay of 4 bytes each, and a bool
    line = neuroml.describe(optax.chain(neuroml.ewc(3.0, decay=0.5)).init(PARAMS))
    assert line == "[0] EWCState: strength=3, decay=0.5, 37 bytes"


def test_a_state_without_rules_is_returned_as_it_is():
    state = optax.adam(0.1).init(PARAMS)
    after = neuroml.consolidate(state, PARAMS, importance=TWOS)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(a is b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True))
    assert neuroml.penalty(state, PARAMS) == 0.0
    assert neuroml.describe(state) == "no rules: a plain optimizer"


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ({"a": TWOS["a"]}, r"`importance` .* nothing at \['b'\]\['c'\]\.$"),
        ({"a": TWOS["a"], "b": {"c": None}}, r"`importance` .* nothing at \['b'\]\['c'\]\.$"),
        (TWOS | {"extra": jnp.ones(1)}, r"`importance` .* too much at \['extra'\]\.$"),
        ({"a": TWOS["a"], "b": {"c": {"d": jnp.ones(1)}}}, r"`importance` .* too much at \['b'\]\['c'\]\['d'\]\.$"),
        ({"a": TWOS["a"], "b": {"d": jnp.ones(1)}}, r"nothing at \['b'\]\['c'\] and too much at \['b'\]\['d'\]"),
        (jnp.ones(3), r"`importance` .* nothing at \['a'\], \['b'\]\['c'\] and too much at its root"),
        (TWOS | {"a": jnp.ones(3)}, r"`importance` at \['a'\] has shape \(3,\); the weights there have \(2,\)"),
        (TWOS | {"a": jnp.ones(())}, r"`importance` at \['a'\] has shape \(\)"),  # would broadcast
    ],
)
@pytest.mark.parametrize("rule", [neuroml.ewc, neuroml.mas])
def test_an_importance_unlike_the_weights_says_where(rule, importance, message):
    with pytest.raises(UsageError, match=message):
        neuroml.consolidate(rule(1.0).init(PARAMS), PARAMS, importance=importance)


def test_params_of_another_model_say_where():
    other = PARAMS | {"a": jnp.ones(3)}
    with pytest.raises(UsageError, match=r"`params` at \['a'\] has shape \(3,\)"):
        neuroml.consolidate(neuroml.si(1.0).init(PARAMS), other)


def test_importance_may_leave_out_what_a_mask_hides():
    tx = optax.masked(neuroml.ewc(2.0), {"a": True, "b": False})
    hidden = {"a": TWOS["a"], "b": {"c": optax.MaskedNode()}}
    for importance in (TWOS, hidden, {"a": TWOS["a"], "b": None}):
        state = neuroml.consolidate(tx.init(PARAMS), PARAMS, importance=importance)
        assert neuroml.penalty(state, MOVED) == 4.0
    with pytest.raises(UsageError, match=r"nothing at \['a'\]\.$"):
        neuroml.consolidate(tx.init(PARAMS), PARAMS, importance={"b": TWOS["b"]})


def needs_a_key(updates, state, params, *, key, scale=1.0, **_):
    return jax.tree.map(lambda u: u + scale * jax.random.normal(key, u.shape), updates), state


def test_rule_checks_what_it_is_given(key):
    tx = core.rule(lambda params: (), needs_a_key)
    with pytest.raises(MissingWordError, match=r"^needs_a_key needs `key`"):
        tx.update(PARAMS, (), PARAMS)
    with pytest.raises(MissingWordError, match="`key`"):
        tx.update(PARAMS, (), PARAMS, key=None)
    with pytest.raises(MissingWordError, match="`params`"):
        tx.update(PARAMS, (), key=key)
    silent, _ = tx.update(PARAMS, (), PARAMS, key=key, scale=0.0, unknown=1)  # `scale` has a default: not needed
    chex.assert_trees_all_equal(silent, PARAMS)
    assert not np.array_equal(tx.update(PARAMS, (), PARAMS, key=key)[0]["a"], PARAMS["a"])


def test_a_rule_that_draws_says_so_in_every_verb():
    loss = lambda w, x: jnp.mean(w * x)
    tx = neuroml.er(loss, jnp.float32(0), neuroml.memory.ring(2), batch_size=1)
    w = jnp.float32(1)
    with pytest.raises(MissingWordError, match="^er needs `key`: a fresh random key"):
        tx.update(w, tx.init(w), w, batch=jnp.ones(1))
    with pytest.raises(MissingWordError, match="^ERState.penalty needs `key`"):
        neuroml.penalty(optax.chain(tx).init(w), w)
    with pytest.raises(MissingWordError, match="^EWCState.consolidate needs `importance`"):
        neuroml.consolidate(neuroml.ewc(1.0).init(w), w)


def test_live_follows_arrays_and_keeps_the_leaf_of_a_number():
    state = neuroml.ewc(1.0).init(PARAMS)._replace(strength=jnp.float32(5))
    assert core.live(state, strength=1.0).strength == 5  # a number was the first value of the leaf, no more
    assert core.live(state, strength=np.float32(1)).strength == 5
    alive = core.live(state, strength=jnp.asarray(7, jnp.bfloat16), decay=jnp.float32(0.5))
    assert (alive.strength, alive.decay) == (7, 0.5)
    assert alive.strength.dtype == jnp.float32
    in_a_sweep = jax.vmap(lambda s: core.live(state, strength=s).strength)(jnp.arange(3.0))
    assert in_a_sweep.tolist() == [0, 1, 2]


def test_an_nnx_optimizer_changes_in_place():
    model = nnx.Linear(2, 1, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(neuroml.ewc(3.0), optax.adam(0.1)), wrt=nnx.Param)
    ones = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    assert neuroml.consolidate(optimizer, model, importance=ones) is optimizer
    model.kernel[...] += 2.0
    assert neuroml.penalty(optimizer, model) == 3.0 / 2 * 2 * 2.0**2
    assert neuroml.describe(optimizer).startswith("[0] EWCState: strength=3,")
    optimizer.update(model, jax.tree.map(jnp.zeros_like, ones))
    np.testing.assert_allclose(model.kernel[...], 2.9, rtol=1e-5)  # a step of Adam towards the anchor
    with pytest.raises(MissingWordError, match="`importance`"):
        neuroml.consolidate(optimizer, model)


# --- report ---


class Counter(NamedTuple):
    """The state of a rule that says how often it was called, and how many weights it sees."""

    calls: jax.Array
    weights: jax.Array

    def report(self):
        return {"calls": self.calls, "weights": self.weights}


def counting():
    """A rule with a report, and with neither of the other verbs."""

    def init(params):
        return Counter(jnp.int32(0), jnp.int32(sum(leaf.size for leaf in jax.tree.leaves(params))))

    return core.rule(init, lambda updates, state, params, **_: (updates, state._replace(calls=state.calls + 1)))


@pytest.mark.parametrize(
    "tx, weights",
    [
        (counting(), 3),
        (optax.chain(optax.chain(neuroml.ewc(1.0), counting()), optax.adam(0.1)), 3),
        (optax.named_chain(("rule", counting()), ("rest", optax.sgd(0.1))), 3),
        (optax.masked(counting(), {"a": True, "b": False}), 2),
        (optax.chain(optax.masked(counting(), {"a": False, "b": True}), optax.adam(0.1)), 1),
    ],
    ids=["bare", "chain", "named_chain", "masked", "chain of masked"],
)
def test_a_report_is_found_wherever_it_is_nested(tx, weights):
    state = tx.init(PARAMS)
    assert core.report(state) == {"calls": 0, "weights": weights}
    _, state = optax.with_extra_args_support(tx).update(TWOS, state, PARAMS)
    assert core.report(state) == {"calls": 1, "weights": weights}
    assert jax.jit(core.report)(state) == {"calls": 1, "weights": weights}


def test_reports_of_several_rules_are_put_together():
    class Other(NamedTuple):
        def report(self):
            return {"other": jnp.float32(7)}

    tx = optax.chain(
        counting(), core.rule(lambda params: Other(), lambda updates, state, params, **_: (updates, state))
    )
    assert core.report(tx.init(PARAMS)) == {"calls": 0, "weights": 3, "other": 7}


def test_who_has_nothing_to_say_reports_nothing():
    assert core.report(optax.adam(0.1).init(PARAMS)) == {}
    assert core.report(optax.chain(neuroml.ewc(1.0), optax.sgd(0.1)).init(PARAMS)) == {}
    assert core.report(()) == {}


def test_an_nnx_optimizer_reports_plain_arrays():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(counting(), optax.adam(0.1)), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    found = core.report(optimizer)
    assert found == {"calls": 1, "weights": 3} and all(type(value) is type(jnp.int32(0)) for value in found.values())
    assert core.report(nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)) == {}


WIRED = ({"a": {"kernel": ("x", "h")}, "b": {"kernel": ("h", "y")}}, lambda key: {})
OUT_OF_RANGE = [
    (neuroml.upgd, "decay", 1.0),
    (neuroml.upgd, "decay", 1 - 1e-9),  # 1 in float32
    (neuroml.upgd, "noise", -0.1),
    (neuroml.decorrelation, "ridge", 0.0),
    (neuroml.surprise_rate, "largest", 0.5),
    (neuroml.weight_clipping, "factor", -1),
    (neuroml.l2_init, "strength", -1),
    (functools.partial(neuroml.cbp, *WIRED), "rate", -1),
    (functools.partial(neuroml.partial_resets, *WIRED), "strength", 2.0),
    (functools.partial(neuroml.maturity_lock, WIRED[0]), "strength", 3),
    (functools.partial(neuroml.bcm, WIRED[0]), "strength", 3.0),
    (neuroml.shrink_perturb, "shrink", 2.0),
    (functools.partial(neuroml.intrinsic_plasticity, WIRED[0]), "target", 1.5),
    (functools.partial(neuroml.synaptic_scaling, WIRED[0]), "target", -1.0),
    (functools.partial(regularizers.activity_rate, {"a": jnp.ones((1, 2))}), "target", -1.0),
    (adaptation.make, "decay", 1.5),
]


@pytest.mark.parametrize("kind", [float, np.float32, jnp.float32, np.asarray])
@pytest.mark.parametrize(("make", "name", "value"), OUT_OF_RANGE)
def test_a_number_outside_its_range_raises_whatever_its_type_and_so_does_nan(make, name, value, kind):
    for number in (value, float("nan")):
        with pytest.raises(UsageError, match=rf"needs a `{name}` in .*, but {name}={kind(number)}\."):
            make(**{name: kind(number)})


def test_tracers_and_arrays_of_several_numbers_are_in_every_range():
    given = lambda x: core.require_ranges("a_rule", {"x": x}, x="[0, 1)") or x
    assert jax.jit(given)(3.0) == 3 and jax.vmap(given)(jnp.array([3.0, -1.0])).tolist() == [3, -1]
    number = jnp.float32(0.5)
    assert jax.jit(lambda: given(number))() == 0.5  # made outside of what is traced
    assert given(jnp.array([3.0, -1.0])).shape == (2,) and given(0) == 0 and given(np.float64(0.5)) == 0.5
    with pytest.raises(UsageError, match=r"a_rule needs a `x` in \[0, 1\), but x=1\."):
        given(1)
