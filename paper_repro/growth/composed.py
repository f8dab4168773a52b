"""Growth with EWC and with replay: neurons that are born in later tasks, against a network that has all from the start.

    python -m paper_repro.growth.composed [--seeds 10] [--out paper_repro/growth/results]

Five permutations of the suite `growth_100`, and split MNIST with two outputs for all five pairs of digits
(domain-incremental); 100 neurons a layer, half of them in reserve at first and born one by one over three tasks. EWC
holds newborns freely (`neuroml.renewal`'s default: their weights have no importance yet) or as firmly as their elders
(`newborns="held"`). Each row has the best of the same trials on tuning seeds and held-out images. Written to
`composed.json`: accuracy on all tasks at the end, on each just after it and on the first at the end, in %, for each
seed. Ten minutes on one core.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax

from benchmarks import environment, results
from benchmarks.jobs import Job
from benchmarks.suite import Suite, change, load
from benchmarks.tuning import FIRST_SEED
from neuroml import growing, memory
from neuroml.learner import make_learner
from neuroml.method import Method, Settings, Situation, always, fisher_of, wiring_of
from neuroml.methods import methods
from neuroml.renewing import renewal
from neuroml.rules.er import er
from neuroml.rules.ewc import ewc
from neuroml.rules.growth import growth
from neuroml.running import Result, run
from neuroml.streams import sources
from neuroml.streams.dataset import Dataset
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
STREAMS = {"permuted": ("growth_100", {"tasks": 5}), "split": ("split_mnist_one_pass", {})}
SAME = {"hidden": (100, 100), "batch_size": 32}
RATES, TRIAL_SEEDS = (0.03, 0.1, 0.3), 2
STRENGTHS = {"ewc": (3.0, 30.0, 300.0, 3000.0), "er": (0.3, 1.0, 3.0, 10.0)}
ROWS = (("ewc", "fixed"), ("ewc", "free"), ("ewc", "held"), ("er", "fixed"), ("er", "free"))


def _base(at: Situation, given: Settings, kind: str) -> optax.GradientTransformation:
    if kind == "ewc":
        return optax.chain(at.optimizer, ewc(given["strength"], step_size=at.learning_rate))
    store = memory.reservoir(500)
    rule = er(at.task.loss, at.example, store, batch_size=at.batch_size, strength=given["strength"])
    return optax.chain(rule, at.optimizer)


def method(kind: str, how: str) -> Method:
    """Returns EWC or replay on a fixed network, or on one that grows and holds its newborns so."""

    def learner(at: Situation, given: Settings) -> Any:
        importance = fisher_of(given) if kind == "ewc" else None
        if how == "fixed":
            return make_learner(at.task, _base(at, given, kind), importance)
        names, network = wiring_of(at), at.task.network

        def init(key: Any) -> Any:
            params, state = network.init(key)
            return growing.reserve(params, names, 0.5), state

        rule = growth(names, lambda key: network.init(key)[0], when="steps", patience=8, directions="random")
        task = at.task._replace(network=network._replace(init=init))
        chain = renewal(_base(at, given, kind), rule, names, newborns=how)
        return make_learner(task, chain, importance, activity=True)

    told = always if kind == "ewc" else lambda given: False
    return Method(f"{kind}, {how}", learner=learner, hyperparameters={"strength": 1.0}, boundaries=told)


def runs(one: Method, suite: Suite, data: Dataset, seeds: range, trials: Settings) -> Result:
    """Returns runs of a method for each seed and each of the trials."""
    fixed = Job(suite, "domain", "fixed").experiment
    experiment = dataclasses.replace(fixed, method=one, options={}, evaluation="all", inspected=0)
    return run(experiment, data, seeds=seeds, hyperparameters=trials)


def row(stream: str, kind: str, how: str, seeds: int) -> dict[str, Any]:
    """Returns what was tried and chosen, and what each seed came to with it."""
    name, changes = STREAMS[stream]
    suite, data, one = change(load(name), SAME | changes, methods), sources.load("mnist"), method(kind, how)
    pairs = list(itertools.product(RATES, STRENGTHS[kind]))
    tried = {"learning_rate": [rate for rate, _ in pairs], "strength": [strength for _, strength in pairs]}
    found = runs(one, suite, data.held_out(), range(FIRST_SEED, FIRST_SEED + TRIAL_SEEDS), tried)
    scores = found.accuracy[:, :, -1].mean((1, 2))
    chosen = pairs[int(jnp.nanargmax(scores))]
    best: dict[str, float] = {"learning_rate": chosen[0], "strength": chosen[1]}
    result = runs(one, suite, data, range(seeds), best)
    tasks = range(result.accuracy.shape[-1])
    return {
        "trials": [[*pair, 100 * float(score)] for pair, score in zip(pairs, scores, strict=True)],
        "chosen": best,
        "accuracy": results.plain(100 * result.accuracy[:, -1].mean(-1)),
        "learnt": results.plain(100 * result.accuracy[:, tasks, tasks].mean(-1)),
        "first_task": results.plain(100 * result.accuracy[:, -1, 0]),
    }


def work(seeds: int, out: Path) -> None:
    """Runs what is not in the file yet, and adds it."""
    environment.prepare_jax()
    path = out / "composed.json"
    record = scripts.resumed(path, {"seeds": seeds, "first_seed": FIRST_SEED, "trial_seeds": TRIAL_SEEDS})
    for stream, (kind, how) in itertools.product(STREAMS, ROWS):
        name = f"{stream}, {kind}, {how}"
        if name not in record["found"]:
            record["found"][name] = row(stream, kind, how, seeds)
            results.write_text(path, json.dumps(record, indent=1) + "\n")
        one = record["found"][name]
        means = ", ".join(
            f"{what} {sum(one[what]) / len(one[what]):.1f}" for what in ("accuracy", "learnt", "first_task")
        )
        print(f"{name}: {means} with {one['chosen']}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=10, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
