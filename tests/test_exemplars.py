"""iCaRL: targets, replay and answers by hand on a tiny network, nothing else leaks in; its answers for others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import exemplars, memory, recall
from neuroml.errors import UsageError
from neuroml.learner import Task, make_learner
from neuroml.streams.stream import Batch

NET = neuroml.mlp((3, 3, 1), [5], 4)
TASK = Task(NET, 1.0)
EXAMPLE = Batch(jnp.zeros((3, 3, 1)), jnp.int32(0), jnp.int32(0), jnp.ones(4, bool))


def batch(*labels, seed=0):
    x = jax.random.normal(jax.random.key(seed), (len(labels), 3, 3, 1))
    return Batch(x, jnp.array(labels), jnp.zeros(len(labels), int), jnp.ones((len(labels), 4), bool))


def make(**given):
    given = {"capacity": 8, "replay_batch": 2} | given
    return toy.compiled(exemplars.icarl(TASK, optax.sgd(0.1), EXAMPLE, 4, **given))


def gradient(loss, params):
    return jax.tree.map(lambda g: -0.1 * g, jax.grad(loss)(params))


def moved(before, after):
    return jax.tree.map(jnp.subtract, after.params, before.params)


def same(one, two):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), one, two)


def bce(params, data, targets, seen):
    logits = TASK.predict(params, data)[:, seen]
    p = jax.nn.sigmoid(logits)
    return -(targets * jnp.log(p) + (1 - targets) * jnp.log(1 - p)).mean()


def test_the_first_task_is_binary_cross_entropy_over_the_classes_seen():
    learner, data = make(), batch(0, 1, 1)
    start = learner.init(jax.random.key(0))
    after, info = learner.step(start, data, jax.random.key(1))
    loss = lambda params: bce(params, data, jax.nn.one_hot(data.y, 2), np.array([0, 1]))
    same(moved(start, after), gradient(loss, start.params))
    assert float(info.loss) == pytest.approx(float(loss(start.params)), rel=1e-4)


def test_known_classes_are_distilled_and_new_ones_are_taught():
    learner, data = make(strength=0.0), batch(2, 3, 2, seed=1)
    state, _ = learner.step(learner.init(jax.random.key(0)), batch(0, 1, 1), jax.random.key(1))
    state = learner.consolidate(state, data, jax.random.key(2))
    after, _ = learner.step(state, data, jax.random.key(3))
    old = jax.nn.sigmoid(TASK.predict(state.params, data))
    targets = jnp.where(jnp.arange(4) < 2, old, jax.nn.one_hot(data.y, 4))
    same(moved(state, after), gradient(lambda params: bce(params, data, targets, np.arange(4)), state.params))


def test_new_examples_distil_heads_that_are_switched_off_for_them():
    agent = make(strength=0.0)  # nothing is replayed
    state, _ = agent.step(agent.init(jax.random.key(0)), batch(0, 1, 0), jax.random.key(1))
    state = agent.consolidate(state, batch(0, 1), jax.random.key(2))
    shifted = jax.tree.map(lambda leaf: leaf + 0.5, state.opt_state.inner.teacher)
    other = state._replace(opt_state=state.opt_state._replace(inner=state.opt_state.inner._replace(teacher=shifted)))
    new = batch(2, 3, seed=1)
    new = new._replace(active=jnp.tile(jnp.arange(4) > 1, (2, 1)))  # task-incremental: only its own head answers
    one, two = (agent.step(s, new, jax.random.key(3))[0].params for s in (state, other))
    assert abs(one["head"]["kernel"] - two["head"]["kernel"])[:, :2].max() > 1e-4


def test_stored_examples_of_earlier_tasks_are_replayed_by_their_weight():
    first, data = batch(0, seed=5), batch(2, 3, seed=1)
    step = {}
    for strength in (0.0, 0.5):
        learner = make(strength=strength, herding=False)
        state, _ = learner.step(learner.init(jax.random.key(0)), first, jax.random.key(1))
        state = learner.consolidate(state, data, jax.random.key(2))
        step[strength] = moved(state, learner.step(state, data, jax.random.key(3))[0])
    old = jax.nn.sigmoid(TASK.predict(state.params, first))
    targets = jnp.where(jnp.arange(4) < 1, old, 0.0)[:, np.array([0, 2, 3])]  # class 1 has not been seen
    replay = gradient(lambda params: 0.5 * bce(params, first, targets, np.array([0, 2, 3])), state.params)
    same(jax.tree.map(jnp.subtract, step[0.5], step[0.0]), replay)


@pytest.mark.parametrize("normalized", [True, False])
def test_answers_are_the_nearest_means_of_stored_features(normalized):
    learner, data = make(normalized=normalized), batch(0, 0, 1, 1, 3)
    state, _ = learner.step(learner.init(jax.random.key(0)), data, jax.random.key(1))
    state = learner.settle(state)

    def features(x):
        found = np.asarray(TASK.capture(state.params, x)[1]["head"])
        return found / np.linalg.norm(found, axis=1, keepdims=True) if normalized else found

    means = np.stack([features(data)[np.asarray(data.y) == label].mean(0) for label in (0, 1, 3)])
    asked = batch(0, 0, 0, 0, 0, 0, seed=9)
    distance = ((features(asked)[:, None] - means) ** 2).sum(-1)
    answers = learner.predict(state, asked)
    np.testing.assert_allclose(answers[:, np.array([0, 1, 3])], -distance, rtol=1e-3, atol=1e-5)
    assert (answers[:, 2] < -1e8).all(), "a class that was never seen has answered"


def test_features_may_be_those_of_a_layer_by_its_path_and_an_unknown_one_is_named():
    learner = make(layer="layers/0", normalized=False)
    state, _ = learner.step(learner.init(jax.random.key(0)), batch(0, 1, 1), jax.random.key(1))
    np.testing.assert_allclose(learner.settle(state).opt_state.means[0], batch(0, 1, 1).x[0].ravel(), rtol=1e-5)
    with pytest.raises(UsageError, match="layer 'layers/1'. .*Known: head, layers/0"):
        make(layer="layers/1").init(jax.random.key(0))


# --- nearest_mean, for another learner ---


def answering(strength=0.0):
    """Returns experience replay that answers from its memory of 6 examples, and experience replay."""
    rule = neuroml.er(TASK.loss, EXAMPLE, memory.ring(6), batch_size=2, strength=strength)
    inner = make_learner(TASK, optax.chain(rule, optax.sgd(0.1)))
    find = lambda opt_state: opt_state[0].memory
    outer = exemplars.nearest_mean(inner, recall.of_trunk(TASK, "head"), find, EXAMPLE, 4)
    return toy.compiled(outer), toy.compiled(inner)


SHOWN = [batch(0, 2, 2, seed=1), batch(0, 0, 2, seed=2), batch(2, 0, 1, seed=3)]  # the ring holds the last two


def trained(learner):
    state = learner.init(jax.random.key(0))
    for number, data in enumerate(SHOWN):
        state, _ = learner.step(state, data, jax.random.key(number))
    return state


def test_any_learner_that_stores_examples_may_answer_by_them():
    learner, _ = answering()
    state, asked = learner.settle(trained(learner)), batch(0, 0, 0, 0, seed=9)
    hidden = lambda data: np.asarray(TASK.capture(state.params, data)[1]["head"])
    rows, labels = np.concatenate([hidden(data) for data in SHOWN[1:]]), np.array([0, 0, 2, 2, 0, 1])
    answers = np.asarray(learner.predict(state, asked))
    for label in range(3):
        mean = rows[labels == label].mean(0)
        np.testing.assert_allclose(answers[:, label], -((hidden(asked) - mean) ** 2).sum(1), rtol=1e-3, atol=1e-5)
    assert (answers[:, 3] < -1e8).all(), "a class of which nothing is stored has answered"
    without = learner.predict(state, asked._replace(active=asked.active.at[:, 0].set(False)))
    assert (without[:, 0] < -1e8).all() and jnp.array_equal(without[:, 1:], answers[:, 1:])


def test_it_learns_as_it_would_alone_and_settling_tells_it_nothing():
    learner, inner = answering(strength=1.0)
    state, alone = learner.settle(trained(learner)), trained(inner)
    jax.tree.map(np.testing.assert_array_equal, state.params, alone.params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state.inner, alone.opt_state)
    jax.tree.map(np.testing.assert_array_equal, learner.settle(state), state)


def test_the_means_are_those_of_the_weights_of_now():
    learner, _ = answering()
    state = learner.settle(trained(learner))
    louder = state._replace(params=jax.tree.map(lambda p: 2 * p, state.params))
    seen = lambda params: recall.of_trunk(TASK, "head")(params, SHOWN[-1])[-1]  # the only example of class 1
    for one in (state, louder):
        np.testing.assert_allclose(learner.settle(one).opt_state.means[1], seen(one.params), rtol=1e-5)
    assert jnp.abs(seen(louder.params) - seen(state.params)).max() > 0.1


# --- herding ---


def test_herding_is_the_greedy_choice_of_a_loop():
    rows = np.asarray(jax.random.normal(jax.random.key(0), (12, 3)))
    member = np.arange(12) % 3 != 0
    left, kept = set(np.flatnonzero(member)), []
    for _ in range(5):
        mean = lambda i: rows[[*kept, i]].mean(0)
        kept.append(min(left, key=lambda i: np.linalg.norm(rows[member].mean(0) - mean(i))))
        left.remove(kept[-1])
    assert exemplars.herd(jnp.asarray(rows), jnp.asarray(member), 5).tolist() == kept


def test_where_a_task_ends_its_exemplars_are_herded_and_those_of_others_stay():
    learner, shown = make(capacity=8), batch(0, 1, 1, 0, seed=4)
    state, _ = learner.step(learner.init(jax.random.key(0)), shown, jax.random.key(1))
    examples = batch(1, 1, 1, 3, 1, seed=5)  # four of class 1, one of class 3
    state = learner.consolidate(state, examples, jax.random.key(2))
    kept = state.opt_state.inner.memory
    features = recall.directions(recall.of_trunk(TASK, "head"))(state.params, examples)
    best = exemplars.herd(features, examples.y == 1, 2)
    np.testing.assert_array_equal(kept.items.x[2:4], examples.x[best])
    np.testing.assert_array_equal(kept.items.x[6], examples.x[3])
    assert memory.stored(kept).tolist() == [True] * 4 + [False, False, True, False] and memory.older(kept)[2:4].all()
    np.testing.assert_array_equal(np.sort(kept.items.x[:2].ravel()), np.sort(shown.x[jnp.array([0, 3])].ravel()))


def test_what_is_destroyed_loses_its_moments_and_the_teacher_stays():
    agent = toy.compiled(exemplars.icarl(TASK, optax.adam(0.1), EXAMPLE, 4, capacity=8, replay_batch=2))
    state, _ = agent.step(agent.init(jax.random.key(0)), batch(0, 1), jax.random.key(1))
    after = agent.destroy(state, jax.tree.map(lambda leaf: jnp.ones_like(leaf, bool), state.params))
    own = after.opt_state.inner
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves((after.params, own.inner[0].mu, own.inner[0].nu)))
    same(own.teacher, state.opt_state.inner.teacher)


def test_an_example_that_is_not_finite_is_no_exemplar():
    learner, examples = make(capacity=8), batch(0, 1, 1, 1, 0)
    state, _ = learner.step(learner.init(jax.random.key(0)), examples, jax.random.key(1))
    broken = examples._replace(x=examples.x.at[2, 0, 0, 0].set(jnp.nan))
    kept = learner.consolidate(state, broken, jax.random.key(2)).opt_state.inner.memory
    rest = jax.tree.map(lambda leaf: jnp.delete(leaf, 2, axis=0), examples)
    whole = learner.consolidate(state, rest, jax.random.key(2)).opt_state.inner.memory
    np.testing.assert_allclose(kept.items.x, whole.items.x)
    assert jnp.isfinite(kept.items.x).all() and memory.stored(kept)[:4].all()


def test_a_label_that_is_no_class_is_not_seen():
    learner = make()
    state, _ = learner.step(learner.init(jax.random.key(0)), batch(-1, 1), jax.random.key(1))
    assert state.opt_state.inner.seen.tolist() == [False, True, False, False]
