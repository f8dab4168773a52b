"""A conditioned learner is its inner learner on inputs normalized by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import adaptation
from neuroml.conditioned import conditioned
from neuroml.learner import Task, make_learner
from neuroml.methods import methods
from neuroml.streams.stream import Batch

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("conditioned")

NETWORK = neuroml.mlp((4, 4, 1), [6], 3)
NORM = adaptation.make(0.9)


def batches(steps):
    random = np.random.default_rng(0)
    for _ in range(steps):
        x = random.integers(0, 256, (5, 4, 4, 1)).astype(np.uint8)
        yield jax.tree.map(jnp.asarray, Batch(x, random.integers(0, 3, 5), np.zeros(5, int), np.ones((5, 3), bool)))


def test_steps_and_answers_are_those_of_the_inner_learner_on_normalized_inputs():
    inner = toy.compiled(make_learner(Task(NETWORK, 1.0), optax.sgd(0.1)))
    example = jax.tree.map(lambda leaf: leaf[0], next(batches(1)))
    outer, key = toy.compiled(conditioned(inner, NORM, example, 255.0)), jax.random.key(0)
    state, by_hand, inputs = outer.init(key), inner.init(key), NORM.init((4, 4, 1))
    for batch in batches(4):
        state, info = outer.step(state, batch, key)
        inputs = NORM.update(inputs, batch.x / 255.0)
        seen = batch._replace(x=NORM.apply(inputs, batch.x / 255.0))
        by_hand, expected = inner.step(by_hand, seen, key)
        np.testing.assert_allclose(info.loss, expected.loss, rtol=1e-5)
    same = lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, state.params, by_hand.params)
    answer = outer.predict(state, batch)
    same(answer, inner.predict(by_hand, seen))
    assert outer.inspect(state, batch).keys() == inner.inspect(by_hand, seen).keys() != set()


def test_what_consolidates_is_given_normalized_examples():
    shown = []
    plain = make_learner(Task(NETWORK, 1.0), optax.sgd(0.1))
    inner = plain._replace(consolidate=lambda state, examples, key: (shown.append(examples.x), state)[1])
    (batch,) = batches(1)
    outer = conditioned(inner, NORM, jax.tree.map(lambda leaf: leaf[0], batch), 255.0)
    state, _ = outer.step(outer.init(jax.random.key(0)), batch, jax.random.key(1))
    outer.consolidate(state, batch, jax.random.key(2))
    np.testing.assert_allclose(shown[0], NORM.apply(state.opt_state.inputs, batch.x / 255.0), rtol=1e-6)


@pytest.mark.parametrize("method", ["er", "random_ridge"])
def test_any_method_runs_on_conditioned_inputs_and_is_changed_by_them(method):
    settings = {"epochs": 1, "options": {"width": 8, "held_back": 8}} if method == "random_ridge" else {"epochs": 1}
    options = settings.pop("options", {})
    plain = toy.experiment(method, tasks=2, **settings) if not options else None
    seen = neuroml.Experiment(
        methods[method],
        lambda shape, outputs: neuroml.mlp(shape, (6,), outputs),
        neuroml.streams.scenarios.split(2, "class"),
        batch_size=4,
        epochs=1,
        samples=8,
        options=options,
        conditioning=NORM,
    )
    settings = {"seeds": [0], "hyperparameters": {"learning_rate": 0.1}}
    result = neuroml.run(seen, toy.dataset(), **settings)
    assert np.isfinite(result.accuracy).all() and (result.diverged == -1).all()
    if plain is not None:
        before = neuroml.run(plain, toy.dataset(), **settings)
        assert not np.array_equal(before.loss, result.loss, equal_nan=True)
        assert result.bytes > before.bytes  # the statistics are charged


def test_homeostasis_brings_its_own_and_is_not_conditioned_twice():
    def loss(conditioning, adapts=True):
        one = neuroml.Experiment(
            methods["homeostasis"],
            lambda shape, outputs: neuroml.mlp(shape, (6,), outputs),
            neuroml.streams.scenarios.permuted(2),
            batch_size=4,
            epochs=1,
            conditioning=conditioning,
            options={"adapts": adapts},
        )
        return neuroml.run(one, toy.dataset(), seeds=[0], hyperparameters={"learning_rate": 0.1}).loss

    np.testing.assert_array_equal(loss(None), loss(NORM))
    assert not np.array_equal(loss(None, adapts=False), loss(NORM, adapts=False), equal_nan=True)


def test_vital_signs_are_taken_after_each_task():
    one = toy.experiment("naive", tasks=3, epochs=1, inspected=8)
    report = neuroml.run(one, toy.dataset(), seeds=[0, 1], hyperparameters={"learning_rate": 1e-3}).report
    assert report["effective rank"].shape == (2, 3) and (report["effective rank"] > 0).all()
    assert (report["dormant units"] >= report["dead units"]).all()
