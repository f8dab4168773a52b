"""What every learner that is more than a rule must hold: in a loop of one's own it is what the benchmarks measure."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import toy

from neuroml import growth_methods
from neuroml.errors import UsageError
from neuroml.methods import methods

DATA = toy.dataset()
PIXELS = {"features": "pixels", "held_back": 12}
TASK = {"scenario": "task"}
# {method: (how the experiment differs, how its options do)}
ROWS = {
    "condensate_head": ({}, {"slots": 5}),
    "condensate_memory": ({}, PIXELS),
    "condensate_contexts": ({}, {**PIXELS, "slots": 3}),
    "nearest_class_mean": ({}, PIXELS),
    "streaming_lda": ({}, PIXELS),
    "homeostasis": ({}, {"every": 2}),
    "condensate_homeostasis": ({}, {"every": 2}),
    "condensate_shell": ({}, {"every": 2}),
    "growth": ({}, {"when": "steps", "where": "random", "alive_percent": 50, "consolidates": True}),
    "neurogenesis": ({}, {"consolidates": True}),
    "icarl": ({}, {"capacity": 12}),
    "er_nearest_mean": ({}, {"capacity": 12}),
    "gdumb": ({}, {"capacity": 12, "passes": 1}),
    "dgr": ({}, {}),
    "generative_classifier": ({}, {}),
    "separate": (TASK, {}),
    "xdg": (TASK, {}),
    "active_dendrites_si": ({}, {"contexts": 3, "segments": 2, "winners_percent": 50}),
    "k_winners": ({}, {}),
    "hat": (TASK, {}),
    "packnet": (TASK, {}),
}
# The same learners with other settings.
ALIKE = {"patch_random", "random_ridge", "dgr_distill", "xdg_si", "active_dendrites"}


@functools.cache
def experiment(name):
    settings, options = ROWS[name]
    made = toy.experiment(name, **settings)
    return dataclasses.replace(made, options={**made.options, **options})


def test_every_learner_is_in_the_table():
    assert {name for name, method in methods.items() if method.learner} == ROWS.keys() | ALIKE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"learner {name}")) for name in ROWS]
)
def test_a_loop_of_ones_own_is_the_compiled_experiment(name):
    hyper = toy.numbers_of(experiment(name))
    state, row = toy.whole(experiment(name))(jax.random.key(toy.SEED), hyper, DATA)
    by_hand = toy.trained_by_hand(experiment(name), toy.SEED)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), by_hand.state, state)
    np.testing.assert_allclose(by_hand.accuracy, row.findings.accuracy, atol=0.13)  # one test image
    for own, theirs in zip(by_hand.losses, row.loss, strict=True):
        np.testing.assert_allclose(own, theirs[: len(own)], rtol=1e-3, atol=1e-4)
    assert np.isfinite(by_hand.accuracy).all()


def test_settings_of_growth_reach_the_rule(monkeypatch):
    given = {}
    rule = growth_methods.growth
    monkeypatch.setattr(growth_methods, "growth", lambda *args, **named: (given.update(named), rule(*args, **named))[1])
    made = experiment("growth")
    agent = lambda hyper: made.learner(made.stream(DATA, jax.random.key(0)), hyper).init(jax.random.key(0)).params
    agent(toy.numbers_of(made, maturity=7.0))
    assert given["where"] == "random" and given["when"] == "steps" and given["maturity"] == 7.0


def test_settings_of_neurogenesis_reach_the_learner(monkeypatch):
    given = []
    maker = growth_methods.neurogenic
    monkeypatch.setattr(growth_methods, "neurogenic", lambda *a, **named: (given.append(named), maker(*a, **named))[1])
    made = experiment("neurogenesis")
    for options in ({"by_lot": True, "pool": 2}, {"contexts": 7, "told": False}):
        one = dataclasses.replace(made, options={**made.options, **options})
        one.learner(one.stream(DATA, jax.random.key(0)), toy.numbers_of(one, alive=0.7, radius=0.2))
    (lots, room) = given
    assert (
        lots["by_lot"]
        and not room["by_lot"]
        and float(lots["alive"]) == pytest.approx(0.7)
        and float(lots["radius"]) == pytest.approx(0.2)
    )
    assert (lots["contexts"], room["contexts"]) == (3, 7) and (lots["pool"], room["pool"]) == (2, 1)
    assert room["consolidates"] and not lots["consolidates"]
    told = dict(made.options)
    assert [methods["neurogenesis"].boundaries({**told, "told": one}) for one in (True, False)] == [True, False]
    idle = dataclasses.replace(made, options={**told, "told": False, "consolidates": False})
    with pytest.raises(UsageError, match="Drop one of them"):
        idle.learner(idle.stream(DATA, jax.random.key(0)), toy.numbers_of(idle))
    with pytest.raises(UsageError, match=r"needs a `alive` in \(0, 1\], but alive=1\.5"):
        methods["neurogenesis"].check({**methods["neurogenesis"].hyperparameters, "alive": [0.5, 1.5]})
