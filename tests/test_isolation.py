"""HAT and PackNet: masks and prunings by hand, and answers to a task that is over never change again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import losses
from neuroml.errors import UsageError
from neuroml.hard_attention import hard_attention
from neuroml.learner import Task
from neuroml.packnet import packnet
from neuroml.streams.stream import Batch

NET = neuroml.mlp((3, 3, 1), [30, 20], 4)
TASK = Task(NET, 1.0)


def batch(task, n=6, seed=0):
    x = jax.random.normal(jax.random.key(10 * task + seed), (n, 3, 3, 1))
    active = jnp.arange(4) // 2 == task
    return Batch(x, jnp.arange(n) % 2 + 2 * task, jnp.full(n, task), jnp.tile(active, (n, 1)))


def taught(learner, state, task, steps=30):
    for i in range(steps):
        state, info = learner.step(state, batch(task, seed=i % 3), jax.random.key(i))
    return state, info


def test_embeddings_are_drawn_apart_from_the_weights():
    state = hard_attention(TASK, optax.adam(0.02), 4, ramp=10).init(jax.random.key(0))
    kernels = [leaf.ravel() for leaf in jax.tree.leaves(state.params) if leaf.ndim == 2]
    for rows in jax.tree.leaves(state.opt_state.embeddings):
        for leaf in kernels:
            size = min(rows.size, leaf.size)
            alike = np.corrcoef(rows.ravel()[:size], leaf[:size])[0, 1]
            assert size < 20 or abs(alike) < 0.7


LEARNERS = {
    "hat": toy.compiled(hard_attention(TASK, optax.adam(0.02), 2, ramp=10)),
    "packnet": toy.compiled(packnet(TASK, optax.adam(0.02), dense_steps=15)),
    "packnet, never retrained": toy.compiled(packnet(TASK, optax.adam(0.02), dense_steps=1000)),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_what_a_task_answers_is_fixed_when_it_is_over_and_the_next_still_learns(name):
    learner = LEARNERS[name]
    state, _ = taught(learner, learner.init(jax.random.key(0)), 0)
    state = learner.consolidate(state, batch(0), jax.random.key(1))
    before = learner.predict(state, batch(0))
    start = losses.cross_entropy(learner.predict(state, batch(1)), batch(1).y)
    state, info = taught(learner, state, 1, steps=60)
    assert float(info.loss) < 0.8 * float(start), "the second task learnt nothing"
    state = learner.consolidate(state, batch(1), jax.random.key(2))
    # A mask of HAT is never quite 1 nor 0, so what it holds gives a little.
    np.testing.assert_allclose(learner.predict(state, batch(0)), before, atol=0.02 if name == "hat" else 1e-6)


def test_a_mask_multiplies_what_a_neuron_hands_on():
    learner = LEARNERS["hat"]
    state = learner.init(jax.random.key(0))
    first, second = (jax.nn.sigmoid(400 * state.opt_state.embeddings[f"hidden_{i}"][1]) for i in range(2))
    dense = lambda x, layer: x @ layer["kernel"] + layer["bias"]
    x = jax.nn.relu(dense(batch(1).x.reshape(6, -1), state.params["layers"][0])) * first
    x = jax.nn.relu(dense(x, state.params["layers"][1])) * second
    expected = losses.mask_outputs(dense(x, state.params["head"]), batch(1).active)
    np.testing.assert_allclose(learner.predict(state, batch(1)), expected, rtol=1e-5, atol=1e-6)


def test_a_step_of_hat_is_that_of_its_loss_with_slopes_made_steeper_and_used_weights_held():
    """By finite formulas at s = 1 / sharpness + (sharpness - 1 / sharpness) / 2, the middle of a ramp of three."""
    sharpness, thrift = 4.0, 0.5
    learner = hard_attention(TASK, optax.sgd(0.1), 2, ramp=3, sharpness=sharpness, thrift=thrift)
    learner = toy.compiled(learner)
    state = learner.init(jax.random.key(0))
    used = {"hidden_0": jnp.linspace(0, 1, 30), "hidden_1": jnp.linspace(1, 0, 20)}
    state = state._replace(opt_state=state.opt_state._replace(used=used, count=jnp.int32(1)))
    s = 1 / sharpness + (sharpness - 1 / sharpness) / 2

    def loss(params, embeddings):
        gates = {name: jax.nn.sigmoid(s * rows[0]) for name, rows in embeddings.items()}
        scaled = {
            "layers": {0: params["layers"][0], 1: dict(params["layers"][1])},
            "head": dict(params["head"]),
        }
        scaled["layers"][1]["kernel"] = gates["hidden_0"][:, None] * params["layers"][1]["kernel"]
        scaled["head"]["kernel"] = gates["hidden_1"][:, None] * params["head"]["kernel"]
        taken = sum((gates[name] * (1 - used[name])).sum() for name in used) / sum((1 - u).sum() for u in used.values())
        return TASK.loss(scaled, batch(0)) + thrift * taken

    grads, slopes = jax.grad(loss, (0, 1))(state.params, state.opt_state.embeddings)
    after, _ = learner.step(state, batch(0), jax.random.key(0))
    at = state.opt_state.embeddings["hidden_0"]
    steeper = sharpness * (jnp.cosh(s * at) + 1) / (s * (jnp.cosh(at) + 1))
    expected = at - 0.1 * steeper * slopes["hidden_0"]
    np.testing.assert_allclose(after.opt_state.embeddings["hidden_0"], expected, rtol=1e-4, atol=1e-6)
    hold = 1 - jnp.minimum(used["hidden_0"][:, None], used["hidden_1"])
    moved = after.params["layers"][1]["kernel"] - state.params["layers"][1]["kernel"]
    np.testing.assert_allclose(moved, -0.1 * hold * grads["layers"][1]["kernel"], rtol=1e-4, atol=1e-7)
    for name, slope in grads["head"].items():  # however used the neurons are that it reads
        assert abs(slope).max() > 0
        np.testing.assert_allclose(
            after.params["head"][name] - state.params["head"][name], -0.1 * slope, rtol=1e-3, atol=1e-7
        )


def test_packnet_keeps_the_largest_of_what_is_free():
    learner = toy.compiled(packnet(TASK, optax.sgd(0.0), dense_steps=1, pruned=0.75))
    state, _ = taught(learner, learner.init(jax.random.key(0)), 0, steps=2)
    start = learner.init(jax.random.key(0)).params["layers"][0]["kernel"]
    owner = state.opt_state.owner["layers"][0]["kernel"]
    kept = np.sort(np.abs(start).ravel())[-(start.size - round(0.75 * start.size)) :]
    np.testing.assert_array_equal(owner == 1, np.isin(np.abs(start), kept))
    np.testing.assert_array_equal(state.params["layers"][0]["kernel"], jnp.where(owner == 1, start, 0))
    state = learner.consolidate(state, batch(0), jax.random.key(1))
    state, _ = taught(learner, state, 1, steps=2)
    later = state.opt_state.owner["layers"][0]["kernel"]
    np.testing.assert_array_equal(later == 1, owner == 1)
    free = start.size - round(0.25 * start.size)
    assert int((later == 2).sum()) == free - round(0.75 * free)  # weights of zero are all alike, but not all are taken


def test_each_task_leaves_packnet_its_share_however_many_weights_are_zero():
    """Six of nine pixels are dead: what they feed restarts at zero and stays there."""
    learner = toy.compiled(packnet(TASK, optax.sgd(0.1), dense_steps=2))
    state, dead = learner.init(jax.random.key(0)), jnp.arange(9).reshape(3, 3, 1) < 6
    free = state.params["layers"][0]["kernel"].size
    for number in range(4):
        data = batch(number % 2)._replace(task=jnp.full(6, number))
        for i in range(4):
            state, _ = learner.step(state, data._replace(x=jnp.where(dead, 0, data.x)), jax.random.key(i))
        state = learner.consolidate(state, data, jax.random.key(number))
        free = round(0.5 * free)
        assert int((state.opt_state.owner["layers"][0]["kernel"] == 0).sum()) == free
    assert float(learner.report(state)["free weights"]) == pytest.approx(0.0625, abs=0.002)


def test_weight_decay_moves_neither_embeddings_nor_outputs_of_another_task():
    learner = toy.compiled(hard_attention(TASK, optax.adamw(0.02, weight_decay=1.0), 2, ramp=5))
    state, _ = taught(learner, learner.init(jax.random.key(0)), 0, steps=5)
    state = learner.consolidate(state, batch(0), jax.random.key(1))
    after, _ = taught(learner, state, 1, steps=5)
    changed = lambda old, new: np.asarray(old != new)
    for name, rows in state.opt_state.embeddings.items():
        assert changed(rows, after.opt_state.embeddings[name]).any(1).tolist() == [False, True]
    moved = changed(state.params["head"]["kernel"], after.params["head"]["kernel"]).any(0)
    assert moved.tolist() == [False, False, True, True]
    assert changed(state.params["head"]["bias"], after.params["head"]["bias"])[:2].tolist() == [False, False]


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="ramp=0"):
        hard_attention(TASK, optax.sgd(0.1), 2, ramp=0)
    with pytest.raises(UsageError, match="pruned=1.0"):
        packnet(TASK, optax.sgd(0.1), dense_steps=1, pruned=1.0)
    bare = TASK._replace(network=NET._replace(wiring=None))
    with pytest.raises(UsageError, match="no wiring"):
        hard_attention(bare, optax.sgd(0.1), 2, ramp=1).init(jax.random.key(0))
    with pytest.raises(UsageError, match="none beside its 'head'"):
        packnet(Task(neuroml.mlp((3, 3, 1), [], 4), 1.0), optax.sgd(0.1), dense_steps=1).init(jax.random.key(0))
    with pytest.raises(UsageError, match="'haed'. Did you mean 'head'"):
        packnet(TASK, optax.sgd(0.1), dense_steps=1, head="haed").init(jax.random.key(0))


def test_a_ramp_of_one_step_is_as_sharp_as_the_answer():
    learner = toy.compiled(hard_attention(TASK, optax.sgd(0.1), 2, ramp=1, sharpness=50.0))
    state = learner.init(jax.random.key(0))
    _, info = learner.step(state, batch(0), jax.random.key(1))
    np.testing.assert_allclose(info.loss, losses.cross_entropy(learner.predict(state, batch(0)), batch(0).y), rtol=1e-5)
