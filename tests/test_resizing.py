"""Resizing: the same function and the same steps afterwards, whatever the optimizer keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import growing
from neuroml.errors import UsageError

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(7), (20, 3))
Y = jnp.sin(3 * X[:, :2])
NAMES = {
    "a": {"kernel": ("pixel", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "second"), "bias": ("second",)},
    "c": {"kernel": ("second", "answer"), "bias": ("answer",)},
}


def network(first, second, key=KEY):
    keys = iter(jax.random.split(key, 3))
    layer = lambda *shape: {"kernel": jax.random.normal(next(keys), shape), "bias": 0.1 * jnp.ones(shape[1:])}
    return {"a": layer(3, first), "b": layer(first, second), "c": layer(second, 2)}


SMALL = growing.reserve(network(8, 6), NAMES, alive=3)


def capture(params, x=X):
    first = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    second = jnp.tanh(first @ params["b"]["kernel"] + params["b"]["bias"])
    return second @ params["c"]["kernel"] + params["c"]["bias"], {"a": x, "b": first, "c": second}


def loss(params, x=X, y=Y):
    return ((capture(params, x)[0] - y) ** 2).mean()


@functools.cache
def stepper(tx):
    @jax.jit
    def run(params, state, key):
        x = X + 0.1 * jax.random.normal(key, X.shape)
        value, grads = jax.value_and_grad(loss)(params, x)
        words = {"activity": capture(params, x)[1], "key": key, "value": value, "batch": (x, Y)}
        updates, state = tx.update(grads, state, params, **words)
        return optax.apply_updates(params, updates), state

    return run


consolidate = jax.jit(neuroml.consolidate)


def train(tx, params, state, count, begin=0, consolidate_at=()):
    """Trains, and consolidates before some of the steps."""
    run = stepper(tx)
    for i in range(begin, begin + count):
        if i in consolidate_at:
            importance = jax.tree.map(lambda leaf: leaf**2, params)
            state = consolidate(state, params, importance=importance)
        params, state = run(params, state, jax.random.fold_in(KEY, i))
    return params, state


def same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-4, "atol": 1e-5} | tolerance)), one, two)


def exactly(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def grown(base, **settings):
    settings = {"when": "steps", "patience": 5, "number": 2} | settings
    return neuroml.renewal(base, neuroml.growth(NAMES, **settings), NAMES)


def test_a_restored_run_is_the_uninterrupted_one(tmp_path):
    import orbax.checkpoint as ocp

    tx = grown(optax.chain(neuroml.ewc(1.0), optax.adam(0.01), neuroml.condensate_projector()))
    params, state = train(tx, SMALL, tx.init(SMALL), 30, consolidate_at=(9, 20))
    assert int(state.rule.births) == 8 and int(state.rule.refused) == 1, "full"
    before = capture(params)[0]
    params, state = neuroml.resize(tx, params, state, NAMES)
    assert params["b"]["kernel"].shape == (16, 12) and abs(capture(params)[0] - before).max() < 1e-6
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", {"params": params, "state": state})
        checkpointer.wait_until_finished()
        like = network(16, 12)
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, {"params": like, "state": tx.init(like)})
        restored = checkpointer.restore(tmp_path / "run", template)
    exactly((restored["params"], tuple(restored["state"])), (params, tuple(state)))
    straight = train(tx, params, state, 20, begin=30, consolidate_at=(40,))
    again = train(tx, restored["params"], restored["state"], 20, begin=30, consolidate_at=(40,))
    exactly(straight[0], again[0])
    exactly(tuple(straight[1]), tuple(again[1]))
    assert int(again[1].rule.births) == 16 and int(again[1].rule.refused) == 1


BASES = {
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=0.01)),
    "multi_steps": lambda: optax.MultiSteps(optax.adam(0.01), every_k_schedule=2).gradient_transformation(),
    "ewc": lambda: optax.chain(neuroml.ewc(0.3), optax.adam(0.01)),
    "si": lambda: optax.chain(neuroml.si(0.3), optax.adam(0.01)),
    "er": lambda: optax.chain(_replay(), optax.adam(0.01)),
    "owm": lambda: optax.chain(optax.adam(0.01), neuroml.owm()),
}


def _replay():
    return neuroml.er(lambda p, b: loss(p, *b), (X[0], Y[0]), neuroml.memory.reservoir(8), batch_size=4)


@pytest.mark.parametrize("name", BASES)
def test_it_goes_on_as_a_run_that_was_large_from_the_start(name):
    tx = grown(BASES[name](), number=0)  # births would draw other numbers at another size
    large = neuroml.resize(tx, SMALL, tx.init(SMALL), NAMES)[0]
    run = {"consolidate_at": (5, 15)}
    params, state = train(tx, SMALL, tx.init(SMALL), 10, **run)
    params, state = neuroml.resize(tx, params, state, NAMES)
    params, state = train(tx, params, state, 15, begin=10, **run)
    expected, last = train(tx, large, tx.init(large), 25, **run)
    same(params, expected)
    assert abs(params["b"]["kernel"] - large["b"]["kernel"]).max() > 1e-3
    same(state.rule.neurons, last.rule.neurons)


def test_only_some_populations_and_any_size():
    tx = grown(optax.adam(0.01))
    params, state = neuroml.resize(tx, SMALL, tx.init(SMALL), NAMES, {"second": 7})
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, network(8, 7))
    alive = {name: int(one.alive.sum()) for name, one in state.rule.neurons.items()}
    assert alive == {"first": 3, "second": 3} and state.rule.ground["b"].free.shape == (9, 9)
    exactly(neuroml.resize(tx, SMALL, tx.init(SMALL), NAMES, {"second": 6})[0], SMALL)


def test_mistakes_are_named():
    tx = grown(optax.adam(0.01))
    state = tx.init(SMALL)
    with pytest.raises(UsageError, match="unknown population 'pixel'"):
        neuroml.resize(tx, SMALL, state, NAMES, {"pixel": 9})
    with pytest.raises(UsageError, match="'first' has 8 neurons and cannot be made smaller, to 4"):
        neuroml.resize(tx, SMALL, state, NAMES, {"first": 4})
    with pytest.raises(UsageError, match="`tx` must be the transformation that made `opt_state`"):
        neuroml.resize(optax.sgd(0.1), SMALL, state, NAMES)
    limited = neuroml.condensate_projector(max_bytes=700)
    with pytest.raises(UsageError, match="cannot become smaller.*Raise the limit"):
        neuroml.resize(limited, SMALL, limited.init(SMALL), NAMES)
    ranked = neuroml.l2_init(0.1, form="wasserstein")
    with pytest.raises(UsageError, match="l2_init.*distribution of all weights.*euclidean"):
        neuroml.resize(ranked, SMALL, ranked.init(SMALL), NAMES)
