"""Generators: bounds and estimates against sums over a grid, replay by hand, and classes that never meet."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import losses
from neuroml.autoencoder import autoencoder
from neuroml.errors import UsageError
from neuroml.generative_classifier import generative_classifier
from neuroml.generative_replay import generative_replay
from neuroml.learner import Task
from neuroml.streams.stream import Batch

SHAPE, OUTPUTS = (2, 2, 1), 4
MODEL = autoencoder(SHAPE, [6], 1)
TASK = Task(neuroml.mlp(SHAPE, [8], OUTPUTS), 2.0)


def batch(*labels, task=0, active=None, seed=0):
    x = 2 * jax.random.uniform(jax.random.key(seed), (len(labels), *SHAPE))
    active = jnp.ones(OUTPUTS, bool) if active is None else jnp.isin(jnp.arange(OUTPUTS), jnp.array(active))
    return Batch(x, jnp.array(labels), jnp.full(len(labels), task), jnp.tile(active, (len(labels), 1)))


def brute_force(params, x):
    """log p(x), by a sum over a fine grid of the one latent variable."""
    grid = jnp.linspace(-8, 8, 4001)
    decoder = neuroml.mlp(1, [6], 4, initialization="torch")
    logits = decoder.apply(params["decoder"], {}, grid[:, None])[0]
    given = -optax.sigmoid_binary_cross_entropy(logits[None], x.reshape(-1, 1, 4)).sum(-1)
    prior = jax.scipy.stats.norm.logpdf(grid)
    return jax.nn.logsumexp(given + prior, axis=1) + jnp.log(grid[1] - grid[0])


def test_the_likelihood_is_that_of_a_sum_over_the_latent_variable_and_the_loss_bounds_it():
    params = MODEL.init(jax.random.key(1))
    params["decoder"] = jax.tree.map(lambda leaf: 2 * leaf, params["decoder"])
    params["encoder"]["head"]["bias"] = jnp.array([0.3, 0.2])  # mean and log variance, not far from the prior's
    x, exact = batch(0, 0, 0).x / 2, brute_force(params, batch(0, 0, 0).x / 2)
    estimate = MODEL.log_likelihood(params, x, jax.random.key(2), 4000)
    np.testing.assert_allclose(estimate, exact, atol=0.02)
    keys = jax.random.split(jax.random.key(3), 500)
    bound = -jax.lax.map(lambda key: MODEL.loss(params, x, key), keys).mean(0)
    assert (bound < exact + 0.02).all() and (bound > exact - 3).all()


def test_training_makes_samples_like_the_examples():
    x = jnp.tile(jnp.array([1.0, 0.0, 1.0, 0.0]).reshape(1, *SHAPE), (16, 1, 1, 1))
    params, tx = MODEL.init(jax.random.key(0)), optax.adam(0.05)
    state = tx.init(params)

    @jax.jit
    def step(params, state, key):
        updates, state = tx.update(jax.grad(lambda p: MODEL.loss(p, x, key).mean())(params), state)
        return optax.apply_updates(params, updates), state

    for i in range(150):
        params, state = step(params, state, jax.random.key(i))
    drawn = MODEL.sample(params, 50, jax.random.key(9))
    assert drawn.shape == (50, *SHAPE)
    np.testing.assert_allclose(drawn.mean(0).ravel(), [1, 0, 1, 0], atol=0.05)


def replay(**given):
    return toy.compiled(generative_replay(TASK, optax.sgd(0.1), MODEL, OUTPUTS, 2, **given))


def test_the_first_task_is_plain_learning_beside_a_generator():
    learner, data = replay(), batch(0, 1, 1)
    start = learner.init(jax.random.key(0))
    after, info = learner.step(start, data, jax.random.key(1))
    loss, grads = jax.value_and_grad(TASK.loss)(start.params, data)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.params, expected)
    assert float(info.loss) == pytest.approx(float(loss), rel=1e-5)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.opt_state.generator, start.opt_state.generator)
    assert all(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, after.opt_state.dreamer, start.opt_state.dreamer)


@pytest.mark.parametrize("distills", [False, True])
def test_dreams_of_the_second_task_are_those_of_the_first_and_taught_as_its_network_says(distills):
    """A generator that always dreams the same leaves nothing to chance; heads of the first task answer."""
    always = jnp.array([0.9, 0.1, 0.6, 0.3]).reshape(SHAPE)
    model = MODEL._replace(sample=lambda params, n, key: jnp.tile(always, (n, 1, 1, 1)))
    learner = toy.compiled(generative_replay(TASK, optax.sgd(0.1), model, OUTPUTS, 2, distills=distills))
    state, _ = learner.step(learner.init(jax.random.key(0)), batch(0, 1, active=[0, 1]), jax.random.key(1))
    state = learner.consolidate(state, batch(0, 1), jax.random.key(2))
    data = batch(2, 3, 2, task=1, active=[2, 3])
    after, _ = learner.step(state, data, jax.random.key(3))

    def loss(params):
        ask = lambda weights: TASK.network.apply(weights, {}, always[None])[0][:, :2]
        taught, said = ask(state.params), ask(params)
        hard = losses.cross_entropy(said, taught.argmax(1))
        soft = -4 * (jax.nn.softmax(taught / 2) * jax.nn.log_softmax(said / 2)).sum()
        return 0.5 * TASK.loss(params, data) + 0.5 * (soft if distills else hard)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, jax.grad(loss)(state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state.teacher, state.params)


def test_a_class_changes_nothing_of_another_and_the_likeliest_answers():
    learner = toy.compiled(generative_classifier(MODEL, optax.adam(0.05), OUTPUTS, scale=1.0, samples=20))
    one, other = (jnp.tile(jnp.array(row).reshape(1, *SHAPE), (8, 1, 1, 1)) for row in ([1.0, 1, 0, 0], [0.0, 0, 1, 1]))
    shown = lambda x, label: batch(*[label] * 8)._replace(x=x)
    state = learner.init(jax.random.key(0))
    for i in range(60):
        state, _ = learner.step(state, shown(one, 0), jax.random.key(i))
    before = jax.tree.map(lambda leaf: leaf[0], (state.params, state.opt_state.inner))
    for i in range(60):
        state, info = learner.step(state, shown(other, 2), jax.random.key(i))
    jax.tree.map(
        lambda old, new: np.testing.assert_array_equal(old, new[0]), before, (state.params, state.opt_state.inner)
    )
    assert np.isfinite(info.loss) and np.isnan(info.accuracy)
    both = shown(jnp.concatenate([one, other]), 0)._replace(active=jnp.ones((16, OUTPUTS), bool))
    answers = learner.predict(state, both)
    assert answers.argmax(1).tolist() == [0] * 8 + [2] * 8
    assert (answers[:, [1, 3]] < -1e8).all(), "a class that was never met answered"


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="latent=0"):
        autoencoder(SHAPE, [6], 0)
    with pytest.raises(UsageError, match="samples=0"):
        generative_classifier(MODEL, optax.sgd(0.1), OUTPUTS, scale=1.0, samples=0)
    with pytest.raises(UsageError, match="temperature=0.0"):
        replay(temperature=0.0)
