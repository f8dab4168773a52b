"""Metrics of learning along a stream, on streams whose numbers are known."""

import numpy as np
import pytest

from neuroml import online
from neuroml.errors import UsageError

# Two tasks of 300 steps: wrong for 100 steps, then right; the second learnt in half the time.
STEPS = np.stack([np.arange(300) >= 100, np.arange(300) >= 50]).astype(float)


def test_means_over_all_steps_and_over_the_first_after_a_shift():
    assert online.online_accuracy(STEPS) == pytest.approx(450 / 600)
    assert online.early_accuracy(STEPS) == pytest.approx(200 / 250)  # the first task is no shift


def test_slope_and_late_minus_early_tell_a_loss_from_a_gain():
    falling = np.repeat(np.linspace(0.9, 0.5, 41)[:, None], 10, axis=1)
    assert online.online_slope(falling) == pytest.approx(-1.0)  # .01 a task, in points per 100 tasks
    assert online.late_minus_early_tasks(falling) == pytest.approx(0.515 - 0.885)
    assert online.online_slope(falling[::-1]) == pytest.approx(1.0)


def test_steps_that_a_task_does_not_have_count_nowhere():
    ragged = np.concatenate([STEPS, np.full((2, 100), np.nan)], axis=1)
    assert online.online_accuracy(ragged) == online.online_accuracy(STEPS)
    assert online.late_minus_early_tasks(ragged) == online.late_minus_early_tasks(STEPS)


def test_one_task_has_no_slope():
    assert np.isnan(online.online_slope(STEPS[:1])) and np.isnan(online.early_accuracy(STEPS[:1]))


def test_an_injury_is_found_by_the_steps_that_were_taken():
    """Rows of phases of different length are padded with NaN, and the injury is counted in real steps."""
    ragged = np.full((3, 8), np.nan)
    ragged[0, :3], ragged[1], ragged[2, :5] = 0.9, [0.8] * 4 + [0.1, 0.4, 0.8, 0.8], 0.7
    settings = {"window": 2, "before": 4}
    assert online.recovery_steps(ragged, 3 + 4, **settings) == 4  # step 4 of the second task
    weaker = np.where(ragged == 0.8, 0.6, ragged)  # had less before, and is held to what the other had
    assert online.recovery_steps(weaker, 3 + 4, **settings) == 4
    assert np.isnan(online.recovery_steps(weaker, 3 + 4, uninjured=ragged, **settings))
    assert online.injury_loss(ragged, 3 + 4, **settings) == pytest.approx(0.8 - 0.25)
    assert np.isnan(online.recovery_steps(ragged, 3, **settings))  # a task's first step
    assert np.isnan(online.recovery_steps(ragged, 3 + 8 + 4, **settings))  # one step is left
    assert online.injury_loss(ragged, 3 + 8 + 4, **settings) == pytest.approx(0)


@pytest.mark.parametrize("measure", [online.recovery_steps, online.injury_loss])
@pytest.mark.parametrize("at", [-1, 600])
def test_an_injury_outside_the_stream_is_refused(measure, at):
    with pytest.raises(UsageError, match=f"no step {at} in a stream of 600"):
        measure(STEPS, at)


def test_steps_below_one_are_refused():
    with pytest.raises(UsageError, match="steps=-1"):
        online.early_accuracy(STEPS, steps=-1)
