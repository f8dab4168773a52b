"""A-GEM: the projection by hand, when it acts, and what counts as past."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml import core, memory
from neuroml.errors import MissingWordError, UsageError

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(1, 3)), jnp.float32)
W = jnp.zeros(3)


def loss(w, batch):
    return jnp.mean(batch @ w)  # its gradient is the mean of the batch, whatever w


def taught(**given):
    """A rule whose memory holds one past example X, so that r = X."""
    rule = neuroml.agem(loss, jnp.zeros(3), memory.ring(1), batch_size=2, **given)
    _, state = rule.update(jnp.zeros(3), rule.init(W), W, batch=X, key=jax.random.key(0))
    return rule, core.consolidate(state, W)


def answer(rule, state, g):
    return rule.update(g, state, W, batch=X, key=jax.random.key(1))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_a_gradient_that_disagrees_is_projected(strength):
    rule, state = taught(strength=strength)
    r = np.asarray(X[0])
    g = np.asarray(RNG.normal(size=3), np.float32) - 2 * r
    assert g @ r < 0
    after, state = answer(rule, state, jnp.asarray(g))
    np.testing.assert_allclose(after, g - strength * (g @ r) / (r @ r) * r, rtol=1e-5)
    assert abs(float(after @ X[0]) - (1 - strength) * g @ r) < 1e-5 and int(state.turned) == 1


def test_a_gradient_that_agrees_is_left_alone():
    rule, state = taught()
    g = 2 * X[0] + jnp.array([1.0, 0.0, 0.0]) * (X[0, 0] > 0)
    after, state = answer(rule, state, g)
    np.testing.assert_array_equal(after, g)
    assert int(state.turned) == 0 and core.report(state)["turned"] == 0


def test_what_is_stored_since_the_last_consolidation_is_not_past():
    rule = neuroml.agem(loss, jnp.zeros(3), memory.ring(1), batch_size=2)
    _, state = rule.update(jnp.zeros(3), rule.init(W), W, batch=X, key=jax.random.key(0))
    np.testing.assert_array_equal(answer(rule, state, -X[0])[0], -X[0])
    _, state = answer(rule, core.consolidate(state, W), -X[0])  # takes the past example's only place
    np.testing.assert_array_equal(answer(rule, state, -X[0])[0], -X[0])


def test_few_stored_examples_weigh_equally():
    """Three are stored and eight are asked for: the past is their mean, and no lot makes one of them heavier."""
    rule = neuroml.agem(loss, jnp.zeros(3), memory.ring(5), batch_size=8)
    stored = jnp.asarray(RNG.normal(size=(3, 3)), jnp.float32)
    _, state = rule.update(jnp.zeros(3), rule.init(W), W, batch=stored, key=jax.random.key(0))
    r = np.asarray(stored.mean(0))
    after, _ = answer(rule, core.consolidate(state, W), jnp.asarray(-r))
    np.testing.assert_allclose(after, 0, atol=1e-6)


def test_a_share_of_a_task_is_stored_as_it_ends():
    rule = neuroml.agem(loss, jnp.zeros(3), memory.ring(4), batch_size=2, each=2)
    data = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    _, state = answer(rule, rule.init(W), X[0])
    assert not memory.stored(state.memory).any(), "stored while it was learnt"
    for task in range(3):
        state = core.consolidate(state, W, data=data + 100 * task, key=jax.random.key(task))
    kept = np.sort(np.asarray(jax.tree.leaves(state.memory.items)[0]).round(2)[:, 0] // 50)
    assert (kept >= 1).all() and len(kept) == 4, "the oldest share has made room"
    with pytest.raises(UsageError, match="each=2 .* has 1"):
        core.consolidate(rule.init(W), W, data=data[:1], key=jax.random.key(0))
    with pytest.raises(MissingWordError, match="`data`"):
        core.consolidate(rule.init(W), W)


def test_a_memory_of_blanks_whose_loss_has_no_gradient_does_no_harm():
    rule = neuroml.agem(lambda w, x: jnp.mean(jnp.sqrt(jnp.abs(x @ w))), jnp.zeros(3), memory.ring(1), batch_size=1)
    after, _ = rule.update(jnp.ones(3), rule.init(W), W, batch=X, key=jax.random.key(0))
    np.testing.assert_array_equal(after, 1)


def test_empty_slots_without_a_gradient_leave_what_is_stored_its_say():
    """The gradient of a norm is 0 / 0 at a blank example: one is stored, three fill up the shape."""
    rule = neuroml.agem(lambda w, x: jnp.linalg.norm(x * w), jnp.zeros(3), memory.ring(4), batch_size=4)
    w, slope = jnp.ones(3), jax.grad(lambda w: jnp.linalg.norm(X * w))(jnp.ones(3))
    _, state = rule.update(jnp.zeros(3), rule.init(w), w, batch=X, key=jax.random.key(0))
    after, state = rule.update(-slope, core.consolidate(state, w), w, batch=X, key=jax.random.key(1))
    np.testing.assert_allclose(after, 0, atol=1e-6)
    assert int(state.turned) == 1


def test_products_of_bfloat16_are_summed_in_float32():
    """One array disagrees by 257, which bfloat16 would round to 256, and the other agrees by 256."""
    narrow = lambda a, b: {"a": jnp.array(a, jnp.bfloat16), "b": jnp.array(b, jnp.bfloat16)}
    w, past = narrow([0, 0], [0]), narrow([[16, 1]], [[16]])
    rule = neuroml.agem(lambda w, x: (x["a"] @ w["a"] + x["b"] @ w["b"]).mean(), w, memory.ring(1), batch_size=1)
    _, state = rule.update(w, rule.init(w), w, batch=past, key=jax.random.key(0))
    _, state = rule.update(narrow([-16, -1], [16]), core.consolidate(state, w), w, batch=past, key=jax.random.key(1))
    assert int(state.turned) == 1


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="batch_size=0"):
        neuroml.agem(loss, jnp.zeros(3), memory.ring(1), batch_size=0)
