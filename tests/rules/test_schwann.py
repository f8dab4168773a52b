"""Schwann cells' repair state: against a plain loop, what loosens, and that a destroyed neuron comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import neuroml

NAMES = {
    "a": {"kernel": ("pixel", "first"), "bias": ("first",)},
    "b": {"kernel": ("first", "answer"), "bias": ("answer",)},
}


def network(key):
    keys = iter(jax.random.split(key, 4))
    layer = lambda *shape: {
        "kernel": jax.random.normal(next(keys), shape),
        "bias": jax.random.normal(next(keys), shape[1:]),
    }
    return {"a": layer(3, 4), "b": layer(4, 2)}


START = network(jax.random.key(0))
STILL = jax.tree.map(jnp.zeros_like, START)
answering = lambda *loud: {"a": jnp.ones((1, 3)), "b": jnp.array([loud], jnp.float32)}


def pulled(step, old, goal, J):
    mixed = (1 + 1.5 * J) * ((1 - J) * 0.25 * step + J * step)
    return (1 - 0.2 * J) * mixed + 0.2 * J * (goal - old)


def test_thirty_steps_are_those_of_a_plain_loop():
    own = {"threshold": 0.5, "rate": 0.2, "gain": 1.5, "rise": 0.3, "recovery": 0.1, "decay": 0.8}
    tx = neuroml.schwann(NAMES, 0.9, protected=optax.scale(0.25), **own)
    params, state = jax.tree.map(lambda leaf: leaf + 1.0, START), tx.init(START)
    w, start = (jax.tree.map(lambda leaf: np.array(leaf, np.float64), tree) for tree in (params, START))
    draw = np.random.default_rng(0)
    answer, injury = np.zeros(4), np.zeros(4)
    step = jax.jit(tx.update)
    for t in range(30):
        loud = np.abs(draw.normal(size=(5, 4))) * (0.01 if t % 3 else 1.0) ** np.arange(4)
        updates = network(jax.random.fold_in(jax.random.key(1), t))
        given, state = step(
            updates, state, params, activity={"a": jnp.ones((5, 3)), "b": jnp.asarray(loud, jnp.float32)}
        )
        params = optax.apply_updates(params, given)

        answer += max(0.2, 1 / (t + 1)) * (loud.mean(0) - answer)
        hurt = answer < 0.5 * answer.mean()
        injury = np.where(hurt, injury + 0.3 * (1 - injury), 0.9 * injury)
        felt = 0.9 * injury
        u = jax.tree.map(lambda leaf: np.array(leaf, np.float64), updates)
        w["a"]["kernel"] += pulled(u["a"]["kernel"], w["a"]["kernel"], start["a"]["kernel"], felt)
        w["a"]["bias"] += pulled(u["a"]["bias"], w["a"]["bias"], start["a"]["bias"], felt)
        w["b"]["kernel"] += pulled(u["b"]["kernel"], w["b"]["kernel"], 0.0, felt[:, None])
        w["b"]["bias"] += 0.25 * u["b"]["bias"]
    assert 0.1 < injury.max() and injury.min() < 0.5 and len(set(injury.round(3))) > 1
    np.testing.assert_allclose(state.injury["first"], injury, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), params, w)


def test_only_hurt_neurons_escape_the_rule_that_protects():
    tx = neuroml.schwann(NAMES, protected=optax.set_to_zero(), rise=1.0, rate=0.0, gain=0.0)
    ones = jax.tree.map(jnp.ones_like, START)
    step, _ = tx.update(ones, tx.init(START), START, activity=answering(1, 0, 1, 1))
    np.testing.assert_array_equal(step["a"]["kernel"], np.tile([0, 1, 0, 0], (3, 1)))
    np.testing.assert_array_equal(step["b"]["kernel"], np.tile([[0], [1], [0], [0]], (1, 2)))
    assert not step["b"]["bias"].any()


def test_a_destroyed_neuron_comes_back_to_its_start_and_recovers():
    tx = neuroml.schwann(NAMES)
    dead = {"first": jnp.array([1.0, 0.0, 1.0, 1.0])}
    params = jax.tree.map(jnp.multiply, START, neuroml.wiring.spread(dead, NAMES, START))
    state, x, worst = tx.init(START), jax.random.normal(jax.random.key(2), (50, 3)), 0.0
    for _ in range(400):
        first = jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"])
        step, state = tx.update(STILL, state, params, activity={"a": x, "b": first})
        params, worst = optax.apply_updates(params, step), max(worst, float(state.injury["first"][1]))
    np.testing.assert_allclose(params["a"]["kernel"][:, 1], START["a"]["kernel"][:, 1], rtol=0.5)
    assert worst > 0.15 and float(state.injury["first"][1]) < 0.05
    np.testing.assert_array_equal(params["a"]["kernel"][:, 0], START["a"]["kernel"][:, 0])


def test_the_control_gives_the_injury_to_another_neuron():
    activity = answering(1, 1, 0, 1)
    ones = jax.tree.map(jnp.ones_like, START)
    changed = []
    for shuffled in (False, True):
        tx = neuroml.schwann(NAMES, protected=optax.set_to_zero(), rise=1.0, rate=0.0, shuffled=shuffled)
        step, state = tx.update(ones, tx.init(START), START, activity=activity)
        changed.append(np.flatnonzero(np.asarray(step["a"]["kernel"]).any(0)).tolist())
        assert state.injury["first"].tolist() == [0, 0, 1, 0]
    assert changed[0] == [2] and len(changed[1]) == 1 and changed[1] != [2]


def test_what_it_protects_consolidates_and_reports():
    tx = neuroml.schwann(NAMES, protected=neuroml.ewc(strength=10.0, step_size=0.1))
    importance = jax.tree.map(jnp.ones_like, START)
    state = neuroml.consolidate(tx.init(START), START, importance=importance)
    away = jax.tree.map(lambda leaf: leaf + 1.0, START)
    step, _ = tx.update(STILL, state, away, activity=answering(1, 1, 1, 1))
    np.testing.assert_allclose(step["a"]["kernel"], -0.5, rtol=1e-5)  # back: half the way, as 0.1 * 10 is 1
    assert 0 < neuroml.penalty(state, optax.apply_updates(away, step)) < neuroml.penalty(state, away)
    assert "injury" in neuroml.core.report(state)
