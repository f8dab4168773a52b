"""The scripts of repair: what they compare, choose and control."""

import json
import math
import types

import jax
import numpy as np
import optax
import pytest
from test_paper_repro_scripts import record, write

import neuroml
from neuroml.errors import DataError
from neuroml.learner import Task, make_learner
from neuroml.lesions import lesion
from paper_repro.repair import compare, trials, with_condensates, without_copies


def test_one_bar_for_all_is_that_of_no_repair():
    curves = {"none": [[0.8, 0.8, 0.2, 0.7, 0.8]], "weak": [[0.4, 0.4, 0.1, 0.4, 0.4]], "good": [5 * [0.8]]}
    recovery = {"steps_before": 20, "window": 10, "online_accuracy": curves}
    assert compare.one_bar(recovery) == {"none": {0: 30.0}, "weak": {0: None}, "good": {0: 10.0}}


def test_old_tasks_are_those_before_the_injured_one_when_that_ends():
    protocol = {"injury_at": 3125, "examples": 20000, "batch_size": 16}
    accuracy = [[0.9, 0, 0, 0], [0.8, 0.9, 0, 0], [0.6, 0.8, 0.9, 0], [0.1, 0.1, 0.1, 0.1]]
    assert compare.old_tasks({"config": {"protocol": protocol}, "accuracy": accuracy}) == pytest.approx(70.0)


def test_what_lost_neurons_and_synapses_is_not_compared_as_if_it_had_lost_neurons_alone(tmp_path, monkeypatch):
    injured = [record("none", seed=seed, protocol={"injury": 0.5}) for seed in range(2)]
    both = [record("none", seed=2, protocol={"injury": 0.5, "severed": 0.5})]
    monkeypatch.setattr(compare, "HOME", tmp_path)
    path = write(tmp_path / "injury_recovery.domain.jsonl", injured + both)
    none = compare.Row("", "none")
    assert compare.values(none, ("injury", 0.5), "accuracy") == {0: 50.0, 1: 50.0}
    assert compare.values(none, ("severed", 0.5), "accuracy") == {}
    compare._records.cache_clear()
    write(path, [record("none", learning_rate=1.0, protocol={"injury": 0.5})])
    with pytest.raises(DataError, match="none, injury 0.5 is the name of 2 configurations"):
        compare.values(none, ("injury", 0.5), "accuracy")


def test_one_that_recovers_fast_among_many_that_do_not_is_not_chosen():
    back, never = [0.8] * 5 + [0.0] * 5 + [0.8] * 15, [0.8] * 5 + [0.0] * 20
    some, none = np.array([[back]] + 9 * [[never]]), np.array([[never]])
    assert trials.recovery(some, some, at=5) == ((15 + 9 * 20) / 10, 9)
    assert trials.recovery(none, none, at=5) == (20.0, 1)  # a number, which JSON and `min` can take
    assert trials.recovery(np.array([[back]]), np.array([[[1.0] * 25]]), at=5) == (20.0, 1)  # held to the other's bar


def test_the_soonest_is_chosen_of_those_that_keep_as_much_in_parts_of_what_no_repair_needs():
    one = lambda half, most, kept: {
        "0.5": {"recovery_steps": half, "accuracy": kept},
        "0.8": {"recovery_steps": most, "accuracy": kept},
    }
    rows = [one(20, 100, 0.6), one(10, 120, 0.6), one(5, 50, 0.4)]
    found = [{"settings": number, "found": row} for number, row in enumerate(rows)]
    assert trials.choose(found, none=one(20, 200, 0.5)) == 1  # .55 of its batches, not .75; the third keeps less
    assert trials.choose(found, none=one(20, 200, 0.7)) == 2


def test_survivors_make_up_for_half_of_what_is_gone():
    network = neuroml.mlp((4,), (8, 4), 2)
    inner = make_learner(Task(network, 1.0), optax.sgd(0.1))
    agent = without_copies.compensated(inner, network.wiring, 0.5)
    state = agent.init(jax.random.key(0))
    gone = lesion(network.wiring(state.params), state.params, 0.75, jax.random.key(1))
    plain, raised = (learner.destroy(state, gone).params for learner in (inner, agent))
    np.testing.assert_allclose(raised["head"]["kernel"], (1 + 0.5 * 3) * plain["head"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(raised["layers"][0]["kernel"], plain["layers"][0]["kernel"])


def test_what_was_chosen_with_condensates_is_what_the_trials_say():
    record = json.loads((with_condensates.HOME / "with_condensates.json").read_text())
    for method, grid in with_condensates.GRIDS.items():
        tried = [one for one in record["trials"] if one["method"] == method]
        assert len(tried) == math.prod(map(len, grid.values()))
        assert record["chosen"][method] == with_condensates.choose(tried, record["none"])


def test_tasks_before_the_injury_are_found_when_the_injured_one_ends():
    accuracy = np.array([[[0.9, 0, 0, 0], [0.8, 0.9, 0, 0], [0.6, 0.8, 0.9, 0], [0.1, 0.1, 0.1, 0.3]]])
    result = types.SimpleNamespace(accuracy=accuracy, online_accuracy=np.full((1, 4, 1250), 0.8))
    found = with_condensates.found_in(result, result)
    assert found == pytest.approx({"recovery_steps": 10, "unrecovered": 0, "old_tasks": 70, "accuracy": 15})
