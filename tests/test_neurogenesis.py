"""Neurogenesis: the newborn answer in their own context and in later ones, and nothing that is older hears of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.errors import UsageError
from neuroml.learner import Task, make_learner
from neuroml.neurogenesis import neurogenic
from neuroml.streams.stream import Batch

SHAPE, CLASSES, HIDDEN, CONTEXTS = (3, 3, 1), 4, (10, 6), 3
TASK = Task(neuroml.mlp(SHAPE, HIDDEN, CLASSES), 2.0)
ONE = Batch(jnp.zeros(SHAPE), jnp.int32(0), jnp.int32(0), jnp.ones(CLASSES, bool))
PLACES = jax.random.uniform(jax.random.key(9), (CONTEXTS, *SHAPE)) * 2
BORN = [(5, 3), (8, 4), (10, 6)]  # neurons of the two layers in contexts 0, 1, 2: half, three quarters, all
SGD = optax.sgd(0.1)


def batch(context, seed, size=8):
    """Examples near one of three places in input space."""
    noise, label = jax.random.split(jax.random.key(seed))
    x = PLACES[context] + 0.1 * jax.random.normal(noise, (size, *SHAPE))
    return Batch(x, jax.random.randint(label, (size,), 0, CLASSES), jnp.full(size, context), jnp.ones((size, 4), bool))


@functools.cache
def made(transform=SGD, **settings):
    return neurogenic(TASK, transform, ONE, **{"contexts": CONTEXTS, "radius": 0.2} | settings)


@functools.cache
def trained(agent, contexts=(0, 1, 2, 0)):
    state, step = jax.jit(agent.init)(jax.random.key(0)), jax.jit(agent.step)
    for number, context in enumerate(contexts):
        state, _ = step(state, batch(context, number), jax.random.key(number))
    return state


def answers(params, image, born, order=None):
    """The docstring's equation for one image."""
    x = image.ravel()
    for number, alive in enumerate(born):
        layer = params["layers"][number]
        place = np.arange(HIDDEN[number]) if order is None else order[number]
        x = np.where(place < alive, np.maximum(x @ layer["kernel"] + layer["bias"], 0), 0)
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def test_with_all_alive_it_is_the_network_alone():
    plain, grown = trained(make_learner(TASK, SGD)), trained(made(alive=1.0))
    jax.tree.map(np.testing.assert_array_equal, grown.params, plain.params)


def test_an_answer_is_the_equation_of_the_docstring():
    agent, params = made(), jax.tree.map(np.asarray, trained(made()).params)
    for context, born in enumerate(BORN):
        asked = batch(context, 50)
        said = jax.jit(agent.predict)(trained(agent), asked)
        expected = [answers(params, image, born) for image in np.asarray(asked.x) / 2]
        np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-5)


def test_nothing_that_the_newborn_learn_reaches_older_contexts():
    agent, state = made(), trained(made())

    def shaken(context):
        """The weights with all that belongs to neurons born after a context replaced."""
        params, noise = jax.tree.map(np.array, state.params), np.random.default_rng(0)
        for number, (home, below) in enumerate(((params["layers"][0], None), (params["layers"][1], 0))):
            late = np.arange(HIDDEN[number]) >= BORN[context][number]
            home["kernel"][:, late] = noise.normal(size=(home["kernel"].shape[0], late.sum()))
            home["bias"][late] = 7.0
            if below is not None:
                home["kernel"][np.arange(HIDDEN[below]) >= BORN[context][below]] = 9.0
        params["head"]["kernel"][np.arange(HIDDEN[1]) >= BORN[context][1]] = 9.0
        return state._replace(params=params)

    predict = jax.jit(agent.predict)
    for context in (0, 1):
        same = lambda asked: np.array_equal(predict(shaken(context), asked), predict(state, asked))  # noqa: B023
        assert all(same(batch(older, 60)) for older in range(context + 1)) and not same(batch(context + 1, 60))


def test_neurons_in_reserve_learn_nothing():
    agent = made()
    start, state = jax.jit(agent.init)(jax.random.key(0)).params, trained(agent, (0, 0, 1)).params
    moved = lambda pick: np.asarray(pick(start) != pick(state))
    for number, born in enumerate(BORN[1]):
        kernel = moved(lambda params, number=number: params["layers"][number]["kernel"])
        assert not kernel[:, born:].any() and kernel[:, :born].any()
    assert not moved(lambda params: params["head"]["kernel"])[BORN[1][1] :].any()


def test_a_projector_leaves_what_the_newborn_hand_on_free():
    """Its core saw nothing of them, so a step of their outgoing weights is that of the optimizer alone."""
    agent = made(optax.chain(SGD, neuroml.condensate_projector(scale=1e-6)), activity=True)
    state = trained(agent, (0, 0))
    state = jax.jit(agent.consolidate)(state, batch(0, 3), jax.random.key(3))
    shown, key = batch(1, 4), jax.random.key(4)
    held = jax.jit(agent.step)(state, shown, key)[0].params["head"]["kernel"] - state.params["head"]["kernel"]
    free = made()
    opened = state._replace(opt_state=state.opt_state._replace(inner=SGD.init(state.params)))
    alone = jax.jit(free.step)(opened, shown, key)[0].params["head"]["kernel"] - state.params["head"]["kernel"]
    first, second = BORN[0][1], BORN[1][1]
    np.testing.assert_allclose(held[first:second], alone[first:second], rtol=1e-4, atol=1e-6)
    assert jnp.abs(held[first:second]).max() > 1e-3
    assert jnp.linalg.norm(held[:first]) < 0.5 * jnp.linalg.norm(alone[:first])


def test_told_or_not_where_a_task_ends_a_projector_holds_the_same():
    """It consolidates before anything of the new context is learnt, which is where the old one ended."""
    rules = optax.chain(SGD, neuroml.condensate_projector(scale=0.01))
    told, alone = made(rules, activity=True), made(rules, activity=True, consolidates=True)
    (one, step), (other, itself) = ((agent.init(jax.random.key(0)), jax.jit(agent.step)) for agent in (told, alone))
    for number, context in enumerate((0, 0, 1, 1, 0, 2)):
        if number in (2, 5):  # the first of contexts 1 and 2; to come back to one that is known ends nothing
            one = jax.jit(told.consolidate)(one, batch(context, number), jax.random.key(number))
        one, _ = step(one, batch(context, number), jax.random.key(number))
        other, _ = itself(other, batch(context, number), jax.random.key(number))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)
    assert float(alone.report(other)["held head"]) > 0.1


class Counted(NamedTuple):
    """State of a rule that counts its consolidations."""

    number: jax.Array

    def consolidate(self, params, **_):
        return self._replace(number=self.number + 1)


def test_it_consolidates_once_for_each_context_that_ended():
    counting = optax.GradientTransformation(lambda params: Counted(jnp.int32(0)), lambda g, s, params=None: (g, s))
    agent = made(optax.chain(counting, SGD), consolidates=True)
    ended = [int(trained(agent, seen).opt_state.inner[0].number) for seen in ((0,), (0, 0, 1, 1), (0, 1, 0, 1, 2))]
    assert ended == [0, 1, 2]


def test_by_lot_as_many_answer_and_age_has_nothing_to_do_with_it():
    agent = made(by_lot=True)
    params, state = jax.tree.map(np.asarray, trained(agent).params), trained(agent)
    other = jax.jit(agent.init)(jax.random.key(1)).opt_state.lot
    assert state.opt_state.lot != other
    for context, born in enumerate(BORN):
        keys = [jax.random.fold_in(jax.random.key(state.opt_state.lot), number) for number in range(2)]
        lots = [jax.random.split(key, CONTEXTS)[context] for key in keys]
        order = [np.asarray(jax.random.permutation(lot, size)) for lot, size in zip(lots, HIDDEN, strict=True)]
        asked = batch(context, 50)
        expected = [answers(params, image, born, order) for image in np.asarray(asked.x) / 2]
        np.testing.assert_allclose(jax.jit(agent.predict)(state, asked), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("contexts", [(0,), (0, 1), (0, 1, 2)])
def test_it_says_how_many_are_alive(contexts):
    found = made().report(trained(made(), contexts))
    assert (int(found["alive hidden_0"]), int(found["alive hidden_1"])) == BORN[len(contexts) - 1]
    assert int(found["contexts used"]) == len(contexts)


def test_a_neuron_that_answers_twice_is_silent_twice():
    double = Task(neuroml.mlp(SHAPE, [10], CLASSES, activation="crelu"), 2.0)
    agent = neurogenic(double, SGD, ONE, contexts=CONTEXTS, radius=0.2, activity=True)
    state = jax.jit(agent.init)(jax.random.key(0))
    state, _ = jax.jit(agent.step)(state, batch(0, 0), jax.random.key(0))
    heard = np.asarray((jax.jit(agent.capture)(state, batch(0, 1))["head"] != 0).any(0))
    np.testing.assert_array_equal(heard.reshape(2, 10).any(0), np.arange(10) < 5)  # x and -x: one of them answers


def test_the_least_that_lives_is_one_neuron_and_with_one_context_nothing_is_born():
    found = made(alive=0.01).report(trained(made(alive=0.01), (0,)))
    assert float(found["alive hidden_0"]) == float(found["alive hidden_1"]) == 1
    alone = made(contexts=1)
    assert float(alone.report(trained(alone, (0, 1, 2)))["alive hidden_0"]) == BORN[0][0]


def test_what_is_new_joins_the_nearest_once_there_is_no_room():
    agent = made(contexts=2)
    state = trained(agent, (0, 1, 2))
    assert int(agent.report(state)["contexts used"]) == 2
    assert float(state.opt_state.prototypes.mass.sum()) == 24  # all examples, those of the third context among them


def test_prototypes_may_hold_sums_of_pixels_and_contexts_are_found_as_before():
    agent, whole = made(pool=3), made()
    state = trained(agent)
    place, shown = state.opt_state.prototypes.place, [batch(context, n).x for n, context in enumerate((0, 1, 2, 0))]
    first = jnp.concatenate([shown[0], shown[3]]).reshape(16, 3, 3) / 2
    np.testing.assert_allclose(place[0], first.sum(2).mean(0), rtol=1e-5)
    assert place.shape == (CONTEXTS, 3) and trained(whole).opt_state.prototypes.place.shape == (CONTEXTS, 9)
    for context in range(CONTEXTS):
        assert (agent.context(state, batch(context, 50)) == context).all()
    asked = batch(1, 50)  # who answers is the same, and so is what they say
    np.testing.assert_array_equal(agent.predict(state, asked), whole.predict(trained(whole), asked))


@pytest.mark.parametrize("pool", [0, 2, 18])
def test_groups_of_pixels_that_do_not_come_out_even_are_named(pool):
    with pytest.raises(UsageError, match=f"pool={pool} must be at least 1 and divide the 9 pixels"):
        made(pool=pool)


def test_a_layer_norm_is_refused():
    network = neuroml.mlp(SHAPE, HIDDEN, CLASSES, layer_norm=True)
    with pytest.raises(UsageError, match="without layer_norm"):
        neurogenic(Task(network, 2.0), SGD, ONE, contexts=2).init(jax.random.key(0))


@pytest.mark.parametrize("settings, words", [({"alive": 0.0}, r"alive=0\.0"), ({"alive": 1.5}, r"alive=1\.5")])
def test_a_share_out_of_range_is_named(settings, words):
    with pytest.raises(UsageError, match=words):
        made(**settings)
