"""Discriminants against formulas over all examples at once, in whatever order they came."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from neuroml import recall
from neuroml.discriminant import discriminant
from neuroml.errors import UsageError
from neuroml.features import pixels
from neuroml.streams.stream import Batch

WIDTH, OUTPUTS = 3, 4  # an odd number of features: the statistics are padded
EXAMPLE = Batch(jnp.zeros((1, 3, 1)), jnp.int32(0), jnp.int32(0), jnp.ones(OUTPUTS, bool))


def batch(seed, n=20, classes=3):
    first, second, third = jax.random.split(jax.random.key(seed), 3)
    y = jax.random.randint(first, (n,), 0, classes)
    mix = jax.random.normal(third, (WIDTH, WIDTH))
    x = jax.random.normal(second, (n, WIDTH)) @ mix + 2 * y[:, None]
    return Batch(x.reshape(n, 1, WIDTH, 1), y, jnp.zeros(n, int), jnp.ones((n, OUTPUTS), bool))


def make(**given):
    inner = recall.fixed(pixels(), EXAMPLE, 1.0)
    return toy.compiled(discriminant(inner, recall.of_features(pixels(), 1.0), WIDTH, OUTPUTS, **given))


def taught(learner, *batches):
    state = learner.init(jax.random.key(0))
    for one in batches:
        state, _ = learner.step(state, one, jax.random.key(1))
    return learner.settle(state)


def flat(*batches):
    return np.concatenate([b.x.reshape(-1, WIDTH) for b in batches]), np.concatenate([b.y for b in batches])


def test_the_nearest_mean_answers():
    data, new = [batch(0), batch(1)], batch(2)
    x, y = flat(*data)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    distance = ((flat(new)[0][:, None] - means) ** 2).sum(-1)
    learner = make(covariance="identity")
    answers = learner.predict(taught(learner, *data), new)
    np.testing.assert_array_equal(answers.argmax(1), distance.argmin(1))
    assert (answers[:, 3] < -1e8).all(), "a class that was never met answered"


@pytest.mark.parametrize("shrinkage", [1e-4, 0.3])
def test_the_shared_covariance_is_that_around_the_means(shrinkage):
    data, new = [batch(0), batch(1)], batch(2)
    x, y = flat(*data)
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    scatter = (x - means[y]).T @ (x - means[y]) / len(x)
    precision = np.linalg.inv((1 - shrinkage) * scatter + shrinkage * np.eye(WIDTH))
    expected = flat(new)[0] @ precision @ means.T - (means @ precision * means).sum(1) / 2
    learner = make(shrinkage=shrinkage)
    np.testing.assert_allclose(learner.predict(taught(learner, *data), new)[:, :3], expected, rtol=2e-3, atol=1e-2)


def test_the_order_of_examples_does_not_matter_and_nothing_unsettled_answers():
    learner = make()
    forth, back = taught(learner, batch(0), batch(1)), taught(learner, batch(1), batch(0))
    np.testing.assert_allclose(learner.predict(forth, batch(2)), learner.predict(back, batch(2)), rtol=1e-3, atol=1e-3)
    state, info = learner.step(learner.init(jax.random.key(0)), batch(0), jax.random.key(1))
    assert 0 <= float(info.accuracy) <= 1
    assert not learner.predict(state, batch(2))[:, :3].any()


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="covariance"):
        make(covariance="full")
    for shrinkage in (1.5, 0.0):
        with pytest.raises(UsageError, match=f"shrinkage={shrinkage}"):
            make(shrinkage=shrinkage)


@pytest.mark.parametrize("covariance", ["shared", "identity"])
def test_an_example_that_is_not_finite_is_left_out(covariance):
    learner, whole, new = make(covariance=covariance), batch(0), batch(2)
    broken = whole._replace(x=whole.x.at[3, 0, 1, 0].set(jnp.nan))
    rest = jax.tree.map(lambda leaf: jnp.delete(leaf, 3, axis=0), whole)
    found, expected = (learner.predict(taught(learner, one, batch(1)), new) for one in (broken, rest))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
