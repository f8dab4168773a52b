"""DER++: both replayed gradients by brute force, what is stored and when, and that the two draws are two."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml import losses, memory
from neuroml.errors import UsageError

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
Y = jnp.array([0, 1, 2, 0, 1])
ANSWERS = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)  # what some earlier network said to X
EXAMPLE = (jnp.zeros(4), jnp.int32(0))
ZERO = jnp.zeros_like(W)


def predict(w, batch):
    return batch[0] @ w


def loss(w, batch):
    return losses.cross_entropy(predict(w, batch), batch[1])


def make(store=None, **kwargs):
    given = {"outputs": 3, "batch_size": 1, "distillation": 0.3, "strength": 0.7, **kwargs}
    return neuroml.derpp(predict, loss, EXAMPLE, store or memory.ring(8), **given)


def filled(key, **kwargs):
    """Returns a rule, and its state with X, Y and ANSWERS in it."""
    rule = make(**kwargs)
    _, state = rule.update(ZERO, rule.init(W), W, batch=(X, Y), outputs=ANSWERS, key=key)
    return rule, state


def replayed(rule, state, key):
    return rule.update(ZERO, state, W, batch=(X, Y), outputs=ANSWERS, key=key)[0]


def by_hand(i, j):
    """Returns the update that replays answer i and label j: derivatives of a linear map, written out in numpy."""
    w, x, answers = (np.asarray(array, np.float64) for array in (W, X, ANSWERS))
    apart = 2 / 3 * np.outer(x[i], x[i] @ w - answers[i])
    chances = np.exp(x[j] @ w) / np.exp(x[j] @ w).sum()
    return 0.3 * apart + 0.7 * np.outer(x[j], chances - np.eye(3)[Y[j]])


def test_every_update_is_that_of_one_answer_and_one_label_drawn_independently(key):
    rule, state = filled(key)
    draws, pairs = 1500, list(itertools.product(range(5), repeat=2))
    many = jax.vmap(lambda k: replayed(rule, state, k))(jax.random.split(key, draws))
    candidates = np.stack([by_hand(i, j) for i, j in pairs])
    distance = np.abs(np.asarray(many)[:, None] - candidates).max((2, 3))  # [draws, pairs]
    assert distance.min(1).max() < 1e-5
    counts = collections.Counter(distance.argmin(1).tolist())
    expected = draws / len(pairs)
    chi_square = sum((counts[pair] - expected) ** 2 / expected for pair in range(len(pairs)))
    assert chi_square < 60  # 24 degrees of freedom: more in one of 10,000 fair runs; one draw for both makes it 6000


def test_a_replayed_batch_is_a_mean_of_such_updates(key):
    rule, state = filled(key, batch_size=20_000)
    expected = np.mean([by_hand(i, i) for i in range(5)], axis=0)
    np.testing.assert_allclose(replayed(rule, state, key), expected, atol=0.03)


def test_the_penalty_is_what_update_descends_with_the_same_key(key):
    rule, state = filled(key, batch_size=2)
    for i in range(3):
        draw = jax.random.fold_in(key, i)
        slope = jax.grad(lambda w, draw=draw: neuroml.penalty(state, w, key=draw))(W)
        np.testing.assert_allclose(replayed(rule, state, draw), slope, rtol=1e-5)


def test_the_answers_kept_are_those_from_before_the_step(key):
    tx = optax.chain(make(), optax.sgd(0.5))
    params, state, said = W, tx.init(W), []
    for i in range(4):
        batch = (X[i : i + 1], Y[i : i + 1])
        outputs = predict(params, batch)
        said.append(outputs[0])
        words = {"batch": batch, "outputs": outputs, "key": jax.random.fold_in(key, i)}
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params, **words)
        params = optax.apply_updates(params, updates)
    (x, y), answers = state[0].memory.items
    assert jnp.array_equal(answers[:4], jnp.stack(said)) and not jnp.allclose(answers[0], X[0] @ params)
    assert jnp.array_equal(x[:4], X[:4]) and y[:4].tolist() == Y[:4].tolist()


def test_a_batch_is_not_replayed_at_its_own_step(key):
    rule = make(batch_size=4)
    added, _ = rule.update(W, rule.init(W), W, batch=(X, Y), outputs=ANSWERS, key=key)
    assert jnp.array_equal(added, W)
    assert neuroml.penalty(rule.init(W), W, key=key) == 0


def test_before_anything_is_stored_a_loss_without_gradient_at_blank_examples_does_no_harm(key):
    """Blank examples are zeros, where normalized inputs (x / ||x||) are not a number."""
    unit = lambda w, batch: batch[0] / jnp.linalg.norm(batch[0], axis=-1, keepdims=True) @ w
    cost = lambda w, batch: losses.cross_entropy(unit(w, batch), batch[1])
    rule = neuroml.derpp(unit, cost, EXAMPLE, memory.ring(8), outputs=3, batch_size=2)
    added, state = rule.update(W, rule.init(W), W, batch=(X, Y), outputs=ANSWERS, key=key)
    assert jnp.array_equal(added, W)
    assert jnp.isfinite(rule.update(W, state, W, batch=(X, Y), outputs=ANSWERS, key=key)[0]).all()


def test_without_distillation_it_is_experience_replay(key):
    one = (X[:1], Y[:1])  # a single stored example leaves nothing to chance
    rule, plain = make(distillation=0.0), neuroml.er(loss, EXAMPLE, memory.ring(8), batch_size=1, strength=0.7)
    _, state = rule.update(ZERO, rule.init(W), W, batch=one, outputs=ANSWERS[:1], key=key)
    _, plain_state = plain.update(ZERO, plain.init(W), W, batch=one, key=key)
    np.testing.assert_allclose(
        replayed(rule, state, key), plain.update(ZERO, plain_state, W, batch=one, key=key)[0], rtol=1e-6
    )


def test_outputs_that_were_switched_off_are_at_no_distance(key):
    active = jnp.array([True, True, False])
    shown = lambda w, batch: losses.mask_outputs(predict(w, batch), active)
    rule = neuroml.derpp(shown, loss, EXAMPLE, memory.ring(8), outputs=3, batch_size=4, distillation=1.0, strength=0.0)
    batch = (X, Y)
    _, state = rule.update(ZERO, rule.init(W), W, batch=batch, outputs=shown(W, batch), key=key)
    added, _ = rule.update(ZERO, state, W + 1, batch=batch, outputs=shown(W + 1, batch), key=key)
    assert jnp.all(added[:, 2] == 0) and jnp.all(added[:, :2] != 0) and jnp.isfinite(added).all()


def test_a_class_balanced_store_is_asked_about_pairs(key):
    rule = make(memory.class_balanced(6, 3, lambda pair: pair[0][1]))
    _, state = rule.update(ZERO, rule.init(W), W, batch=(X, Y), outputs=ANSWERS, key=key)
    (_, labels), _ = state.memory.items
    assert labels[memory.stored(state.memory)].tolist() == [0, 0, 1, 1, 2]


def test_consolidation_only_marks_what_is_past(key):
    rule, state = filled(key)
    after = neuroml.consolidate(state, W)
    assert memory.older(after.memory).sum() == 5
    assert jnp.array_equal(replayed(rule, after, key), replayed(rule, state, key))


@pytest.mark.parametrize("name", ["batch_size", "outputs"])
def test_what_cannot_be_is_refused(name):
    with pytest.raises(UsageError, match=f"{name}=0"):
        make(**{name: 0})


def test_an_example_is_not_stored_without_a_finite_answer(key):
    rule = make()
    batch, answers = (X.at[0, 0].set(jnp.nan), Y), ANSWERS.at[2, 1].set(jnp.nan)
    _, state = rule.update(ZERO, rule.init(W), W, batch=batch, outputs=answers, key=key)
    (x, _), kept = state.memory.items
    np.testing.assert_array_equal(x[:3], X[jnp.array([1, 3, 4])])
    np.testing.assert_array_equal(kept[:3], ANSWERS[jnp.array([1, 3, 4])])
    assert memory.stored(state.memory).sum() == 3
