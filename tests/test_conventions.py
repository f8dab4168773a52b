"""Strengths of other codes: their penalty, computed as they compute it, against ours."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml import conventions, importance
from neuroml.errors import UsageError

N, CLASSES, STRENGTH = 12, 3, 7.0
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, CLASSES, N)
WEIGHTS = np.random.default_rng(2).normal(size=(4, CLASSES)).astype(np.float32) / 2


def predict(w, x):
    return x @ w


def slope(example, label):
    """The gradient of log p(label | example), by hand: x (1[label] - p)."""
    p = probabilities(example)
    return np.outer(X[example], np.eye(CLASSES)[label] - p)


def probabilities(example):
    logits = X[example] @ WEIGHTS
    return np.exp(logits) / np.exp(logits).sum()


def batches(size):
    return [range(first, first + size) for first in range(0, N, size)]


def squared_batches(size, label):
    return [np.mean([slope(i, label(i)) for i in batch], axis=0) ** 2 for batch in batches(size)]


# Each as its code has it: loops over examples or batches, its own divisor, its own half. {name: (Fisher, half)}.
def van_de_ven(size):
    total = sum(p * slope(i, y) ** 2 for i in range(N) for y, p in enumerate(probabilities(i)))
    return total / (N - 1), 0.5


def mammoth(size):
    return sum(probabilities(i)[Y[i]] * slope(i, Y[i]) ** 2 for i in range(N)) / N, 1.0


def contilab(size):
    return sum(slope(i, Y[i]) ** 2 for i in range(N)) / N, 0.5


def avalanche(size):
    return sum(squared_batches(size, lambda i: Y[i])) / (N // size), 1.0


def facil(size):
    return sum(size * square for square in squared_batches(size, lambda i: probabilities(i).argmax())) / N, 0.5


def pycil(size):
    return np.mean(squared_batches(size, lambda i: Y[i]), axis=0), 0.5


def libcontinual(size):
    return np.mean([size * square for square in squared_batches(size, lambda i: Y[i])], axis=0), 0.5


def sequel(size):
    return sum(squared_batches(size, lambda i: Y[i])) / N, 0.5


BY_HAND = {f.__name__: f for f in (van_de_ven, mammoth, contilab, avalanche, facil, pycil, libcontinual, sequel)}


def our_pull(found, moved, *anchors, decay=1.0):
    rule = neuroml.ewc(found.strength, anchors=found.anchors, decay=decay)
    state = rule.init(moved)
    for params in anchors:
        importance = neuroml.fisher(predict, params, jnp.array(X), labels=found.labels, targets=jnp.array(Y))
        state = neuroml.consolidate(state, params, importance=importance)
    return rule.update(jnp.zeros_like(moved), state, moved)[0]


@pytest.mark.parametrize("name", sorted(conventions.CONVENTIONS))
def test_the_pull_is_that_of_the_other_code(name):
    """With batches of one example every convention is exact; what it does over tasks aside."""
    information, half = BY_HAND[name](1)
    params, moved = jnp.array(WEIGHTS), jnp.array(WEIGHTS) + 0.3
    found = conventions.translate(name, STRENGTH, examples=N, batch_size=1)
    theirs = jax.grad(lambda w: half * STRENGTH * jnp.sum(information * (w - params) ** 2))(moved)
    np.testing.assert_allclose(our_pull(found, moved, params), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["van_de_ven", "mammoth", "contilab", "avalanche"])
def test_after_a_second_task_the_anchors_are_those_of_the_other_code(name, monkeypatch):
    """Of van de Ven and Avalanche a penalty for each task; of the others one sum, times gamma, around the newest."""
    gamma, together = (0.5, True) if name in ("mammoth", "contilab") else (1.0, False)
    first, second, moved = (jnp.array(WEIGHTS) + shift for shift in (0.0, 0.2, 0.3))
    one, half = BY_HAND[name](1)
    monkeypatch.setitem(globals(), "WEIGHTS", np.asarray(second))
    two, _ = BY_HAND[name](1)
    pull = lambda information, anchor: 2 * half * STRENGTH * information * (moved - anchor)
    theirs = gamma * pull(one, second if together else first) + pull(two, second)
    found = conventions.translate(name, STRENGTH, examples=N, batch_size=1)
    np.testing.assert_allclose(our_pull(found, moved, first, second, decay=gamma), theirs, rtol=1e-4, atol=1e-6)


def test_every_convention_is_written_out_by_hand():
    assert set(BY_HAND) == set(conventions.CONVENTIONS)


@pytest.mark.parametrize("name", [name for name, one in conventions.CONVENTIONS.items() if one.batched])
def test_a_batched_convention_is_translated_as_far_as_it_can_be(name):
    """For gradients without a mean: the ratio of the two Fishers over many random batches is what `translate` says."""
    size, rows = 4, np.random.default_rng(3).normal(size=(20_000, 4, 5))
    single = (rows**2).mean((0, 1))
    scale = {"facil": 1.0, "libcontinual": size, "sequel": 1 / size}.get(name, 1.0)
    theirs = scale * (rows.mean(1) ** 2).mean(0)  # facil: size * square * batches / examples = square
    found = conventions.translate(name, 1.0, examples=80_000, batch_size=size)
    half = 1 if conventions.CONVENTIONS[name].half else 2
    np.testing.assert_allclose(found.strength * single / half, theirs, rtol=0.05)
    assert not found.exact


def test_the_mean_over_random_batches_is_the_formula_of_the_docstring():
    draw, size = np.random.default_rng(4), 3
    grads = np.stack([slope(i, Y[i]) for i in range(N)]) + 0.2  # a mean that is not zero
    seen = np.mean([grads[draw.permutation(N)[:size]].mean(0) ** 2 for _ in range(20_000)], axis=0)
    single, mean = (grads**2).mean(0), grads.mean(0)
    formula = single / size * (N - size) / (N - 1) + mean**2 * N * (size - 1) / (size * (N - 1))
    np.testing.assert_allclose(seen, formula, rtol=0.05, atol=2e-3)


def test_the_docstring_calls_the_labels_as_fisher_does():
    listed = re.search(r"`labels` ([^:]*?)\. CLArena", conventions.translate.__doc__, re.DOTALL)[1]
    names = re.findall(r'"(\w+)"', listed)
    assert len(names) == 3 and set(names) <= set(importance.FISHER_LABELS)


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="'torch'.*mammoth"):
        conventions.translate("torch", 1.0, examples=10)
    with pytest.raises(UsageError, match="examples=0"):
        conventions.translate("mammoth", 1.0, examples=0)
    with pytest.raises(UsageError, match="batch_size=0"):
        conventions.translate("mammoth", 1.0, examples=10, batch_size=0)


@pytest.mark.parametrize("name", sorted(conventions.CONVENTIONS))
def test_who_squares_means_over_batches_must_say_of_how_many(name):
    if conventions.CONVENTIONS[name].batched:
        with pytest.raises(UsageError, match=f"{name} squares the mean.*batch_size"):
            conventions.translate(name, 1.0, examples=10)
    else:
        with_size = conventions.translate(name, 1.0, examples=10, batch_size=4)
        assert conventions.translate(name, 1.0, examples=10) == with_size
