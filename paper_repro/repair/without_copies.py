"""Controls of what nanotubes do: survivors that make up for what is gone, without copies of anybody.

    python -m paper_repro.repair.without_copies [--seeds 30] [--out paper_repro/repair/results]

At the injury, what survivors hand on is raised as nanotubes raise it, by half of what is gone. The destroyed then stay
so (`none`), or begin anew (`random_rebirth`). Written to `without_copies.json`, for each share and seed: batches until
95 % of the accuracy before the injury, accuracy on all tasks at the end and on those before the injured one when that
ends, in %. `python -m paper_repro.repair.compare` holds them against nanotubes. Five minutes on one core.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from benchmarks import environment, results
from benchmarks.jobs import Job, injury_of
from benchmarks.suite import change, load
from neuroml import online, surgery, units
from neuroml.learner import Learner
from neuroml.methods import methods
from neuroml.running import run
from neuroml.streams import sources
from neuroml.streams.dataset import Dataset
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
INJURIES = (0.5, 0.8)
METHODS = ("none", "random_rebirth")
COMPENSATION = 0.5


def compensated(inner: Learner, wiring: Callable[[Any], Any] | None, amount: float) -> Learner:
    """Makes a learner whose survivors hand on `1 + amount * destroyed / surviving` times what they did.

    It is done once, at the injury, in each population.
    """
    assert wiring is not None

    def destroy(state, hurt):
        state = inner.destroy(state, hurt)
        found = units.find(wiring(state.params), state.params)
        gone = units.destroyed(found, state.params)
        more = lambda dead: jnp.where(dead, 1, 1 + amount * dead.sum() / jnp.maximum((~dead).sum(), 1))
        raised = surgery.dampen(found, state.params, {name: more(dead) for name, dead in gone.items()})
        return state._replace(params=raised)

    return inner._replace(destroy=destroy)


def trial(data: Dataset, method: str, injury: float, seeds: int) -> dict:
    """Returns what each seed came to."""
    suite = change(load("injury_recovery"), {"injury": injury}, methods)
    job, injure = Job(suite, "domain", method), injury_of(suite)
    assert injure is not None
    intervene = lambda agent, task: injure(compensated(agent, task.network.wiring, COMPENSATION), task)
    experiment = dataclasses.replace(job.experiment, intervene=intervene)
    found = run(experiment, data, seeds=range(seeds), hyperparameters=job.hyperparameters)
    injured = suite.injury_at // found.online_accuracy.shape[-1]
    return {
        "recovery_steps": results.plain([online.recovery_steps(one, suite.injury_at) for one in found.online_accuracy]),
        "accuracy": results.plain(100 * found.accuracy[:, -1].mean(-1)),
        "old_tasks": results.plain(100 * found.accuracy[:, injured, :injured].mean(-1)),
    }


def work(seeds: int, out: Path) -> None:
    """Runs what is not in the file yet, and adds it."""
    environment.prepare_jax()
    path, data = out / "without_copies.json", sources.load("mnist")
    record = scripts.resumed(path, {"seeds": seeds, "compensation": COMPENSATION})
    for injury in INJURIES:
        rows = record["found"].setdefault(str(injury), {})
        for method in METHODS:
            if method not in rows:
                rows[method] = trial(data, method, injury, seeds)
                results.write_text(path, json.dumps(record, indent=1) + "\n")
            mean = ", ".join(f"{name} {sum(of) / len(of):.1f}" for name, of in rows[method].items() if None not in of)
            print(f"injury {injury}, {method}, compensated: {mean}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=30, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
