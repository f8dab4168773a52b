"""Runs a suite: builds its experiments, drives them seed by seed, and writes each result as soon as it is there."""

import dataclasses
import datetime
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import neuroml
from benchmarks import environment, results
from benchmarks.suite import NETWORKS, STREAMS, Suite
from neuroml import adaptation, metrics, online
from neuroml.errors import UsageError, unknown
from neuroml.experiment import Experiment
from neuroml.interventions import injured
from neuroml.learner import Learner, Task
from neuroml.method import Method
from neuroml.methods import methods
from neuroml.running import Result, choose_modes, devices_for, run
from neuroml.streams import scenarios
from neuroml.streams.dataset import Dataset
from neuroml.streams.scenarios import Maker

# Metrics of the accuracy on each batch before it was learnt.
ONLINE = {
    "online_accuracy": online.online_accuracy,
    "early_accuracy": online.early_accuracy,
    "online_slope": online.online_slope,
    "late_minus_early_tasks": online.late_minus_early_tasks,
}

# Metrics of the same around an injury.
INJURY = {"injury_loss": online.injury_loss, "recovery_steps": online.recovery_steps}

# Vital signs at the end of the stream.
VITALS = {"dead units": "dead_units", "dormant units": "dormant_units", "effective rank": "effective_rank"}

# Points of a learning curve that a result file keeps.
CURVE = 200


@dataclasses.dataclass(frozen=True)
class Job:
    """One method of a suite in one scenario."""

    suite: Suite
    scenario: str
    name: str

    @property
    def method(self) -> Method:
        """The recipe."""
        return methods[self.name]

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The numbers that the method runs with, the learning rate among them."""
        given = self.suite.given(self.name, self.scenario)
        full = {name: given.get(name, default) for name, default in self.method.hyperparameters.items()}
        return {"learning_rate": given.get("learning_rate", self.suite.learning_rate), **full}

    @property
    def options(self) -> dict[str, Any]:
        """The static options that the method runs with."""
        given = self.suite.given(self.name, self.scenario)
        return {name: given.get(name, default) for name, default in self.method.options.items()}

    @property
    def config(self) -> dict[str, Any]:
        """All that a result depends on but the seed and the code."""
        identity = {"suite": self.suite.name, "data": self.suite.data, "scenario": self.scenario, "method": self.name}
        young = self.method.young
        settings = {**self.hyperparameters, **self.options}
        settings = {name: v for name, v in settings.items() if name not in young or v != young[name]}
        protocol = {**self.suite.protocol(), "batch_size": self.batch_size}
        return {**identity, "protocol": protocol, "hyperparameters": settings}

    @property
    def batch_size(self) -> int:
        """Examples a step."""
        return self.suite.batch_sizes.get(self.name, self.suite.batch_size)

    @property
    def _iterations(self) -> int | None:
        """Joint training has one phase, and takes as many steps in it as the others take in all."""
        if self.suite.iterations is None or not self.method.joint:
            return self.suite.iterations
        return self.suite.iterations * self.suite.tasks

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment, compiled once for all seeds."""
        suite = self.suite
        return Experiment(
            self.method,
            network_of(suite, self.method),
            maker_of(suite, self.scenario),
            batch_size=self.batch_size,
            epochs=suite.epochs,
            iterations=self._iterations,
            optimizer=suite.optimizer,
            options=self.options,
            samples=suite.samples,
            evaluation=suite.evaluation,
            conditioning=adaptation.make(suite.conditioning) if suite.conditioning else None,
            inspected=suite.inspected,
            intervene=injury_of(suite),
        )


def network_of(suite: Suite, method: Method) -> Callable[[tuple[int, ...], int], neuroml.Network]:
    """Returns what makes the network of a suite and method for an image shape and a number of outputs."""
    settings = {"initialization": suite.initialization, **method.architecture}
    if suite.network == "mlp":
        return lambda shape, outputs: neuroml.mlp(shape, suite.hidden, outputs, **settings)
    if suite.network == "cnn":
        if method.architecture:
            raise UsageError(f"{method.summary!r} is for dense networks, and {suite.name} has network='cnn'.")
        return lambda shape, outputs: neuroml.cnn((shape[0], shape[1], shape[2]), outputs=outputs, **settings)
    raise unknown("network", suite.network, NETWORKS)


def injury_of(suite: Suite) -> Callable[[Learner, Task], Learner] | None:
    """Returns what destroys the suite's share of neurons and synapses at its step, or None."""
    shares = {"neurons": suite.injury, "synapses": suite.severed}
    if not any(shares.values()):
        return None

    def intervene(agent, task):
        if task.network.wiring is None:
            raise UsageError(f"{suite.name} destroys neurons, and the network of this method has no names for them.")
        for part, share in shares.items():
            agent = injured(agent, task.network.wiring, share, suite.injury_at, part=part) if share else agent
        return agent

    return intervene


def maker_of(suite: Suite, scenario: str) -> Maker:
    """Returns the suite's stream in a scenario."""
    if suite.stream not in STREAMS:
        raise unknown("stream", suite.stream, STREAMS)
    if suite.stream == "label_permuted":
        base = scenarios.label_permuted(suite.tasks, examples=suite.examples)
    elif suite.stream == "random_labels":
        base = scenarios.random_labels(suite.tasks, **({"examples": suite.examples} if suite.examples else {}))
    elif suite.stream == "permuted":
        base = scenarios.permuted(suite.tasks, scenario, pad=suite.pad, examples=suite.examples)
    elif suite.stream == "rotated":
        base = scenarios.rotated(suite.tasks, scenario, interpolation=suite.interpolation or "bilinear")
    else:
        base = scenarios.split(suite.tasks, scenario, ordered=suite.ordered)
    return base if suite.window is None else scenarios.blended(base, suite.window)


def jobs_of(suite: Suite, names: Sequence[str], chosen: Sequence[str], *, asked: bool = True) -> list[Job]:
    """Returns the jobs, and refuses at once what could only fail later.

    Methods are left out in scenarios that they are not for, unless they were `asked` for.
    """
    for name in names:
        if name not in methods:
            raise unknown("method", name, methods)
    for scenario in chosen:
        if scenario not in suite.scenarios:
            raise unknown(f"scenario of {suite.name}", scenario, suite.scenarios)
    fits = lambda name, scenario: asked or scenario in methods[name].scenarios
    jobs = [Job(suite, scenario, name) for scenario in chosen for name in names if fits(name, scenario)]
    for job in jobs:
        job.method.check(job.hyperparameters)
        if job.scenario not in job.method.scenarios:
            able = [scenario for scenario in job.method.scenarios if scenario in suite.scenarios]
            raise UsageError(
                f"{job.name} ({job.method.summary}) means nothing in a {job.scenario}-incremental stream: "
                f"run it with --scenario {' or '.join(able or job.method.scenarios)}"
                f"{'' if able else ' of a suite that has it'}."
            )
        if suite.window is not None and job.method.boundaries(job.options):
            able = sorted(name for name, method in methods.items() if not method.boundaries(method.options))
            raise UsageError(
                f"{job.name} consolidates where a task ends, and {suite.name} does not tell where that is. "
                f"These run without: {', '.join(able)}."
            )
    return jobs


def name_of(job: Job, usual_data: str) -> str:
    """Returns what the files of a job are called: its suite, and its data set where that is not the usual one."""
    return job.suite.name + ("" if job.suite.data == usual_data else f".{job.suite.data}")


def file_of(out: Path, job: Job, usual_data: str) -> Path:
    """Returns the result file of a job: one for each suite, data set and scenario."""
    return out / f"{name_of(job, usual_data)}.{job.scenario}.jsonl"


def run_job(
    job: Job,
    data: Dataset,
    seeds: Sequence[int],
    path: Path,
    report: Callable[[int], None] = lambda runs: None,
    *,
    fresh: bool = False,
) -> Iterator[dict[str, Any]]:
    """Runs a job for the seeds that its file does not hold yet, and yields the new records, already written.

    Args:
      job: what to run.
      data: the data set.
      seeds: which seeds.
      path: the result file.
      report: called with the number of seeds that have just been finished.
      fresh: also runs the seeds that the file holds; of two results the later one counts.
    """
    config = job.config
    identity = results.config_hash(config)
    done = {seed for known, name, seed in results.finished(path) if (known, name) == (identity, job.name)}
    todo = [seed for seed in seeds if fresh or seed not in done]
    if len(todo) < len(seeds):
        report(len(seeds) - len(todo))
    _require_injury(job, data)
    for group in _groups(job, data, todo):
        result = run(job.experiment, data, seeds=group, hyperparameters=job.hyperparameters)
        records = [_record(job, identity, seed, i, result) for i, seed in enumerate(group)]
        results.append(path, records)
        report(len(group))
        yield from records


def _require_injury(job: Job, data: Dataset) -> None:
    """Refuses an injury that would come after the last step."""
    if job.experiment.intervene is None:
        return
    stream = jax.eval_shape(lambda key: job.experiment.stream(data, key), jax.random.key(0))
    steps = job.experiment.steps(stream) * stream.phases
    if job.suite.injury_at >= steps:
        raise UsageError(f"injury_at={job.suite.injury_at}: {job.suite.name} has {steps} steps, counted from 0.")


def _groups(job: Job, data: Dataset, seeds: list[int]) -> Iterator[list[int]]:
    """Splits the seeds into calls: all at once where they are vmapped, else as many as there are devices."""
    if not seeds:
        return
    together = choose_modes(job.experiment, data)[1] == "vmap"
    width = len(seeds) if together else len(devices_for(job.experiment, len(seeds)))
    for first in range(0, len(seeds), width):
        yield seeds[first : first + width]


def _record(job: Job, identity: str, seed: int, i: int, result: Result) -> dict[str, Any]:
    accuracy = result.accuracy[i].astype(float)
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
        "loss_curve": _thinned(result.loss[i]),
        "online_accuracy_curve": _thinned(result.online_accuracy[i]),
        "diverged": diverged,
        "metrics": {
            **_metrics(accuracy),
            **_context_metrics(result.contexts[i, -1]),
            **_online_metrics(job, result.online_accuracy[i]),
            **{name: float(result.report[title][i, -1]) for title, name in VITALS.items() if title in result.report},
        },
        "online_by_task": _by_task(job, result.online_accuracy[i]),
        "report": {name: values[i].astype(float).tolist() for name, values in result.report.items()},
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
    if job.suite.measure != "online_accuracy":
        return {}
    found = {name: float(measure(steps)) for name, measure in ONLINE.items()}
    if not (job.suite.injury or job.suite.severed):
        return found
    return found | {name: float(measure(steps, job.suite.injury_at)) for name, measure in INJURY.items()}


def _by_task(job: Job, steps: np.ndarray) -> list[float]:
    """Returns the online accuracy of each task, where the suite is about it."""
    return [float(f"{x:.5g}") for x in np.nanmean(steps, axis=1)] if job.suite.measure == "online_accuracy" else []


def _context_metrics(counts: np.ndarray) -> dict[str, float]:
    """Returns the share of test images taken for their own task's context, if the method infers contexts.

    Contexts have no names, so each task is given the one that makes this share largest, none to two tasks.
    """
    if not counts.size:
        return {}
    from scipy.optimize import linear_sum_assignment

    return {"context_accuracy": float(counts[linear_sum_assignment(-counts)].sum() / counts.sum())}


def _thinned(curve: np.ndarray) -> list[float]:
    """Returns the means of at most `CURVE` stretches of a curve over all phases, idle steps left out."""
    flat = curve.reshape(-1)
    flat = flat[~np.isnan(flat)]
    parts = np.array_split(flat, min(CURVE, flat.size)) if flat.size else []
    return [float(f"{part.mean():.5g}") for part in parts]
