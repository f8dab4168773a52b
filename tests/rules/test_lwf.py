"""Learning without forgetting: the distillation by hand, which outputs are known, and how much it weighs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import core
from neuroml.errors import UsageError

RNG = np.random.default_rng(0)
OLD, NEW = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)


def predict(w, batch):
    return batch[0] @ w


def batch(*labels):
    return X, jnp.array(labels)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def by_hand(temperature, known=(0, 1, 2)):
    """T^2 times the gradient of the cross-entropy: x (p - q) / T, over the known outputs."""
    q, p = (softmax(np.asarray(X @ w)[:, known] / temperature) for w in (OLD, NEW))
    pull = np.zeros((4, 3))
    pull[:, known] = temperature * np.asarray(X).T @ (p - q) / len(X)
    return pull


def pull_of(rule, labels=(0, 1, 2, 0, 1), lessons=1):
    state = rule.init(OLD)
    _, state = rule.update(jnp.zeros((4, 3)), state, OLD, batch=batch(*labels))
    for _ in range(lessons):
        state = core.consolidate(state, OLD)
    return rule.update(jnp.zeros((4, 3)), state, NEW, batch=batch(2, 2, 2, 2, 2))[0]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_pull_is_the_gradient_of_the_softened_cross_entropy(temperature):
    rule = neuroml.lwf(predict, outputs=3, strength=0.7, temperature=temperature)
    np.testing.assert_allclose(pull_of(rule), 0.7 * by_hand(temperature), rtol=1e-4, atol=1e-6)


def test_only_outputs_that_had_been_taught_are_distilled():
    rule = neuroml.lwf(predict, outputs=3, labels=lambda given: given[1])
    np.testing.assert_allclose(pull_of(rule, labels=(0, 1, 0, 1, 1)), by_hand(2.0, (0, 1)), rtol=1e-4, atol=1e-6)


def test_the_weight_is_constant_or_that_of_the_tasks_so_far():
    for weighting, factor in (("constant", 1), ("tasks", 3)):
        rule = neuroml.lwf(predict, outputs=3, weighting=weighting)
        np.testing.assert_allclose(pull_of(rule, lessons=3), factor * by_hand(2.0), rtol=1e-4, atol=1e-6)


def test_it_keeps_what_a_network_said_while_it_learns_something_else():
    def error(strength):
        tx = optax.chain(neuroml.lwf(predict, outputs=3, strength=strength), optax.sgd(0.5))
        w, state = OLD, core.consolidate(tx.init(OLD), OLD)
        for _ in range(60):
            grads = jax.grad(lambda w: optax.softmax_cross_entropy_with_integer_labels(X @ w, jnp.full(5, 2)).mean())(w)
            updates, state = tx.update(grads, state, w, batch=batch(2, 2, 2, 2, 2))
            w = optax.apply_updates(w, updates)
        return float(abs(softmax(np.asarray(X @ w)) - softmax(np.asarray(X @ OLD))).mean())

    assert error(3.0) < 0.5 * error(0.0)


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="'task'.*tasks"):
        neuroml.lwf(predict, outputs=3, weighting="task")
    with pytest.raises(UsageError, match=r"temperature=0\.0"):
        neuroml.lwf(predict, outputs=3, temperature=0.0)
    with pytest.raises(UsageError, match="must hide no weight"):
        optax.masked(neuroml.lwf(predict, outputs=3), {"a": True, "b": False}).init({"a": OLD, "b": NEW})


def test_a_label_that_is_no_output_is_not_taught():
    rule = neuroml.lwf(predict, outputs=3, labels=lambda batch: batch[1])
    _, state = rule.update(jnp.zeros((4, 3)), rule.init(OLD), OLD, batch=batch(-1, 0, 0, -1, 3))
    assert state.seen.tolist() == [True, False, False]
