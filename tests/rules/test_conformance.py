"""What every rule must hold, whatever it does: one table of rules, one test a promise."""

import functools
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from table import LEARNING_RATE, ROWS, batch_of, init_params, lasting, loss, words_of

import neuroml
from neuroml.errors import MissingWordError, UsageError

# All tests of a rule run in one process, which then trains it once.
_by_row = lambda wanted: pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name, marks=pytest.mark.xdist_group(row.name)) for row in wanted]
)
rows, kinds = _by_row(ROWS), _by_row([row for row in ROWS if not row.kin])


def in_chain(row, rule, base=None):
    base = optax.sgd(LEARNING_RATE) if base is None else base
    return optax.chain(base, rule) if row.last else optax.chain(rule, base)


def compiled(row, update):
    """A rule that branches would compile its branches anew at each step that is not compiled as a whole."""
    return jax.jit(update) if row.branches else update


def take_steps(tx, params, state, steps, key, *, consolidate_after=None, update=None):
    """Returns weights and state after some steps on random batches."""
    update = update or tx.update
    for i in range(steps):
        words = words_of(jax.random.fold_in(key, i), params)
        grads = jax.grad(loss)(params, words["batch"])
        updates, state = update(grads, state, params, **words)
        params = optax.apply_updates(params, updates)
        if consolidate_after == i:
            state = neuroml.consolidate(state, params, **lasting(params))
    return params, state


@functools.cache
def _trained(name, dtype):
    row = next(row for row in ROWS if row.name == name)
    tx = in_chain(row, row.factory(row.strength))
    params = init_params(dtype=dtype)
    update = compiled(row, tx.update)
    return tx, *take_steps(tx, params, tx.init(params), 3, jax.random.key(0), consolidate_after=1, update=update)


def trained(row, dtype=jnp.float32):
    """A rule after two steps, a consolidation and one more step, so that it has something to remember."""
    return _trained(row.name, dtype)


def same(left, right, **tolerance):
    chex.assert_trees_all_close(left, right, **({"rtol": 1e-5, "atol": 1e-6} | tolerance))


@rows
def test_a_missing_word_is_named_and_others_are_not_needed(row, key):
    rule, params = row.factory(row.strength), init_params()
    words = words_of(key, params)
    state = rule.init(params)
    needed = {name: words[name] for name in row.words}
    with pytest.raises(MissingWordError, match="`params`"):
        rule.update(params, state, None, **words)
    for word in row.words:
        rest = {name: value for name, value in words.items() if name != word}
        with pytest.raises(MissingWordError, match=f"`{word}`"):
            rule.update(params, state, params, **rest)
    rule.update(params, state, params, **needed)


@_by_row([row for row in ROWS if row.lasting])
def test_a_missing_word_of_consolidate_is_named(row):
    rule, params = row.factory(row.strength), init_params()
    words = lasting(params)
    for word in row.lasting:
        rest = {name: value for name, value in words.items() if name != word}
        with pytest.raises(MissingWordError, match=f"`{word}`"):
            neuroml.consolidate(rule.init(params), params, **rest)


@rows
def test_compiles_once_and_agrees_with_no_compilation(row, key):
    tx, params, state = trained(row)
    words = words_of(key, params)
    words.pop("a_word_that_no_rule_knows")
    traces = []

    @jax.jit
    def update(updates, state, params, **words):
        traces.append(words)
        return tx.update(updates, state, params, **words)

    once = update(params, state, params, **words)
    update(once[0], once[1], params, **words)
    assert len(traces) == 1
    same(once, tx.update(params, state, params, **words))


@kinds
def test_vmap_is_a_loop(row, key):
    def experiment(key, strength):
        tx = in_chain(row, row.factory(strength))
        params = init_params(key)
        params, state = take_steps(tx, params, tx.init(params), 2, key, consolidate_after=0)
        return params, neuroml.penalty(state, params, key=key, batch=batch_of(key))

    keys, strengths = jax.random.split(key, 2), jnp.array([0.0, 0.4])
    together = jax.jit(jax.vmap(experiment))(keys, strengths)
    alone = compiled(row, experiment)
    for i in range(2):
        same(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone(keys[i], strengths[i]), rtol=1e-4, atol=1e-5)


@kinds
def test_scan_carries_it_in_half_precision(row, key):
    tx, params, state = trained(row, jnp.bfloat16)

    def step(carry, key):
        params, state = carry
        words = words_of(key, params)
        updates, state = tx.update(jax.grad(loss)(params, words["batch"]), state, params, **words)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, state), jax.random.split(key, 3))
    assert all(p.dtype == jnp.bfloat16 and jnp.isfinite(p).all() for p in jax.tree.leaves(params))


@rows
def test_consolidate_compiles_and_keeps_shapes(row, key):
    _, params, state = trained(row)
    words = lasting(params)
    words.pop("another_unknown_word")
    after = jax.jit(neuroml.consolidate)(state, params, **words)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    same(after, neuroml.consolidate(state, params, **words))


@rows
def test_state_may_be_donated_beside_the_weights(row, key):
    tx, params = in_chain(row, row.factory(row.strength)), init_params()
    words = words_of(key, params) | {"all_params": None}
    words.pop("a_word_that_no_rule_knows")
    step = jax.jit(lambda p, s, w: tx.update(p, s, p, **w), donate_argnums=(0, 1))
    fresh = jax.tree.map(jnp.copy, params)
    step(fresh, tx.init(fresh), words)  # fails where a state holds one buffer twice
    state = neuroml.consolidate(tx.init(params), params, **lasting(params))
    step(params, state, words)  # fails where the state holds the very buffers of the weights


@functools.cache
def adam_alone():
    """Weights after four steps of the base optimizer."""
    base, params = optax.with_extra_args_support(optax.adam(0.1)), init_params()
    return take_steps(base, params, base.init(params), 4, jax.random.key(0))[0]


@rows
def test_strength_zero_is_the_base_optimizer(row):
    tx, params = in_chain(row, row.factory(row.off), optax.adam(0.1)), init_params()
    ruled, _ = take_steps(tx, params, tx.init(params), 4, jax.random.key(0), consolidate_after=1)
    chex.assert_trees_all_equal(adam_alone(), ruled)


@_by_row([row for row in ROWS if row.waits])
def test_before_the_first_consolidation_it_is_the_base_optimizer(row):
    tx, params = in_chain(row, row.factory(row.strength), optax.adam(0.1)), init_params()
    ruled, _ = take_steps(tx, params, tx.init(params), 4, jax.random.key(0))
    chex.assert_trees_all_equal(adam_alone(), ruled)


@_by_row([row for row in ROWS if row.penalizes])
def test_update_adds_the_gradient_of_the_penalty(row, key):
    rule = row.factory(row.strength)
    tx, params, state = trained(row)
    state = state[1] if row.last else state[0]
    params = jax.tree.map(lambda p: p + 0.3, params)
    words = words_of(key, params)
    incoming = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params)
    out, _ = rule.update(incoming, state, params, **words)
    added = jax.tree.map(jnp.subtract, out, incoming)
    slope = lambda at: jax.grad(lambda p: neuroml.penalty(state, p, **words))(at)
    if row.last:  # implicit: the gradient at the weights that the step leads to, times -learning rate
        expected = jax.tree.map(lambda g: -LEARNING_RATE * g, slope(optax.apply_updates(params, out)))
    else:
        expected = slope(params)
    same(added, expected, rtol=1e-4, atol=1e-5)
    if row.name != "on_surprise":
        assert optax.tree.norm(added) > 1e-3, "nothing was added: the test would pass on a rule that does nothing"


CONTAINERS = {
    "chain": lambda rule: optax.chain(rule, optax.identity()),
    "named_chain": lambda rule: optax.named_chain(("rule", rule), ("rest", optax.identity())),
    "masked": lambda rule: optax.masked(rule, {"hidden": True, "head": False}),
    "partition": lambda rule: optax.partition(
        {"ruled": rule, "free": optax.identity()}, {"hidden": "ruled", "head": "free"}
    ),
    "multi_steps": lambda rule: optax.MultiSteps(rule, every_k_schedule=1).gradient_transformation(),
}


# What the others are made of; `chain` and `partition` differ from them in names only, and a few rules stand for all.
PLAIN = ("named_chain", "masked", "multi_steps")
FEW = ("ewc", "derpp", "condensate_projector", "cbp")
nested = [(row, name) for row in ROWS for name in CONTAINERS if not row.kin and (name in PLAIN or row.name in FEW)]


@functools.cache
def followed(name):
    """Words, gradients, what the rule makes of them and the weights then, step by step; and its state at the end."""
    row = next(row for row in ROWS if row.name == name)
    rule, params, steps = row.factory(row.strength), init_params(), []
    update, state = compiled(row, rule.update), rule.init(params)
    for i in range(4):
        words = words_of(jax.random.fold_in(jax.random.key(0), i), params)
        grads = jax.grad(loss)(params, words["batch"])
        expected, state = update(grads, state, params, **words)
        after = jax.tree.map(lambda p, g: p - 0.1 * g, params, expected)
        steps.append((words, params, grads, expected, after))
        params = after
        if i == 1:
            state = neuroml.consolidate(state, params, **lasting(params))
    return steps, state


@pytest.mark.parametrize(
    ("row", "container"),
    [
        pytest.param(*pair, id=f"{pair[1]}-{pair[0].name}", marks=pytest.mark.xdist_group(pair[0].name))
        for pair in nested
    ],
)
def test_works_inside(row, container):
    nested, hides = CONTAINERS[container](row.factory(row.strength)), container in ("masked", "partition")
    if row.whole and hides:
        with pytest.raises(UsageError, match="found no population|hide no weight"):
            nested.init(init_params())
        return
    branches = row.branches or container == "multi_steps"
    update, inside = compiled(row._replace(branches=branches), nested.update), nested.init(init_params())
    steps, bare = followed(row.name)
    for i, (words, params, grads, expected, after) in enumerate(steps):
        given, inside = update(grads, inside, params, **words)
        if row.apart or not hides:
            same(given["hidden"], expected["hidden"])
        same(given["head"], grads["head"] if hides else expected["head"])
        if i == 1:
            inside = neuroml.consolidate(inside, after, **lasting(after))
    assert neuroml.describe(inside) != "no rules: a plain optimizer"
    if not hides:
        same(neuroml.penalty(inside, after, **words), neuroml.penalty(bare, after, **words))


@rows
def test_a_schedule_injected_by_optax_is_followed(row, key):
    schedule = lambda count: 0.1 * (count + 1.0)

    def factory(strength):
        return row.factory(strength)

    injected, params = optax.inject_hyperparams(factory)(strength=schedule), init_params()
    update, state = compiled(row, injected.update), injected.init(params)
    for i in range(4):
        words = words_of(jax.random.fold_in(key, i), params)
        state_before = state
        out, state = update(params, state, params, **words)
        if i == 1:
            state = neuroml.consolidate(state, jax.tree.map(lambda p: p + 0.5, params), **lasting(params))
    by_hand = row.factory(schedule(3))
    inner = state_before.inner_state
    same(out, by_hand.update(params, set_strength(row, inner, schedule(3)), params, **words)[0])


def set_strength(row, state, strength):
    is_rule = lambda node: hasattr(type(node), "hyperparameters")
    leaves = dict.fromkeys(row.strengths, jnp.float32(strength))
    change = lambda node: node._replace(**leaves) if is_rule(node) else node
    return jax.tree.map(change, state, is_leaf=is_rule)


@rows
def test_a_changed_leaf_counts(row, key):
    """A hyperparameter given as a number is a leaf of the state: changing the leaf changes the rule."""
    rule = row.factory(row.strength)
    tx, params, state = trained(row)
    state = set_strength(row, state[1] if row.last else state[0], row.off)
    words = words_of(key, params)
    out, _ = rule.update(params, state, params, **words)
    chex.assert_trees_all_equal(out, params)


@rows
def test_optax_finds_the_parameters_inside(row):
    rule, params = row.factory(row.strength), init_params()
    optax.tree.map_params(rule, lambda value: value, rule.init(params))


@kinds
def test_checkpoint_round_trip(row, tmp_path):
    import orbax.checkpoint as ocp

    _, _, state = trained(row)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = checkpointer.restore(tmp_path / "state", template)
    chex.assert_trees_all_equal(state, restored)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, restored)


def nnx_gap(row, key):
    """Returns the largest difference between training by nnx.Optimizer and by raw Optax, consolidations included."""
    from flax import nnx

    class Layer(nnx.Module):
        def __init__(self, weights):
            for name, value in weights.items():
                setattr(self, name, nnx.Param(value))

    class Holder(nnx.Module):
        def __init__(self, params):
            for layer, weights in params.items():
                setattr(self, layer, Layer(weights))

    params = init_params()
    tx = in_chain(row, row.factory(row.strength))
    model, state = Holder(params), tx.init(params)
    optimizer = nnx.Optimizer(model, in_chain(row, row.factory(row.strength)), wrt=nnx.Param)
    for i in range(4):
        words = words_of(jax.random.fold_in(key, i), params)
        grads = jax.grad(loss)(params, words["batch"])
        updates, state = tx.update(grads, state, params, **words)
        params = optax.apply_updates(params, updates)
        model_grads = nnx.state(Holder(grads), nnx.Param)
        optimizer.update(model, model_grads, **{name: w for name, w in words.items() if name != "all_params"})
        if i == 1:
            ones = lasting(params)["importance"]
            state = neuroml.consolidate(state, params, importance=ones)
            neuroml.consolidate(optimizer, model, importance=nnx.state(Holder(ones), nnx.Param))
    mine = nnx.to_flat_state(nnx.as_pure(nnx.state(model, nnx.Param)))
    return max(float(jnp.abs(value - params[layer][name]).max()) for (layer, name), value in mine)


# The losses of the others take the weights as the table names them.
IN_NNX = [row for row in ROWS if not row.kin and "batch" not in row.words]


@_by_row(IN_NNX)
def test_nnx_optimizer_in_graph_mode(row, key):
    assert nnx_gap(row, key) < 1e-6


def test_nnx_optimizer_in_tree_mode():
    """A few rules of every kind: the mode is read when Flax is imported, so it takes a process of its own."""
    program = (
        "import sys; sys.path.insert(0, 'tests/rules')\n"
        "import jax, test_conformance as t\n"
        "for row in t.IN_NNX[::8]: assert t.nnx_gap(row, jax.random.key(0)) < 1e-6, row.name"
    )
    environment = {**os.environ, "NNX_GRAPH_MODE": "false", "NNX_GRAPH_UPDATES": "false"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_penalty_of_no_rules_is_zero():
    assert float(neuroml.penalty(optax.adam(0.1).init(init_params()), init_params())) == 0.0
