import math
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from scipy import stats

from benchmarks.statistics import mean_interval, paired
from neuroml.errors import UsageError

values = strategies.lists(strategies.floats(0, 1), min_size=2, max_size=12)


def test_interval_by_hand():
    # n = 4, mean 2.5, variance 5/3, standard error sqrt(5/12), t(0.975, 3) = 3.182446 from the table.
    mean, low, high = mean_interval([1, 2, 3, 4])
    assert mean == 2.5
    assert high - mean == pytest.approx(3.182446 * math.sqrt(5 / 12), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


@hypothesis.given(values, strategies.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_agrees_with_scipy(sample, confidence):
    hypothesis.assume(np.std(sample) > 1e-6)
    expected = stats.t.interval(confidence, len(sample) - 1, np.mean(sample), stats.sem(sample))
    np.testing.assert_allclose(mean_interval(sample, confidence)[1:], expected, rtol=1e-9, atol=1e-9)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(4000, 3))
    held = [low < 0 < high for _, low, high in map(mean_interval, samples)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan"), math.inf])
def test_diverged_seeds_are_left_out(missing):
    assert mean_interval([0.5, missing, 0.75]) == mean_interval([0.5, 0.75])


def test_few_values():
    one = mean_interval([0.5, None])
    assert one.mean == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    assert all(map(math.isnan, mean_interval([])))
    assert mean_interval([0.1] * 10) == pytest.approx((0.1, 0.1, 0.1), abs=1e-15)


def test_half_width():
    assert mean_interval([0.0, 1.0]).half_width == pytest.approx(12.7062047 / 2, rel=1e-6)  # t(0.975, 1)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_fraction(confidence):
    with pytest.raises(UsageError, match="between 0 and 1"):
        mean_interval([1, 2], confidence)


@hypothesis.given(strategies.lists(strategies.tuples(strategies.floats(0, 1), strategies.floats(0, 1)), min_size=2))
def test_paired_agrees_with_scipy(pairs):
    first, second = np.array(pairs).T
    hypothesis.assume(np.std(first - second) > 1e-6)
    expected = stats.ttest_rel(first, second)
    result = paired(dict(enumerate(first)), dict(enumerate(second)))
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-12)
    interval = expected.confidence_interval()
    np.testing.assert_allclose(result[1:3], interval, rtol=1e-9, atol=1e-9)


def test_only_the_seeds_that_both_finished_count():
    first = {0: 0.9, 1: 0.8, 2: None, 3: 0.7, 7: 0.1}
    second = {3: 0.6, 1: 0.5, 0: 0.8, 2: 0.9, 8: 0.0}  # another order; seeds 2, 7 and 8 have no partner
    assert paired(first, second) == paired({0: 0.9, 1: 0.8, 3: 0.7}, {0: 0.8, 1: 0.5, 3: 0.6})
    assert paired(first, second).difference == pytest.approx((0.1 + 0.3 + 0.1) / 3)


def test_swapping_the_methods_turns_the_sign_only():
    first, second = {0: 0.9, 1: 0.7, 2: 0.8}, {0: 0.5, 1: 0.6, 2: 0.2}
    there, back = paired(first, second), paired(second, first)
    assert back == pytest.approx((-there.difference, -there.high, -there.low, there.p_value))


def test_pairs_that_do_not_vary():
    same = {0: 0.5, 1: 0.25}
    assert paired(same, same) == (0.0, 0.0, 0.0, 1.0)
    assert paired({0: 1.0, 1: 0.75}, same) == (0.5, 0.5, 0.5, 0.0)


def test_too_few_pairs():
    one = paired({0: 0.75}, {0: 0.5})
    assert one.difference == 0.25 and all(map(math.isnan, one[1:]))
    assert all(map(math.isnan, paired({0: 1.0}, {1: 1.0})))


def test_scipy_is_not_imported_with_the_module():
    code = "import sys, benchmarks.statistics; sys.exit('scipy' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
