"""Renewal: new weights start without the momenta of the old ones, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import surgery, units
from neuroml.errors import MissingWordError, UsageError

KEY = jax.random.key(0)
NAMES = {
    "a": {"kernel": ("pixel", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "second"), "bias": ("second",)},
    "c": {"kernel": ("second", "answer"), "bias": ("answer",)},
}
BASES = {
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "clipped adam": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    "scheduled adamw": optax.adamw(optax.linear_schedule(1e-2, 1e-3, 10)),
}


def network(key):
    keys = iter(jax.random.split(key, 6))
    layer = lambda *shape: {
        "kernel": jax.random.normal(next(keys), shape),
        "bias": jax.random.normal(next(keys), shape[1:]),
    }
    return {"a": layer(3, 5), "b": layer(5, 4), "c": layer(4, 2)}


def words(key):
    """Neuron 2 of the first population and neuron 0 of the second are silent."""
    shape = lambda i, n: jax.random.normal(jax.random.fold_in(key, i), (6, n))
    first, second = shape(1, 5).at[:, 2].set(0), shape(2, 4).at[:, 0].set(0)
    return {"activity": {"a": shape(0, 3), "b": first, "c": second}, "key": key, "batch": shape(3, 3)}


def steps(tx, params, count, state=None, begin=0):
    state, update = tx.init(params) if state is None else state, jax.jit(tx.update)
    for i in range(begin, begin + count):
        key = jax.random.fold_in(KEY, i)
        updates, state = update(network(key), state, params, **words(key))
        params = optax.apply_updates(params, updates)
    return params, state


def rule(every=3):
    return neuroml.redo(NAMES, network, threshold=0.01, every=every)


def like_the_weights(base, state):
    """The trees in an optimizer's state that mirror the weights."""
    structure = jax.tree.structure(network(KEY))
    is_tree = lambda node: jax.tree.structure(node) == structure
    found = [node for node in jax.tree.leaves(state, is_leaf=is_tree) if is_tree(node)]
    assert found, "the test would pass on an optimizer without moments"
    return found


@pytest.mark.parametrize("name", BASES)
def test_moments_are_zero_exactly_where_a_weight_enters_or_leaves_a_new_neuron(name):
    base, params = BASES[name], network(KEY)
    _, (kept, ruled) = steps(neuroml.renewal(base, rule(), NAMES), params, 3)
    chained, (plain, same) = steps(optax.chain(base, rule()), params, 3)
    jax.tree.map(np.testing.assert_array_equal, ruled, same)
    assert ruled.renewed["first"].tolist() == [False, False, True, False, False]
    assert ruled.renewed["second"].tolist() == [True, False, False, False]
    gone = surgery.touched(units.find(NAMES, params), params, ruled.renewed)
    assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(gone)) == (3 + 1 + 4) + (5 + 1 + 2) - 1
    for mine, theirs in zip(like_the_weights(base, kept), like_the_weights(base, plain), strict=True):
        check = lambda m, t, g: np.testing.assert_array_equal(m, np.where(g, 0, t))
        jax.tree.map(check, mine, theirs, gone)
        assert all((leaf != 0).all() for leaf in jax.tree.leaves(theirs)), "no moment to clear"
    counts = lambda state: [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts(kept)] == [int(count) for count in counts(plain)]


@pytest.mark.parametrize("name", BASES)
def test_where_nothing_is_replaced_it_is_the_chain(name):
    params = network(KEY)
    together = steps(neuroml.renewal(BASES[name], rule(every=9), NAMES), params, 4)
    apart = steps(optax.chain(BASES[name], rule(every=9)), params, 4)
    jax.tree.map(np.testing.assert_array_equal, together[0], apart[0])
    jax.tree.map(np.testing.assert_array_equal, tuple(together[1]), apart[1])


def test_without_moments_it_is_the_chain_also_where_neurons_are_replaced():
    params, base = network(KEY), optax.sgd(0.1)
    together, state = steps(neuroml.renewal(base, rule(), NAMES), params, 4)
    assert int(state.rule.births) == 2
    jax.tree.map(np.testing.assert_array_equal, together, steps(optax.chain(base, rule()), params, 4)[0])


def test_old_momenta_do_not_drive_new_weights():
    """With no gradient from the birth on, a new neuron stays as it was drawn; in a plain chain it drifts off."""
    base, params = optax.sgd(0.1, momentum=0.9), network(KEY)

    def drift(tx):
        born, state = steps(tx, params, 3)
        still = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(still, state, born, **words(KEY))
        return updates["a"]["kernel"]

    renewed, chained = drift(neuroml.renewal(base, rule(), NAMES)), drift(optax.chain(base, rule()))
    assert (renewed[:, 2] == 0).all() and (jnp.abs(chained[:, 2]) > 0.01).all()
    np.testing.assert_array_equal(renewed[:, [0, 1, 3, 4]], chained[:, jnp.array([0, 1, 3, 4])])


def test_adams_steps_of_a_new_weight_are_those_of_moments_that_begin_at_zero_uncorrected():
    """Under a constant gradient: three learning rates at first, more than six some ten steps later, then one."""
    birth, params = 2000, network(KEY)
    tx, grads = neuroml.renewal(optax.adam(1e-3), rule(every=birth), NAMES), jax.tree.map(jnp.ones_like, network(KEY))

    def step(state, _):
        updates, state = tx.update(grads, state, params, **words(KEY))
        return state, -updates["a"]["kernel"][0] / 1e-3

    sizes = np.asarray(jax.lax.scan(step, tx.init(params), length=birth + 30)[1])[birth:]
    since = np.arange(1, 31)
    expected = (1 - 0.9**since) / np.sqrt((1 - 0.999**since) / (1 - 0.999 ** (birth + since)))
    np.testing.assert_allclose(sizes[:, 2], expected, rtol=1e-3)
    np.testing.assert_allclose(sizes[:, 1], 1, rtol=1e-3)
    assert sizes[0, 2] < 3 < 6 < sizes[:, 2].max() < 6.6


def test_a_vmap_over_seeds_is_a_loop():
    tx = neuroml.renewal(optax.adam(1e-2), neuroml.cbp(NAMES, network, rate=0.3, maturity=1), NAMES)

    def run(key):
        params, state = steps(tx, network(key), 4)
        return params, state.rule.births

    keys = jax.random.split(KEY, 3)
    together, alone = jax.jit(jax.vmap(run))(keys), jax.jit(run)
    for i in range(3):
        params, births = alone(keys[i])
        assert int(births) == int(together[1][i]) > 0
        close = lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, together[0], params)


def predict(params, batch):
    for layer in params.values():
        batch = jnp.tanh(batch @ layer["kernel"] + layer["bias"])
    return batch


MESU = {"loss": lambda params, batch: (predict(params, batch) ** 2).mean(), "prior": 0.3}
ANCHORED = {
    "benna_fusi": (neuroml.benna_fusi(depth=2), ("beakers",)),
    "condensate_anchor": (neuroml.condensate_anchor(1.0), ("shell", "core")),
    "mesu": (neuroml.mesu(**MESU), ("start",)),
    "ewc": (neuroml.ewc(strength=1.0), ("anchor",)),
    "schwann": (neuroml.schwann(NAMES), ("start",)),
    "si": (neuroml.si(strength=1.0), ("anchor", "last_params")),
    "l2_init": (neuroml.l2_init(0.1), ("initial",)),
}


@pytest.mark.parametrize("name", ANCHORED)
def test_new_weights_are_held_to_themselves(name):
    held, fields = ANCHORED[name]
    params, state = steps(neuroml.renewal(optax.chain(held, optax.sgd(0.1)), rule(), NAMES), network(KEY), 3)
    gone = surgery.touched(units.find(NAMES, params), params, state.rule.renewed)
    check = lambda held, weight, new: np.testing.assert_array_equal(held[new], weight[new])
    for field in fields:
        anchor = getattr(state.base[0], field)
        anchor = anchor[0] if isinstance(anchor, tuple) else anchor
        jax.tree.map(check, anchor, params, gone)
        assert anchor["a"]["kernel"][:, 2].all() and (anchor["a"]["kernel"] != params["a"]["kernel"])[:, 0].all()


def test_what_the_rule_needs_is_asked_for():
    params = network(KEY)
    tx = neuroml.renewal(optax.adam(1e-2), rule(), NAMES)
    with pytest.raises(MissingWordError, match="redo needs `activity`"):
        tx.update(params, tx.init(params), params, key=KEY)
    with pytest.raises(MissingWordError, match="`params`"):
        tx.update(params, tx.init(params), **words(KEY))


def test_a_rule_that_replaces_nothing_is_refused():
    with pytest.raises(UsageError, match="L2InitState"):
        neuroml.renewal(optax.sgd(0.1), neuroml.l2_init(0.1), {}).init({"kernel": jnp.ones((2, 2))})


@pytest.mark.parametrize("base", [optax.adafactor(1e-2), optax.sm3(0.1)], ids=["adafactor", "sm3"])
def test_an_optimizer_whose_moments_are_not_like_the_weights_is_refused(base):
    with pytest.raises(UsageError, match="moments that are not like the weights .*optax.adam"):
        neuroml.renewal(base, rule(), NAMES).init(network(KEY))


@pytest.mark.parametrize("name", ["schedule_free_adamw", "prodigy", "dog", "cocob"])
def test_an_optimizer_that_holds_weights_is_refused_wherever_it_stands(name):
    base = optax.chain(optax.clip_by_global_norm(1.0), getattr(optax.contrib, name)())
    with pytest.raises(UsageError, match="State of this optimizer holds weights.*optax.adam"):
        neuroml.renewal(base, rule(), NAMES).init(network(KEY))


@pytest.mark.parametrize("make", [neuroml.regrama, neuroml.partial_resets])
def test_the_rule_judges_by_the_gradients_and_not_by_what_the_optimizer_makes_of_them(make):
    """Behind SGD both are alike; Adam steps as far for a neuron of a thousandth of the gradient of the others."""
    params, ones = network(KEY), jax.tree.map(jnp.ones_like, network(KEY))
    slow = ones["a"]["kernel"].at[:, 2].set(1e-3)
    grads = ones | {"a": ones["a"] | {"kernel": slow}}
    whole = {} if make is neuroml.regrama else {"strength": 1.0, "decay": 0.0}
    ruled = make(NAMES, network, threshold=0.5, every=1, **whole)
    judged = {}
    for name, base in (("sgd", optax.sgd(0.1)), ("adam", optax.adam(1e-2))):
        for tx in (neuroml.renewal(base, ruled, NAMES), optax.chain(base, ruled)):
            _, state = tx.update(grads, tx.init(params), params, key=KEY)
            judged[name, hasattr(state, "base")] = state[1].renewed["first"].tolist()
    right = [[False, False, True, False, False]] * 3
    assert [judged["sgd", True], judged["sgd", False], judged["adam", True]] == right != [judged["adam", False]] * 3


def test_a_gradient_that_the_optimizer_mends_does_not_reach_the_weights_through_the_rule():
    params, grads = network(KEY), jax.tree.map(jnp.ones_like, network(KEY))
    grads["a"]["kernel"] = grads["a"]["kernel"].at[0, 1].set(jnp.nan)
    ruled = neuroml.partial_resets(NAMES, network, 0.5, every=1)
    tx = neuroml.renewal(
        optax.chain(optax.stateless(lambda g, _: jax.tree.map(jnp.nan_to_num, g)), optax.adam(1e-2)), ruled, NAMES
    )
    steps, state = tx.update(grads, tx.init(params), params, key=KEY)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((steps, state.rule.utilities)))
