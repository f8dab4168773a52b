"""Records: what a result file holds of one run."""

import datetime
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.jobs import Job
from benchmarks.summaries import vital_signs
from neuroml import metrics, online
from neuroml.running import Result

# Metrics of the accuracy on each batch before it was learnt.
ONLINE = {
    "online_accuracy": online.online_accuracy,
    "early_accuracy": online.early_accuracy,
    "online_slope": online.online_slope,
    "late_minus_early_tasks": online.late_minus_early_tasks,
}

# Metrics of the same around an injury.
INJURY = {"injury_loss": online.injury_loss, "recovery_steps": online.recovery_steps}

# Points of a learning curve that a result file keeps.
CURVE = 200


def record_of(job: Job, identity: str, seed: int, i: int, result: Result) -> dict[str, Any]:
    """Returns what is kept of seed number `i` of a result, and says so where it diverged."""
    accuracy = result.accuracy[i].astype(float)
    loss, online_accuracy = result.loss[i], result.online_accuracy[i]
    idle = np.isnan(loss) & np.isnan(online_accuracy)  # steps beyond the end of a short phase
    report = {name: values[i].astype(float).tolist() for name, values in result.report.items()}
    phase, step = (int(number) for number in result.diverged[i])
    diverged = None if phase < 0 else {"phase": phase, "step": step}
    if diverged:
        where = f"task {phase}, step {step}"
        print(
            f"{job.name}, seed {seed}: the loss stopped being finite at {where}; this run is marked diverged. "
            "Other seeds are not touched. A smaller learning rate or strength may help.",
            file=sys.stderr,
        )
    return {
        "suite": job.suite.name,
        "data": job.suite.data,
        "scenario": job.scenario,
        "method": job.name,
        "seed": seed,
        "config": job.config,
        "config_hash": identity,
        "accuracy": accuracy.tolist(),
        "loss_curve": _thinned(loss[~idle]),
        "online_accuracy_curve": _thinned(online_accuracy[~idle]),
        "diverged": diverged,
        "metrics": {
            **_metrics(accuracy),
            **context_metrics(result.contexts[i, -1]),
            **_online_metrics(job, online_accuracy),
            **vital_signs(report),
        },
        "online_by_task": _by_task(job, online_accuracy),
        "report": report,
        "bytes": result.bytes,
        "flops": result.flops,
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
        "modes": result.modes,
        **_environment(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _environment() -> dict[str, Any]:
    """Returns where the code runs and which code it is, as it was at the first result."""
    return environment.environment()


def _metrics(accuracy: np.ndarray) -> dict[str, float | None]:
    """Returns the metrics of one accuracy matrix; those that need a row a task are None for joint training."""
    square = accuracy.shape[0] == accuracy.shape[1] > 1
    later: Mapping[str, Callable[[np.ndarray], Any]] = {
        "average_incremental_accuracy": metrics.average_incremental_accuracy,
        "learning_accuracy": metrics.learning_accuracy,
        "forgetting": metrics.forgetting,
        "backward_transfer": metrics.backward_transfer,
    }
    found = {name: float(measure(accuracy)) if square else None for name, measure in later.items()}
    return {"accuracy": float(metrics.average_accuracy(accuracy)), **found}


def _online_metrics(job: Job, steps: np.ndarray) -> dict[str, float]:
    """Returns the metrics of the accuracy of steps [phases, steps], where the suite is about it."""
    if not job.suite.is_online:
        return {}
    found = {name: float(measure(steps)) for name, measure in ONLINE.items()}
    if not (job.suite.injury or job.suite.severed):
        return found
    return found | {name: float(measure(steps, job.suite.injury_at)) for name, measure in INJURY.items()}


def _by_task(job: Job, steps: np.ndarray) -> list[float]:
    """Returns the online accuracy of each task, where the suite is about it."""
    return [float(f"{x:.5g}") for x in np.nanmean(steps, axis=1)] if job.suite.is_online else []


def context_metrics(counts: np.ndarray) -> dict[str, float]:
    """Returns the share of test images taken for their own task's context, if the method infers contexts.

    Contexts have no names, so each task is given the one that makes this share largest, none to two tasks.
    """
    if not counts.size:
        return {}
    from scipy.optimize import linear_sum_assignment

    return {"context_accuracy": float(counts[linear_sum_assignment(-counts)].sum() / counts.sum())}


def _thinned(curve: np.ndarray) -> list[float]:
    """Returns the means of at most `CURVE` stretches of a curve, NaN where it is not finite; none if it nowhere is."""
    if not np.isfinite(curve).any():
        return []
    return [float(f"{part.mean():.5g}") for part in np.array_split(curve, min(CURVE, curve.size))]
