"""One pure step: the same in a loop of one's own as in a compiled experiment."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from flax import linen, nnx

import neuroml
from neuroml import condensate, contexts, learner, recall
from neuroml.discriminant import discriminant
from neuroml.errors import UsageError
from neuroml.streams.stream import Batch

DATA = toy.dataset()


def batch_of(n=4, outputs=6, active=None):
    images = jnp.asarray(DATA.train_x[:n])
    active = jnp.ones((n, outputs), bool) if active is None else active
    return Batch(images, jnp.asarray(DATA.train_y[:n]), jnp.zeros(n, jnp.int32), active)


def task_of(hidden=(6,)):
    return learner.Task(neuroml.mlp(DATA.shape, hidden, 6), DATA.scale)


def test_a_host_loop_gives_the_weights_of_the_compiled_experiment():
    experiment = toy.experiment("everything")
    compiled, _ = toy.whole(experiment)(jax.random.key(toy.SEED), toy.numbers_of(experiment), DATA)
    by_hand = toy.trained_by_hand(experiment, toy.SEED).state
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), by_hand, compiled)


def test_a_step_is_a_plain_optax_step_and_reports_from_before_it():
    task = task_of()
    agent = learner.make_learner(task, optax.sgd(0.1))
    state, batch = agent.init(jax.random.key(0)), batch_of()
    after, info = jax.jit(agent.step)(state, batch, jax.random.key(1))
    logits, _ = task.network.apply(state.params, {}, batch.x / 255)
    own = lambda logits: -jax.nn.log_softmax(logits)[jnp.arange(4), batch.y].mean()
    grads = jax.jit(jax.grad(lambda params: own(task.network.apply(params, {}, batch.x / 255)[0])))(state.params)
    wanted = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.params, wanted)
    np.testing.assert_allclose(info.loss, own(logits), rtol=1e-5)
    assert info.accuracy == (np.argmax(logits, 1) == batch.y).mean()


def test_outputs_that_are_off_neither_answer_nor_learn():
    task = task_of()
    agent = learner.make_learner(task, optax.sgd(0.1))
    state, batch = agent.init(jax.random.key(0)), batch_of()
    on = jnp.zeros((4, 6), bool).at[jnp.arange(4), batch.y].set(True)
    after, info = agent.step(state, batch._replace(active=on), jax.random.key(1))
    assert (info.loss, info.accuracy) == (0, 1)  # only the right answer is left
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_rules_are_given_every_word():
    given = {}

    def update(updates, state, params, **words):
        given.update(words, params=params)
        return updates, state

    class Listener(tuple):
        consolidate = lambda self, params, **words: (given.update(words), self)[1]

    state = Listener()
    jax.tree_util.register_pytree_node(Listener, lambda node: ((), None), lambda *_: state)
    rule = optax.GradientTransformationExtraArgs(lambda params: state, update)
    importance = lambda predict, params, examples, key: predict(params, examples).sum()
    agent = learner.make_learner(task_of(), optax.chain(rule, optax.sgd(0.1)), importance)
    start, batch, key = agent.init(jax.random.key(0)), batch_of(), jax.random.key(1)
    _, info = agent.step(start, batch, key)
    assert given["batch"] is batch and given["key"] is key and given["task"] is batch.task
    assert given["value"] == info.loss and given["params"] is start.params
    np.testing.assert_allclose(given["outputs"], task_of().predict(start.params, batch), rtol=1e-5)

    given.clear()
    agent.consolidate(start, batch, key)
    assert given["data"] is batch and given["key"] is key
    np.testing.assert_allclose(given["importance"], task_of().predict(start.params, batch).sum(), rtol=1e-5)


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.head = nnx.BatchNorm(16, rngs=rngs), nnx.Linear(16, 6, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(x.reshape(x.shape[0], -1)))


class LinenNormed(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        return linen.Dense(6)(linen.BatchNorm(use_running_average=False)(x))


class Dropped(nnx.Module):
    def __init__(self, rngs):
        self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(16, 6, rngs=rngs)


@pytest.mark.parametrize(
    "network",
    [
        neuroml.from_nnx(lambda rngs: Normed(rngs)),
        neuroml.from_linen(LinenNormed(), jnp.ones((1, 4, 4, 1))),
        neuroml.from_nnx(lambda rngs: Dropped(rngs)),
    ],
    ids=["nnx BatchNorm", "linen BatchNorm", "Dropout"],
)
def test_a_network_with_a_state_of_its_own_is_refused(network):
    agent = learner.make_learner(learner.Task(network, 255.0), optax.sgd(0.1))
    with pytest.raises(UsageError, match="BatchNorm.*LayerNorm or GroupNorm"):
        agent.init(jax.random.key(0))


def test_layer_norm_is_welcome():
    network = neuroml.from_nnx(lambda rngs: nnx.Sequential(nnx.LayerNorm(1, rngs=rngs), nnx.Linear(1, 6, rngs=rngs)))
    learner.make_learner(learner.Task(network, 255.0), optax.sgd(0.1)).init(jax.random.key(0))


MOMENTUM = optax.sgd(0.1, momentum=0.9)
BY_LAYER = {"layers": {0: "body"}, "head": "head"}
TRANSFORMS = {
    "plain": MOMENTUM,
    "masked": optax.masked(MOMENTUM, {"layers": {0: True}, "head": False}),
    "partition": optax.partition({"body": MOMENTUM, "head": optax.adam(0.1)}, BY_LAYER),
}


def around(kind, task):
    """A learner that trains another one inside."""
    inner, head = learner.make_learner(task, MOMENTUM), recall.of_trunk(task, "head")
    return {
        "recall": lambda: recall.recall(inner, head, condensate.make(6, 6), 6),
        "discriminant": lambda: discriminant(inner, head, 6, 6),
        "gated": lambda: contexts.gated(task, MOMENTUM, 2, 0.3),
    }[kind]()


def moments(state):
    """The sizes of all moments, which are in dictionaries like the weights."""
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    return [float(jnp.abs(leaf).sum()) for path, leaf in leaves if ".trace" in jax.tree_util.keystr(path)]


@pytest.mark.parametrize("kind", [*TRANSFORMS, "recall", "discriminant", "gated"])
def test_to_destroy_clears_moments_in_every_part_and_inside(kind):
    task = task_of()
    agent = learner.make_learner(task, TRANSFORMS[kind]) if kind in TRANSFORMS else around(kind, task)
    state, _ = agent.step(agent.init(jax.random.key(0)), batch_of(), jax.random.key(1))
    none, everything = (
        jax.tree.map(lambda leaf, to=to: jnp.full(leaf.shape, to), state.params) for to in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, agent.destroy(state, none), state)
    after = agent.destroy(state, everything)
    assert any(moments(state)) and not any(moments(after))
    assert not any(leaf.any() for leaf in jax.tree.leaves(after.params))
