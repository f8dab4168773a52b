"""ER-ACE: its gradient written out in numpy, and where it is plain experience replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml import losses, memory
from neuroml.errors import UsageError

RNG = np.random.default_rng(2)
W = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
OLD, NEW = (X, jnp.array([0, 1, 1, 0, 0])), (X[:4] + 1, jnp.array([2, 1, 2, 1]))  # class 3 never comes
EXAMPLE = (jnp.zeros(4), jnp.int32(0))


def predict(w, batch):
    return batch[0] @ w


def label(batch):
    return batch[1]


def loss(w, batch):
    return losses.cross_entropy(predict(w, batch), batch[1])


def make(store=None, **kwargs):
    given = {"outputs": 4, "batch_size": 3, **kwargs}
    return neuroml.er_ace(predict, loss, label, EXAMPLE, store or memory.ring(1), **given)


def exchanged(rule, state, batch, key):
    """Returns the whole update, that of the ordinary loss put in."""
    return rule.update(jax.grad(loss)(W, batch), state, W, batch=batch, key=key)


def by_hand(batch, classes):
    """Returns the gradient of the mean cross-entropy of a linear map with a softmax over some classes."""
    x, y, w = np.asarray(batch[0], np.float64), np.asarray(batch[1]), np.asarray(W, np.float64)
    chances = np.exp(x @ w) * np.isin(np.arange(4), classes)
    chances /= chances.sum(1, keepdims=True)
    return x.T @ (chances - np.eye(4)[y]) / len(x)


def test_new_examples_compete_among_the_classes_of_their_batch(key):
    rule = make()
    added, state = exchanged(rule, rule.init(W), NEW, key)
    np.testing.assert_allclose(added, by_hand(NEW, [1, 2]), rtol=1e-4, atol=1e-6)
    assert jnp.abs(added[:, [0, 3]]).max() < 1e-6  # other classes are not pushed down
    assert state.seen.tolist() == [False, True, True, False]


def test_replayed_examples_compete_among_all_classes_met(key):
    """A ring of one leaves nothing to chance: what is replayed is the last example."""
    rule = make()
    _, state = exchanged(rule, rule.init(W), OLD, key)
    added, after = exchanged(rule, state, NEW, key)
    last = (OLD[0][-1:], OLD[1][-1:])
    np.testing.assert_allclose(added, by_hand(NEW, [1, 2]) + by_hand(last, [0, 1, 2]), rtol=1e-4, atol=1e-6)
    assert after.seen.tolist() == [True, True, True, False]


def test_where_all_classes_are_in_every_batch_it_is_experience_replay(key):
    batch = (X, jnp.array([0, 1, 2, 3, 0]))
    rule, plain = make(), neuroml.er(loss, EXAMPLE, memory.ring(1), batch_size=3)
    _, state = exchanged(rule, rule.init(W), batch, key)
    _, other = exchanged(plain, plain.init(W), batch, key)
    ours, theirs = exchanged(rule, state, batch, key)[0], exchanged(plain, other, batch, key)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert jnp.abs(theirs - jax.grad(loss)(W, batch)).max() > 0.1  # something is replayed


def test_before_anything_is_stored_a_predictor_without_gradient_at_blank_examples_does_no_harm(key):
    unit = lambda w, batch: batch[0] / jnp.linalg.norm(batch[0], axis=-1, keepdims=True) @ w
    cost = lambda w, batch: losses.cross_entropy(unit(w, batch), batch[1])
    rule = neuroml.er_ace(unit, cost, label, EXAMPLE, memory.ring(4), outputs=4, batch_size=2)
    added, _ = rule.update(W, rule.init(W), W, batch=OLD, key=key)
    assert jnp.isfinite(added).all()


@pytest.mark.parametrize("name", ["batch_size", "outputs"])
def test_what_cannot_be_is_refused(name):
    with pytest.raises(UsageError, match=f"{name}=0"):
        make(**{name: 0})
