"""Means over seeds with the interval that belongs to them, and the paired test between two methods.

A seed whose run diverged has no value: None, NaN or an infinity is left out here. It is counted where results
are shown (`benchmarks.summaries.Summary.diverged`), since a mean over the survivors alone flatters a method.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from neuroml.errors import UsageError


class Interval(NamedTuple):
    """A mean and its confidence interval; NaN where it is undefined."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Distance from the mean to either end."""
        return (self.high - self.low) / 2


class Comparison(NamedTuple):
    """The mean difference of two methods on the same seeds, its interval and p value; NaN where undefined."""

    difference: float
    low: float
    high: float
    p_value: float


def mean_interval(values: Iterable[float | None], confidence: float = 0.95) -> Interval:
    """Mean over seeds, and the interval that holds the true mean with the given confidence.

        low, high = mean -+ t(confidence, n - 1) * standard_deviation / sqrt(n)

    with Student's t and the standard deviation of a sample (n - 1).

    Args:
        values: One a seed; None, NaN and infinities are left out.
        confidence: Between 0 and 1.

    Returns:
        `(mean, low, high)`; with one value low and high are NaN, with none all three are.

    Raises:
        UsageError: The confidence is not between 0 and 1.

    >>> mean_interval([0.5])
    Interval(mean=0.5, low=nan, high=nan)
    >>> mean, low, high = mean_interval([0.7, 0.8, 0.9, None])
    >>> f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    '0.80 [0.55, 1.05]'
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}, but must lie between 0 and 1, such as 0.95.")
    kept = list(filter(math.isfinite, map(_number, values)))
    if not kept:
        return Interval(math.nan, math.nan, math.nan)
    mean, error = _mean_and_error(kept)
    half = math.nan if len(kept) < 2 else _student(confidence, len(kept) - 1) * error
    return Interval(mean, mean - half, mean + half)


def paired(
    first: Mapping[int, float | None], second: Mapping[int, float | None], confidence: float = 0.95
) -> Comparison:
    """Compares two methods on the seeds that both finished, by Student's paired t-test (two-sided).

        difference = mean_seed first[seed] - second[seed]

    One seed gives both methods the same data order and initial weights, so the difference cancels what they
    share. The p value is not corrected for the number of comparisons.

    Args:
        first: Value of each seed of one method.
        second: Value of each seed of the other.
        confidence: Of the interval around the difference, between 0 and 1.

    Returns:
        `(difference, low, high, p_value)`: all NaN without a common seed, all but the difference with one.
        Where every pair differs by the same amount, the p value is 1 if that is zero and 0 otherwise.

    Raises:
        UsageError: The confidence is not between 0 and 1.

    >>> result = paired({0: 0.9, 1: 0.8, 2: 0.9, 3: 0.7}, {0: 0.8, 1: 0.7, 2: 0.7, 4: 0.1})
    >>> f"{result.difference:.3f} [{result.low:.3f}, {result.high:.3f}], p = {result.p_value:.3f}"
    '0.133 [-0.010, 0.277], p = 0.057'
    """
    pairs = [(_number(value), _number(second.get(seed))) for seed, value in first.items()]
    differences = [one - other for one, other in pairs if math.isfinite(one) and math.isfinite(other)]
    return Comparison(*mean_interval(differences, confidence), _p_value(differences))


def _p_value(differences: list[float]) -> float:
    """Returns the two-sided p value of a mean of zero."""
    from scipy import special  # slow to import, and the command line must answer before it

    if len(differences) < 2:
        return math.nan
    mean, error = _mean_and_error(differences)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(len(differences) - 1, -abs(mean) / error))


def _student(confidence: float, freedom: int) -> float:
    """Returns how many standard errors the interval reaches to either side."""
    from scipy import special

    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    """Returns the mean and its standard error (NaN for one value)."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)


def _number(value: float | None) -> float:
    """Returns the value as a float, NaN for None."""
    return math.nan if value is None else float(value)
