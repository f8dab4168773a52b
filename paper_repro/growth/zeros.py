"""What outgoing weights of zero at the start cost, in a fixed network and in growth, and what sprouting gives back.

    python -m paper_repro.growth.zeros [--seeds 10] [--out paper_repro/growth/results]

Split MNIST, class-incremental, settings of `split_mnist_growth`, tuning seeds and held-out training images. Kept in
`zeros.json`, by neurons a layer and what is silent at the start: for each seed, accuracy on all tasks at the end, the
mean accuracy on each task when it had just been learnt, and the share of the head's inputs that its core holds after
the first task. Rows that are in the file are not run again; delete it to begin anew, as after a change of settings. For
another number of seeds it is written anew. Printed: paired differences in accuracy from the fixed network. Twelve
minutes on one core.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp

import neuroml
from benchmarks import environment, results
from benchmarks.jobs import Job
from benchmarks.suite import change, load
from benchmarks.tuning import FIRST_SEED
from neuroml import surgery, units
from neuroml.methods import methods
from neuroml.running import run
from neuroml.streams import sources
from neuroml.streams.dataset import Dataset
from paper_repro import comparing, scripts

HOME = Path(__file__).parent / "results"
WIDTHS = (25, 100)
SILENT: Mapping[str, tuple[str, ...]] = {"nothing": (), "hidden_1": ("hidden_1",), "both": ("hidden_0", "hidden_1")}
GROWTH: dict[str, dict] = {"growth": {}, "growth at once": {"growth.number": 64.0, "growth.patience": 1.0}}
SPROUTING = ((30.0, 1.0), (100.0, 1.0), (300.0, 1.0), (100.0, 0.5))  # steps, strength
for _steps, _strength in SPROUTING:
    _changes = {"growth.sprouts": True, "growth.maturity": _steps, "growth.sprouting": _strength}
    GROWTH[f"growth sprouting {_strength:g} in {_steps:g} steps"] = _changes


def silenced(network: neuroml.Network, populations: Sequence[str]) -> neuroml.Network:
    """Returns the network in which the second half of some populations hands on nothing at the start."""

    def init(key):
        assert network.wiring is not None  # a `neuroml.mlp` has one
        params, state = network.init(key)
        found = units.find(network.wiring(params), params)
        first = lambda size: (jnp.arange(size) < math.ceil(size / 2)).astype(jnp.float32)
        return surgery.dampen(found, params, {name: first(found[name].size) for name in populations}), state

    return network._replace(init=init)


def trial(data: Dataset, width: int, method: str, changes: dict, silent: Sequence[str], seeds: int) -> dict:
    """Returns what each seed came to, shares in %."""
    suite = change(load("split_mnist_growth"), {"hidden": (width, width), **changes}, methods)
    job = Job(suite, "class", method)
    make = job.experiment.network
    experiment = dataclasses.replace(job.experiment, network=lambda *shape: silenced(make(*shape), silent))
    result = run(experiment, data, seeds=range(FIRST_SEED, FIRST_SEED + seeds), hyperparameters=job.hyperparameters)
    tasks = range(result.accuracy.shape[-1])
    return {
        "accuracy": results.plain(100 * result.accuracy[:, -1].mean(-1)),
        "learnt": results.plain(100 * result.accuracy[:, tasks, tasks].mean(-1)),
        "held": results.plain(100 * result.report["held head"][:, 0]),
    }


def work(seeds: int, out: Path) -> None:
    """Runs what is not in the file yet, and adds it."""
    environment.prepare_jax()
    path, data = out / "zeros.json", sources.load("mnist").held_out()
    record = scripts.resumed(path, {"first_seed": FIRST_SEED, "seeds": seeds})
    trials = {name: ("fixed", {}, silent) for name, silent in SILENT.items()}
    trials |= {name: ("growth", changes, ()) for name, changes in GROWTH.items()}
    for width in WIDTHS:
        rows = record["found"].setdefault(str(width), {})
        for name, (method, changes, silent) in trials.items():
            if name not in rows:
                rows[name] = trial(data, width, method, changes, silent, seeds)
                results.write_text(path, json.dumps(record, indent=1) + "\n")
        for line in lines(width, rows):
            print(line, flush=True)


def lines(width: int, rows: Mapping[str, Mapping[str, list]]) -> list[str]:
    """Returns a line for each row: means, and the paired difference in accuracy from the fixed network."""
    usual = dict(enumerate(rows["nothing"]["accuracy"]))
    mean = lambda row: ", ".join(f"{name} {sum(values) / len(values):.1f}" for name, values in row.items())
    compared = {name: comparing.compared(dict(enumerate(row["accuracy"])), usual) for name, row in rows.items()}
    return [f"{width} neurons, silent {name}: {mean(row)}; {compared[name]}" for name, row in rows.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=10, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
