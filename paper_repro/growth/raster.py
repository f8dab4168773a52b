"""A raster of births and deaths in a network that grows over ten permutations.

    python -m paper_repro.growth.raster [--out paper_repro/growth/results]

One seed of the suite `growth_100`, cut to ten permutations of 10,000 images, 100 neurons a layer. Left: births at
plateaus from a quarter. Right: a few births at a time, while neurons of little use die and leave their place to others.
Writes `raster.png`, and beside it how many were born and died in each layer.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, raster, results, suite
from benchmarks.jobs import Job
from neuroml.growth_methods import methods
from neuroml.streams.sources import load
from paper_repro import scripts

HOME = Path(__file__).parent / "results"
TASKS = 10
PANELS = {
    "births at plateaus": {"when": "plateau", "alive_percent": 25},
    "births and deaths": {"alive_percent": 25, "number": 4.0, "patience": 20.0, "apoptosis": 0.02},
}


def work(out: Path) -> None:
    """Trains, counts and draws."""
    environment.prepare_jax()
    plain = dataclasses.replace(suite.load("growth_100"), tasks=TASKS, hidden=(100, 100))
    data, panels, counts = load(plain.data), {}, {}
    for title, settings in PANELS.items():
        one = suite.change(plain, {f"growth.{name}": value for name, value in settings.items()}, methods)
        panels[title] = raster.births_and_deaths(raster.watched(Job(one, "domain", "growth"), data, raster.alive))
        born, died = ({name: int(which.sum()) for name, which in kind.items()} for kind in panels[title])
        counts[title] = {"born": born, "died": died}
    results.write_text(out / "raster.json", json.dumps({"tasks": TASKS, **counts}, indent=1) + "\n")
    raster.draw(panels, -(-(plain.examples or 0) // plain.batch_size), out / "raster.png")
    print(counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the script."""
    return scripts.main(work, __doc__, arguments, out=HOME)


if __name__ == "__main__":
    sys.exit(main())
