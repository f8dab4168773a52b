"""Methods that grow and repair do what their settings say, and an injury shows."""

import dataclasses
from pathlib import Path

import pytest
from toy_plasticity import DATA, SMALL, records

from benchmarks import runner, suite, summaries, tables
from benchmarks.jobs import Job
from neuroml.errors import UsageError

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("plasticity")


@pytest.mark.parametrize("name", ["nanotube", "growth"])
def test_methods_that_repair_and_grow_consolidate_where_they_are_told_to(name):
    kept = dataclasses.replace(SMALL, options={name: {"consolidates": True}})
    assert "held head" in records(name, kept)[0]["report"] and "held head" not in records(name)[0]["report"]
    assert records(name, kept)[0]["loss_curve"] != records(name)[0]["loss_curve"]


def test_random_rebirth_heals_whom_it_is_told_to():
    """At this threshold nearly all are silent, and none is destroyed before the injury."""
    reborn = lambda heals, **injury: records(
        "random_rebirth",
        dataclasses.replace(
            SMALL,
            options={"random_rebirth": {"every": 1, "heals": heals}},
            hyperparameters={"random_rebirth": {"threshold": 2.0}},
            **injury,
        ),
    )[0]["report"]["replaced"][-1]
    assert reborn("silent") > 0 == reborn("destroyed") < reborn("destroyed", injury=0.5, injury_at=18)


@pytest.mark.parametrize("name", ["random_rebirth", "nanotube"])
def test_methods_that_repair_hold_what_newborns_hand_on_where_they_are_told_to(name):
    given = {"every": 1, "heals": "silent", "consolidates": True}
    curve = lambda newborns: records(
        name,
        dataclasses.replace(
            SMALL, options={name: {**given, "newborns": newborns}}, hyperparameters={name: {"threshold": 0.5}}
        ),
    )[0]["loss_curve"]
    assert curve("held") != curve("free")


def test_growth_sprouts_where_it_is_told_to():
    options = {"when": "steps", "alive_percent": 50}
    grown = lambda strength, **more: records(
        "growth",
        dataclasses.replace(
            SMALL,
            options={"growth": {**options, **more}},
            hyperparameters={"growth": {"patience": 2.0, "sprouting": strength}},
        ),
    )[0]
    usual, inert, sprouted = grown(1.0), grown(0.0, sprouts=True), grown(1.0, sprouts=True)
    assert inert["loss_curve"] == usual["loss_curve"] != sprouted["loss_curve"]
    assert sprouted["report"]["sprouted"][-1] > 0 and "sprouted" not in usual["report"]
    assert sprouted["report"]["born"] == usual["report"]["born"]
    with pytest.raises(UsageError, match="sprouts=True reaches nobody where pairs=True"):
        grown(1.0, sprouts=True, pairs=True)


@pytest.mark.parametrize("part", ["injury", "severed"])
def test_an_injury_shows_in_curve_metrics_and_table(part):
    hurt = dataclasses.replace(SMALL, injury_at=18, **{part: 1.0})
    after, before = records("none", hurt)[0], records("none")[0]
    assert after["config_hash"] != before["config_hash"] and part not in before["config"]["protocol"]
    curve = lambda record: record["loss_curve"][:18]
    assert curve(after) == curve(before) and after["loss_curve"][18:] != before["loss_curve"][18:]
    assert "injury_loss" in after["metrics"] and "injury_loss" not in before["metrics"]
    text = tables.markdown(summaries.summarize([after]))
    assert "| lost | steps to recover |" in text and "Steps to recover: until" in text
    with pytest.raises(UsageError, match=f"{part}=1.5"):
        dataclasses.replace(SMALL, **{part: 1.5})


def test_an_injury_that_cannot_be_is_refused():
    late = dataclasses.replace(SMALL, injury=0.5, injury_at=32)
    with pytest.raises(UsageError, match="injury_at=32: .* 32 steps"):
        records("none", late)
    of_classes = Job(
        suite.change(suite.load("split_digits"), {"tasks": 3, "injury": 0.5, "injury_at": 10**6}, {}), "class", "none"
    )
    with pytest.raises(UsageError, match="injury_at=1000000: split_digits has"):
        next(runner.run_job(of_classes, DATA, [0], Path("never")))
    with pytest.raises(UsageError, match="no names"):
        records("crelu", dataclasses.replace(SMALL, injury=0.5, injury_at=3))
