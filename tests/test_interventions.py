"""Interventions: what a lesion destroys and what it leaves, clamps that let go, recordings, and all together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from flax import nnx

import neuroml
from neuroml import adaptation, contexts, interventions, units
from neuroml.conditioned import conditioned
from neuroml.errors import UsageError
from neuroml.hard_attention import hard_attention
from neuroml.learner import Task, make_learner
from neuroml.streams.stream import Batch

NETWORK = neuroml.mlp((3, 3, 1), [8, 6], 4)
TASK = Task(NETWORK, 1.0)
PARAMS, _ = NETWORK.init(jax.random.key(0))
NAMES = NETWORK.wiring(PARAMS)


def batch(seed, n=5):
    x = jax.random.normal(jax.random.key(seed), (n, 3, 3, 1))
    return Batch(x, jnp.arange(n) % 4, jnp.zeros(n, int), jnp.ones((n, 4), bool))


def run(agent, steps, seed=0):
    state, step = agent.init(jax.random.key(0)), jax.jit(agent.step)
    states = []
    for i in range(steps):
        state, _ = step(state, batch(i), jax.random.fold_in(jax.random.key(seed), i))
        states.append(state)
    return states


def dead(params):
    """Which neurons of the first hidden layer have no weight at all."""
    into = np.asarray(params["layers"][0]["kernel"]).any(0) | (np.asarray(params["layers"][0]["bias"]) != 0)
    return ~(into | np.asarray(params["layers"][1]["kernel"]).any(1))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_lesion_of_neurons_takes_their_share_of_each_layer_and_nothing_else(share):
    hurt = interventions.lesion(NAMES, PARAMS, share, jax.random.key(1))
    first = np.asarray(hurt["layers"][0]["bias"])
    second = np.asarray(hurt["layers"][1]["bias"])
    assert (first.sum(), second.sum()) == (round(8 * share), round(6 * share))
    np.testing.assert_array_equal(hurt["layers"][0]["kernel"], np.tile(first, (9, 1)))
    np.testing.assert_array_equal(hurt["layers"][1]["kernel"], first[:, None] | second)
    np.testing.assert_array_equal(hurt["head"]["kernel"], np.tile(second[:, None], (1, 4)))
    assert not np.asarray(hurt["head"]["bias"]).any()


def test_a_lesion_of_chosen_neurons_takes_those_at_its_step():
    first, _ = units.find(NAMES, PARAMS)
    agent = make_learner(TASK, optax.sgd(0.1))
    states = run(interventions.injured(agent, NETWORK.wiring, {first: [1, 6]}, 2), 4)
    assert [np.flatnonzero(dead(state.params)).tolist() for state in states] == [[], [], [1, 6], [1, 6]]
    hurt = interventions.lesion(NAMES, PARAMS, {first: np.array([1, 6])}, jax.random.key(0))
    assert not np.asarray(hurt["head"]["kernel"]).any()


def test_a_lesion_of_synapses_spares_biases():
    params = {"a": {"kernel": jnp.ones((100, 50)), "bias": jnp.ones(50)}, "b": {"kernel": jnp.ones((50, 100))}}
    names = {"a": {"kernel": ("in", "hidden"), "bias": ("hidden",)}, "b": {"kernel": ("hidden", "out")}}
    hurt = interventions.lesion(names, params, 0.3, jax.random.key(0), part="synapses")
    assert not np.asarray(hurt["a"]["bias"]).any()
    for layer in ("a", "b"):
        assert abs(float(np.asarray(hurt[layer]["kernel"]).mean()) - 0.3) < 4 * (0.21 / 5000) ** 0.5


@pytest.mark.parametrize(
    "change, words",
    [
        ({"share": 1.5}, "share=1.5"),
        ({"share": -0.1}, "share=-0.1"),
        ({"share": jnp.float32(1.5)}, "share=1.5"),
        ({"share": {next(iter(units.find(NAMES, PARAMS))): np.arange(8) == 2}}, "must be their numbers"),
        ({"share": {next(iter(units.find(NAMES, PARAMS))): [2.7]}}, "must be their numbers"),
        ({"part": "axons"}, "'axons'"),
        ({"share": {"somewhere": [0]}}, "'somewhere'"),
        ({"share": {next(iter(units.find(NAMES, PARAMS))): [0, 8]}}, "no neuron 8"),
        ({"share": {next(iter(units.find(NAMES, PARAMS))): [0]}, "part": "synapses"}, "leave `part` out"),
        ({"wiring": jax.tree.map(lambda leaf: (None,) * leaf.ndim, PARAMS)}, "no population"),
    ],
)
def test_a_lesion_refuses(change, words):
    given = {"wiring": NAMES, "params": PARAMS, "share": 0.5, "key": jax.random.key(0)} | change
    with pytest.raises(UsageError, match=words):
        interventions.lesion(**given)


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "chain": optax.chain(optax.clip(1.0), optax.trace(0.9), optax.adam(0.1)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_destroyed_stay_dead_under_every_optimizer(name):
    plain = make_learner(TASK, OPTIMIZERS[name])
    states = run(interventions.injured(plain, NETWORK.wiring, 0.5, 3), 12)
    for early, free in zip(states[:3], run(plain, 3), strict=True):
        jax.tree.map(np.testing.assert_array_equal, early.params, free.params)
    assert not dead(states[2].params).any()
    assert dead(states[3].params).sum() == 4
    np.testing.assert_array_equal(dead(states[3].params), dead(states[-1].params))


def test_anchors_are_stored_elsewhere():
    agent = make_learner(TASK, optax.chain(neuroml.ewc(strength=1.0), optax.adam(0.1)))
    state = agent.init(jax.random.key(0))
    state = state._replace(
        opt_state=neuroml.consolidate(state.opt_state, state.params, importance=jax.tree.map(jnp.ones_like, PARAMS))
    )
    after = agent.destroy(state, jax.tree.map(lambda leaf: jnp.ones_like(leaf, bool), state.params))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(after.params))
    jax.tree.map(np.testing.assert_array_equal, after.opt_state[0], state.opt_state[0])


def test_seeds_lose_different_neurons_in_one_compilation():
    agent = interventions.injured(make_learner(TASK, optax.sgd(0.1)), NETWORK.wiring, 0.5, 0)
    state = agent.init(jax.random.key(0))
    traces = []

    @jax.jit
    def many(keys):
        traces.append(keys)
        return jax.vmap(lambda key: agent.step(state, batch(0), key)[0].params)(keys)

    found = {
        tuple(dead(jax.tree.map(lambda leaf, i=i: leaf[i], many(jax.random.split(jax.random.key(1), 8)))))
        for i in range(8)
    }
    assert len(found) > 3 and len(traces) == 1


def test_no_injury_is_the_learner_alone():
    plain = make_learner(TASK, optax.adam(0.1))
    for one, other in zip(run(interventions.injured(plain, NETWORK.wiring, 0.0, 2), 5), run(plain, 5), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_a_clamp_holds_neurons_lets_others_learn_and_lets_go():
    plain = make_learner(TASK, optax.sgd(0.1))
    agent = interventions.clamped(plain, NETWORK.wiring, "hidden_0", [1, 2], 0.7, 2, 5)
    states = run(agent, 7)
    column = lambda state: np.asarray(state.params["layers"][0]["kernel"])[:, [1, 2]]
    assert (column(states[1]) != column(states[0])).any()
    for state in states[2:5]:
        np.testing.assert_array_equal(column(state), column(states[1]))  # what they had learnt is kept
    assert (np.asarray(states[4].params["head"]["kernel"]) != np.asarray(states[2].params["head"]["kernel"])).any()
    assert (column(states[5]) != column(states[1])).any()
    held = states[3].params
    held["layers"][0]["kernel"] = held["layers"][0]["kernel"].at[:, jnp.array([1, 2])].set(0.0)
    held["layers"][0]["bias"] = held["layers"][0]["bias"].at[jnp.array([1, 2])].set(0.7)
    np.testing.assert_allclose(agent.predict(states[3], batch(9)), TASK.predict(held, batch(9)), rtol=1e-6)
    np.testing.assert_array_equal(agent.predict(states[6], batch(9)), TASK.predict(states[6].params, batch(9)))


def test_a_clamp_of_nobody_is_refused():
    agent = interventions.clamped(make_learner(TASK, optax.sgd(0.1)), NETWORK.wiring, "hidden_7", [0], 0.0, 0, 1)
    with pytest.raises(UsageError, match="'hidden_7'.*hidden_0"):
        agent.step(agent.init(jax.random.key(0)), batch(0), jax.random.key(0))


@pytest.mark.parametrize("number", [8, -1])
def test_a_clamp_of_a_neuron_that_is_not_there_is_refused(number):
    agent = interventions.clamped(make_learner(TASK, optax.sgd(0.1)), NETWORK.wiring, "hidden_0", [0, number], 0, 0, 1)
    with pytest.raises(UsageError, match=f"'hidden_0' has no neuron {number}: its 8 are 0 to 7"):
        agent.predict(agent.init(jax.random.key(0)), batch(0))


def test_a_clamp_of_a_layer_without_a_bias_is_refused():
    layer = lambda inputs, outputs, rngs: nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)
    network = neuroml.from_nnx(lambda rngs: nnx.Sequential(layer(9, 5, rngs), nnx.relu, layer(5, 4, rngs)))
    wiring = lambda params: neuroml.wiring.chain(params, ["layers/0", "layers/2"])
    agent = interventions.clamped(make_learner(Task(network, 1.0), optax.sgd(0.1)), wiring, "hidden_0", [0], 0.7, 0, 1)
    with pytest.raises(UsageError, match="'hidden_0' cannot be clamped.*bias of layer 'layers/0', which has none"):
        agent.predict(agent.init(jax.random.key(0)), batch(0))


def test_a_recording_holds_what_neurons_answered_before_each_step():
    plain = make_learner(TASK, optax.sgd(0.1))
    state = run(interventions.recorded(plain, TASK, "hidden_1", 3, every=2), 9)[-1]
    before = [plain.init(jax.random.key(0)), *run(plain, 8)]
    expected = [TASK.capture(before[i].params, batch(i))[1]["head"].mean(0) for i in (0, 2, 4)]
    np.testing.assert_allclose(state.opt_state.record, expected, rtol=1e-5, atol=1e-6)  # the later ones found no room
    with pytest.raises(UsageError, match="'hidden_2'"):
        interventions.recorded(plain, TASK, "hidden_2", 3).init(jax.random.key(0))


def test_a_recording_of_the_clamped_holds_what_they_hand_on_in_either_order():
    plain = make_learner(TASK, optax.sgd(0.1))
    clamp = lambda agent: interventions.clamped(agent, NETWORK.wiring, "hidden_0", [1], 0.7, 1, 3)
    record = lambda agent: interventions.recorded(agent, TASK, "hidden_0", 4)
    around, within = (run(agent, 4)[-1].opt_state for agent in (record(clamp(plain)), clamp(record(plain))))
    np.testing.assert_allclose(around.record, within.inner.record, rtol=1e-6)
    assert np.isclose(around.record[:, 1], 0.7).tolist() == [False, True, True, False]
    normalized = conditioned(clamp(plain), adaptation.make(0.9), batch(0)._replace(x=batch(0).x[0]), 1.0)
    assert np.isclose(run(record(normalized), 2)[-1].opt_state.record[1, 1], 0.7)


def test_a_recording_of_normalized_inputs_holds_what_the_network_is_given():
    norm, example = adaptation.make(0.9), batch(0)._replace(x=batch(0).x[0])
    agent = interventions.recorded(
        conditioned(make_learner(TASK, optax.sgd(0.1)), norm, example, 1.0), TASK, "hidden_0", 1
    )
    start = run(conditioned(make_learner(TASK, optax.sgd(0.1)), norm, example, 1.0), 1)[0]
    state = agent.init(jax.random.key(0))
    state = state._replace(params=start.params, opt_state=state.opt_state._replace(inner=start.opt_state))
    after, _ = agent.step(state, batch(1), jax.random.key(1))
    given = batch(1)._replace(x=norm.apply(start.opt_state.inputs, batch(1).x))
    answers = TASK.capture(start.params, given)[1]["layers"][1].mean(0)
    np.testing.assert_allclose(after.opt_state.record[0], answers, rtol=1e-5, atol=1e-6)


def test_a_recording_of_gated_neurons_knows_who_is_silent():
    agent = interventions.recorded(contexts.gated(TASK, optax.sgd(0.1), 2, 0.5), TASK, "hidden_0", 1)
    state = agent.step(agent.init(jax.random.key(0)), batch(0), jax.random.key(0))[0].opt_state
    assert not np.asarray(state.record[0][state.inner.off["hidden_0"][0]]).any() and np.asarray(state.record).any()


@pytest.mark.parametrize("given", [{"steps": 0}, {"steps": -1}, {"every": 0}, {"every": -1}])
def test_a_recording_without_room_is_refused(given):
    with pytest.raises(UsageError, match="must be at least 1"):
        interventions.recorded(make_learner(TASK, optax.sgd(0.1)), TASK, "hidden_0", **{"steps": 3, **given})


def test_a_recording_of_a_learner_that_hides_its_neurons_is_refused():
    hidden = hard_attention(TASK, optax.sgd(0.1), 2, ramp=5)
    with pytest.raises(UsageError, match="does not say what population 'hidden_0' answers"):
        interventions.recorded(hidden, TASK, "hidden_0", 3)


NORMED = neuroml.mlp((3, 3, 1), [8, 6], 4, layer_norm=True)


def test_the_destroyed_stay_silent_behind_a_normalization():
    agent = interventions.injured(make_learner(Task(NORMED, 1.0), optax.adam(0.1)), NORMED.wiring, {"hidden_0": [2]}, 3)
    state = run(agent, 12)[-1]
    assert np.flatnonzero(~np.asarray(state.params["layers"][1]["kernel"]).any(1)).tolist() == [2]  # nobody hears it
    answers = NORMED.capture(state.params, {}, batch(0).x)[2]["layers"][1]
    assert not np.asarray(answers)[:, 2].any() and np.asarray(answers).any()


FRESH = lambda key: NORMED.init(key)[0]
NORMED_NAMES = NORMED.wiring(FRESH(jax.random.key(0)))
REPAIRS = {
    "redo": lambda: neuroml.redo(NORMED_NAMES, FRESH, threshold=0.01, every=5),
    "self_normalized_resets": lambda: neuroml.self_normalized_resets(NORMED_NAMES, FRESH, minimum=5),
    "nanotube": lambda: neuroml.nanotube(NORMED_NAMES, every=5, heals="destroyed"),
    "schwann": lambda: neuroml.schwann(NORMED_NAMES),
    "cbp": lambda: neuroml.cbp(NORMED_NAMES, FRESH, rate=0.05, maturity=2.0, decay=0.0),
    "regrama": lambda: neuroml.regrama(NORMED_NAMES, FRESH, threshold=0.3, every=5),
    "partial_resets": lambda: neuroml.partial_resets(NORMED_NAMES, FRESH, strength=1.0, every=5),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_the_destroyed_answer_again_behind_a_normalization_after_repair(name):
    agent = make_learner(Task(NORMED, 1.0), optax.chain(optax.sgd(0.05), REPAIRS[name]()), activity=True)
    state = run(interventions.injured(agent, NORMED.wiring, {"hidden_0": [0, 2]}, 3), 80)[-1]
    scale = np.asarray(state.params["norms"][0]["scale"])
    assert (scale > 0.1).all()
    answers = NORMED.capture(state.params, {}, batch(0, 50).x)[2]["layers"][1]
    assert np.asarray(answers)[:, [0, 2]].any(0).all()


def test_a_clamp_before_a_normalization_is_refused():
    agent = interventions.clamped(
        make_learner(Task(NORMED, 1.0), optax.sgd(0.1)), NORMED.wiring, "hidden_0", [0], 5, 0, 1
    )
    with pytest.raises(UsageError, match="'hidden_0' cannot be clamped: norms/0/bias"):
        agent.predict(agent.init(jax.random.key(0)), batch(0))


def test_a_network_without_names_is_refused_at_once():
    nameless = neuroml.from_nnx(lambda rngs: nnx.Linear(9, 4, rngs=rngs))
    agent = make_learner(Task(nameless, 1.0), optax.sgd(0.1))
    for make in (
        lambda: interventions.injured(agent, nameless.wiring, 0.5, 3),
        lambda: interventions.clamped(agent, nameless.wiring, "hidden_0", [0], 0.0, 0, 3),
        lambda: interventions.recorded(agent, Task(nameless, 1.0), "hidden_0", 3),
    ):
        with pytest.raises(UsageError, match="no names of neurons.*lambda params: neuroml.wiring.chain"):
            make()


@pytest.mark.parametrize("start, stop", [(3, 3), (5, 2), (-1, 2)])
def test_a_clamp_that_ends_before_it_begins_is_refused(start, stop):
    with pytest.raises(UsageError, match=f"start={start} and stop={stop}"):
        interventions.clamped(make_learner(TASK, optax.sgd(0.1)), NETWORK.wiring, "hidden_0", [0], 0.0, start, stop)


def test_an_injury_before_the_stream_is_refused():
    with pytest.raises(UsageError, match="at=-4"):
        interventions.injured(make_learner(TASK, optax.sgd(0.1)), NETWORK.wiring, 0.5, -4)


def test_they_fit_each_other_and_normalized_inputs():
    plain = make_learner(TASK, optax.adam(0.1))
    agent = conditioned(plain, adaptation.make(0.9), batch(0)._replace(x=batch(0).x[0]), 1.0)
    agent = interventions.injured(agent, NETWORK.wiring, 0.5, 2)
    agent = interventions.injured(agent, NETWORK.wiring, 0.2, 2, part="synapses")
    agent = interventions.recorded(agent, TASK, "hidden_0", 6)
    state = run(agent, 6)[-1]
    assert dead(state.params).sum() == 4 and np.isfinite(state.opt_state.record).all()
    assert np.isfinite(agent.predict(state, batch(1))).all()


def test_a_suite_is_injured_at_its_step():
    experiment = toy.experiment(
        "naive", intervene=lambda agent, task: interventions.injured(agent, task.network.wiring, 1.0, 4)
    )
    free = neuroml.run(toy.experiment("naive"), toy.dataset(), seeds=[0], hyperparameters={"learning_rate": 0.01})
    hurt = neuroml.run(experiment, toy.dataset(), seeds=[0], hyperparameters={"learning_rate": 0.01})
    np.testing.assert_array_equal(free.loss.reshape(-1)[:4], hurt.loss.reshape(-1)[:4])
    assert free.loss.reshape(-1)[4] != hurt.loss.reshape(-1)[4]
