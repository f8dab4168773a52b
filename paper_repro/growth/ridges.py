"""Whether the ridge that was chosen on five permutations is right for a hundred, for a fixed network and neurogenesis.

    python -m paper_repro.growth.ridges [--seeds 1] [--out paper_repro/growth/results]

`growth_100`, tuning seeds and held-out training images, all 100 permutations. Kept in `ridges.json`, by neurons a
layer, method and scale of the ridge: for each seed, accuracy on all tasks at the end and the mean accuracy on each task
when it had just been learnt, in %. What is in the file is not run again; for another number of seeds it is written
anew. A minute and a half a seed and row on one core.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, results
from benchmarks.jobs import Job
from benchmarks.suite import change, load
from benchmarks.tuning import FIRST_SEED
from neuroml.methods import methods
from neuroml.running import run
from neuroml.streams import sources
from neuroml.streams.dataset import Dataset
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
WIDTHS = (100,)
SCALES = (0.6, 1.2, 2.4, 4.8)
METHODS = ("fixed", "neurogenesis")


def trial(data: Dataset, width: int, method: str, scale: float, seeds: int) -> dict:
    """Returns what each seed came to, in %."""
    suite = change(load("growth_100"), {"hidden": (width, width), f"{method}.scale": scale}, methods)
    job = Job(suite, "domain", method)
    result = run(job.experiment, data, seeds=range(FIRST_SEED, FIRST_SEED + seeds), hyperparameters=job.hyperparameters)
    tasks = range(result.accuracy.shape[-1])
    return {
        "accuracy": results.plain(100 * result.accuracy[:, -1].mean(-1)),
        "learnt": results.plain(100 * result.accuracy[:, tasks, tasks].mean(-1)),
    }


def work(seeds: int, out: Path) -> None:
    """Runs what is not in the file yet, and adds it."""
    environment.prepare_jax()
    path, data = out / "ridges.json", sources.load("mnist").held_out()
    record = scripts.resumed(path, {"first_seed": FIRST_SEED, "seeds": seeds})
    for width in WIDTHS:
        for scale in SCALES:
            for method in METHODS:
                rows = record["found"].setdefault(str(width), {}).setdefault(method, {})
                if str(scale) not in rows:
                    rows[str(scale)] = trial(data, width, method, scale, seeds)
                    results.write_text(path, json.dumps(record, indent=1) + "\n")
                mean = ", ".join(f"{name} {sum(of) / len(of):.1f}" for name, of in rows[str(scale)].items())
                print(f"{width} neurons, {method}, scale {scale:g}: {mean}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, seeds=1, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
