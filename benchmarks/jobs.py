"""Jobs: one method of a suite in one scenario, with its experiment and what identifies its results."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import neuroml
from benchmarks.suite import NETWORKS, STREAMS, Suite
from neuroml import adaptation
from neuroml.errors import UsageError, unknown
from neuroml.experiment import Experiment
from neuroml.interventions import injured
from neuroml.learner import Learner, Task
from neuroml.method import Method
from neuroml.methods import methods
from neuroml.modules.network import standardized
from neuroml.streams import scenarios
from neuroml.streams.scenarios import Maker


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
            network_of(suite, self.method, self.options),
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


def network_of(
    suite: Suite, method: Method, options: Mapping[str, Any]
) -> Callable[[tuple[int, ...], int], neuroml.Network]:
    """Returns what makes the network of a suite and method for an image shape and a number of outputs.

    Inputs that running statistics normalize are not standardized by the suite's two constants as well.
    """
    settings = {"initialization": suite.initialization, **method.architecture}
    normalized = suite.conditioning or method.conditions(options)
    scaled = lambda network: network if normalized else standardized(network, *suite.standardized)
    if suite.network == "mlp":
        return lambda shape, outputs: scaled(neuroml.mlp(shape, suite.hidden, outputs, **settings))
    if suite.network == "cnn":
        if method.architecture:
            raise UsageError(f"{method.summary!r} is for dense networks, and {suite.name} has network='cnn'.")
        return lambda shape, outputs: scaled(neuroml.cnn((shape[0], shape[1], shape[2]), outputs=outputs, **settings))
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
        given = {} if suite.examples is None else {"examples": suite.examples}
        base = scenarios.random_labels(suite.tasks, **given)
    elif suite.stream == "permuted":
        own = {"pad": suite.pad, "examples": suite.examples, "shared_head": suite.shared_head}
        base = scenarios.permuted(suite.tasks, scenario, **own)
    elif suite.stream == "rotated":
        own = {"interpolation": suite.interpolation or "bilinear", "shared_head": suite.shared_head}
        base = scenarios.rotated(suite.tasks, scenario, **own)
    else:
        base = scenarios.split(suite.tasks, scenario, ordered=suite.ordered)
    return base if suite.window is None else scenarios.blended(base, suite.window)


def recipes(names: Sequence[str]) -> dict[str, Method]:
    """Returns methods by name, and refuses one that does not exist."""
    for name in names:
        if name not in methods:
            raise unknown("method", name, methods)
    return {name: methods[name] for name in names}


def jobs_of(suite: Suite, names: Sequence[str], chosen: Sequence[str], *, asked: bool = True) -> list[Job]:
    """Returns the jobs, and refuses at once what could only fail later.

    Methods are left out in scenarios that they are not for, unless they were `asked` for.
    """
    recipes(names)
    for scenario in chosen:
        if scenario not in suite.scenarios:
            raise unknown(f"scenario of {suite.name}", scenario, suite.scenarios)
    fits = lambda name, scenario: asked or scenario in methods[name].scenarios
    jobs = [Job(suite, scenario, name) for scenario in chosen for name in names if fits(name, scenario)]
    for job in jobs:
        job.method.check(job.hyperparameters)
        if not job.hyperparameters["learning_rate"] >= 0:
            raise UsageError(
                f"learning_rate={job.hyperparameters['learning_rate']:g} of {job.name} must be at least 0."
            )
        _check_stream(job)
    return jobs


def _check_stream(job: Job) -> None:
    """Refuses a method in a scenario that it is not for, or on a stream that does not tell it what it must know."""
    suite = job.suite
    if job.scenario not in job.method.scenarios:
        able = [scenario for scenario in job.method.scenarios if scenario in suite.scenarios]
        raise UsageError(
            f"{job.name} ({job.method.summary}) means nothing in a {job.scenario}-incremental stream: "
            f"run it with --scenario {' or '.join(able or job.method.scenarios)}"
            f"{'' if able else ' of a suite that has it'}."
        )
    if job.method.own_heads and job.scenario == "task" and suite.shared_head:
        raise UsageError(f"{job.name} takes each task to have its own outputs, and those of {suite.name} share them.")
    if suite.window is not None and _needs_tasks(job.method, job.options):
        able = sorted(name for name, method in methods.items() if not _needs_tasks(method, method.options))
        raise UsageError(
            f"{job.name} must be told where a task ends, and {suite.name} does not tell where that is. "
            f"These run without: {', '.join(able)}."
        )


def _needs_tasks(method: Method, options: Mapping[str, Any]) -> bool:
    """Says whether a method consolidates where a task ends, or takes a batch to be of one task."""
    return method.boundaries(options) or method.scenarios == ("task",)


def name_of(job: Job, usual_data: str) -> str:
    """Returns what the files of a job are called: its suite, and its data set where that is not the usual one."""
    return job.suite.name + ("" if job.suite.data == usual_data else f".{job.suite.data}")


def file_of(out: Path, job: Job, usual_data: str) -> Path:
    """Returns the result file of a job: one for each suite, data set and scenario."""
    return out / f"{name_of(job, usual_data)}.{job.scenario}.jsonl"
