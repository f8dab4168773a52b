"""How well a learner keeps learning: numbers from the accuracy on each batch before it was learnt.

`online[t, s]` is the accuracy on the batch of step s of task t, the weights not having seen it. NaN marks steps that a
task does not have. These metrics take numpy arrays and return floats.
"""

import numpy as np
from jaxtyping import Float

from neuroml.errors import UsageError

Online = Float[np.ndarray, "tasks steps"]


def online_accuracy(online: Online) -> float:
    """Mean over the whole stream (Dohare et al. 2024, Elsayed and Mahmood 2024).

    >>> online_accuracy(np.array([[0.0, 1.0], [1.0, 1.0]]))
    0.75
    """
    return float(np.nanmean(online))


def early_accuracy(online: Online, *, steps: int = 250) -> float:
    """Mean over the first steps after each shift: how fast something new is learnt. The first task is no shift.

    >>> early_accuracy(np.array([[0.0, 1.0, 1.0], [0.5, 0.6, 1.0]]), steps=2)
    0.55
    """
    if steps < 1:
        raise UsageError(f"steps={steps} must be at least 1.")
    return float(np.nanmean(online[1:, :steps])) if len(online) > 1 else float("nan")


def online_slope(online: Online) -> float:
    """Slope of the mean of each task along the stream, by least squares: below zero where the ability to learn is lost.

    In units of accuracy per 100 tasks.

    >>> round(online_slope(np.array([[0.5], [0.6], [0.7]])), 6)
    10.0
    """
    if len(online) < 2:
        return float("nan")
    return float(100 * np.polyfit(np.arange(len(online)), np.nanmean(online, axis=1), 1)[0])


def late_minus_early_tasks(online: Online, *, share: float = 0.1) -> float:
    """Mean of the last tasks minus that of as many first ones, a `share` of all each, at least one.

    >>> round(late_minus_early_tasks(np.linspace(0.5, 0.8, 20)[:, None]), 3)
    0.284
    """
    by_task, count = np.nanmean(online, axis=1), max(1, round(share * len(online)))
    return float(by_task[-count:].mean() - by_task[:count].mean())


def recovery_steps(
    online: Online,
    at: int,
    *,
    share: float = 0.95,
    window: int = 10,
    before: int = 200,
    uninjured: Online | None = None,
) -> float:
    """Steps after an injury just before step `at` until accuracy is back at a share of what it was.

    `at` counts the steps that were taken, from 0 over the whole stream, as `neuroml.interventions.injured` does.
    What it was is the mean of up to `before` steps until the injury, in the same task; what it is, the mean of the last
    `window` steps, all of them after the injury, so that `window` is the least. NaN where the task ends before, and for
    an injury at a task's first step. `uninjured` says what it was by another run on the same stream, such as one that
    nothing repairs: one bar for all.

    >>> recovery_steps(np.array([[0.8, 0.8, 0.1, 0.5, 0.8, 0.8]]), 2, window=2, before=2)
    4.0
    >>> recovery_steps(np.array([[0.8, 0.8, 0.8]]), 2, window=2)  # not enough steps are left
    nan
    """
    then, after = _around(online, at, before)
    then = then if uninjured is None else _around(uninjured, at, before)[0]
    if len(after) < window:
        return float("nan")
    means = np.convolve(after, np.ones(window) / window, "valid")
    back = np.flatnonzero(means >= share * then)
    return float(back[0] + window) if len(back) else float("nan")


def injury_loss(online: Online, at: int, *, window: int = 10, before: int = 200) -> float:
    """Accuracy before an injury minus that in the first steps after it.

    >>> round(injury_loss(np.array([[0.8, 0.8, 0.1, 0.5]]), 2, window=1, before=2), 2)
    0.7
    """
    then, after = _around(online, at, before)
    return then - float(after[:window].mean())


def _around(online: Online, at: int, before: int) -> tuple[float, np.ndarray]:
    """Returns the mean of up to `before` steps until step `at`, NaN at a task's begin, and the steps from it on."""
    taken = ~np.isnan(online)
    ends = np.cumsum(taken.sum(axis=1))
    if not 0 <= at < ends[-1]:
        raise UsageError(f"there is no step {at} in a stream of {ends[-1]} steps: count from 0 over the whole of it.")
    task = int(np.searchsorted(ends, at, side="right"))
    steps = online[task][taken[task]]
    step = at - int(ends[task]) + len(steps)
    return float(steps[max(0, step - before) : step].mean()) if step else float("nan"), steps[step:]
