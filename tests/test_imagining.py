"""Imagined rows of a core are those that the inputs of before would have filled, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import neuroml
from neuroml import imagining, projection, units
from neuroml.errors import UsageError
from neuroml.imagining import imagined
from neuroml.learner import Task
from neuroml.method import Situation
from neuroml.methods import methods
from neuroml.rules.condensate_projector import held
from neuroml.streams.stream import Batch

NAMES = {
    "a": {"kernel": ("pixel", "hidden"), "bias": ("hidden",)},
    "b": {"kernel": ("hidden", "answer"), "bias": ("answer",)},
}
TX = neuroml.condensate_projector(scale=1e-3)
BORN = jnp.arange(6) >= 4  # of six hidden neurons the last two


def network(seed=0):
    first, second, third = jax.random.split(jax.random.key(seed), 3)
    return {
        "a": {"kernel": jax.random.normal(first, (3, 6)), "bias": jax.random.normal(third, (6,))},
        "b": {"kernel": jax.random.normal(second, (6, 2)), "bias": jnp.zeros(2)},
    }


def capture(params):
    return lambda x: {"a": x, "b": jax.nn.relu(x @ params["a"]["kernel"] + params["a"]["bias"])}


def inputs(seed, n=20_000):
    first, second = jax.random.split(jax.random.key(seed))
    return jax.random.normal(first, (n, 3)) @ jax.random.normal(second, (3, 3)) + jnp.array([1.0, -0.5, 0.0])


def taught(*seeds, params):
    """The projector after a consolidation for each seed, of a network whose last two hidden neurons are silent."""
    silent = jax.tree.map(jnp.copy, params)
    silent["a"] = {name: jnp.where(BORN, 0, leaf) for name, leaf in params["a"].items()}
    state = TX.init(params)
    for seed in seeds:
        _, state = TX.update(params, state, params, activity=capture(silent)(inputs(seed)))
        state = neuroml.consolidate(state, params)
    return state


def imagine(state, params, born=BORN, **given):
    found = units.find(NAMES, params)
    draw = {"first": "a", "samples": 50_000} | given
    return imagined(state, capture(params), params, found, {"hidden": born}, jax.random.key(5), **draw)


def moment(params, *seeds):
    return sum(projection.second_moment(projection.inputs(params, capture(params)(inputs(s)))["b"]) for s in seeds)


def test_rows_of_new_neurons_are_those_of_earlier_inputs():
    """Of one task, whose inputs are normal; the rows that were known stay as they were."""
    params = network()
    state = taught(1, params=params)
    after = imagine(state, params)
    expected, old = moment(params, 1), np.append(np.arange(4), 6)
    np.testing.assert_allclose(held(after.layers["b"]), expected, rtol=0.1, atol=0.05 * float(expected.max()))
    known = held(state.layers["b"])[np.ix_(old, old)]
    np.testing.assert_allclose(held(after.layers["b"])[np.ix_(old, old)], known, rtol=1e-3, atol=1e-3)
    assert abs(held(state.layers["b"])[4:6]).max() < 1e-5 < abs(expected[4:6]).max()
    jax.tree.map(np.testing.assert_array_equal, after.layers["a"], state.layers["a"])


def test_steps_then_leave_answers_to_earlier_inputs_alone():
    params = network()
    state = taught(1, 2, params=params)
    updates = jax.tree.map(jnp.zeros_like, params)
    updates["b"]["kernel"] = jnp.where(BORN[:, None], 1.0, 0.0) * jnp.ones((6, 2))
    x = inputs(1, 500)

    def moved(state):
        out, _ = TX.update(updates, state, params, activity=capture(params)(x))
        return float(abs(capture(params)(x)["b"] @ out["b"]["kernel"] + out["b"]["bias"]).mean())

    assert moved(imagine(state, params)) < 0.1 * moved(state)


def test_drawn_inputs_have_the_mean_and_the_covariance_of_those_that_came():
    state = taught(1, 2, params=network())
    core = state.layers["a"]
    x = imagining._drawn(core, held(core)[-1, -1], jax.random.key(0), 50_000)
    came = jnp.concatenate([inputs(1), inputs(2)])
    np.testing.assert_allclose(x.mean(0), came.mean(0), atol=0.05)
    np.testing.assert_allclose(jnp.cov(x.T), jnp.cov(came.T), rtol=0.1, atol=0.1)


def test_completed_moments_have_no_negative_eigenvalue_however_the_two_disagree():
    known, drawn = (jnp.cov(jax.random.normal(jax.random.key(i), (7, 30))) for i in range(2))
    full = imagining._completed(jnp.where(jnp.append(BORN, False), 0, known), drawn, jnp.append(BORN, False))
    assert jnp.linalg.eigvalsh(full)[0] > -1e-5


@pytest.mark.parametrize("case", ["nobody is born", "nothing is consolidated"])
def test_where_there_is_nothing_to_imagine_nothing_changes(case):
    params = network()
    state = TX.init(params) if case == "nothing is consolidated" else taught(1, params=params)
    born = BORN if case == "nothing is consolidated" else jnp.zeros(6, bool)
    jax.tree.map(np.testing.assert_array_equal, imagine(state, params, born, samples=100), state)


def test_behind_convolutions_growth_imagines_what_they_see():
    """Of neurons born after a consolidation the head's core knows what they answer to the inputs of before."""
    network = neuroml.cnn((4, 4, 1), channels=(2,), hidden=(6,), outputs=2)
    task, key = Task(network, 1.0), jax.random.key(3)
    x, y = jax.random.normal(key, (200, 4, 4, 1)), jnp.arange(200) % 2
    examples = Batch(x, y, jnp.zeros(200, int), jnp.ones((200, 2), bool))
    at = Situation(task, optax.sgd(0.0), 0.0, jax.tree.map(lambda leaf: leaf[0], examples), 200, 2, 2, "class")
    method = methods["growth"]
    given = {**method.hyperparameters, **method.options, "consolidates": True, "when": "steps", "alive_percent": 50}
    learner = toy.compiled(method.make(at, given | {"number": 3.0, "patience": 2.0, "scale": 1e-3, "target": 0.0}))
    state, _ = learner.step(learner.init(key), examples, key)
    state = learner.consolidate(state, examples, key)
    state, _ = learner.step(state, examples, key)
    core = held(state.opt_state.base[1].layers["head"])
    new = np.asarray(state.opt_state.rule.renewed["hidden_0"])
    assert new.tolist() == [False] * 3 + [True] * 3
    answers = network.capture(state.params, {}, x)[2]["head"][:, new]
    np.testing.assert_allclose(jnp.diag(core)[:-1][new], (answers**2).mean(0), rtol=0.35)


def test_a_first_layer_that_does_not_know_its_inputs_is_refused():
    params = network()
    del params["a"]["bias"]
    with pytest.raises(UsageError, match="'a' is none"):
        imagine(TX.init(params), params)


def test_a_convolution_that_reads_neurons_is_refused():
    """Its inputs are patches: each neuron has nine rows there, and what is drawn has no places to make them of."""
    params = network() | {"b": {"kernel": jnp.ones((3, 3, 6, 2)), "bias": jnp.zeros(2)}}
    names = NAMES | {"b": {"kernel": (None, None, "hidden", "answer"), "bias": ("answer",)}}
    with pytest.raises(UsageError, match="convolution 'b' reads neurons"):
        imagined(
            TX.init(params),
            capture(params),
            params,
            units.find(names, params),
            {"hidden": BORN},
            jax.random.key(0),
            first="a",
        )
