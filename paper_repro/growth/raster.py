"""A raster of births and deaths in a network that grows over ten permutations.

    python -m paper_repro.growth.raster

One seed of the suite `growth_100`, cut to ten permutations of 10,000 images, 100 neurons a layer. Left: births at
plateaus from a quarter. Right: a few births at a time, while neurons of little use die and leave their place to others.
Writes `results/raster.png`, and beside it how many were born and died in each layer.
"""

import dataclasses
import json
from pathlib import Path

from benchmarks import commands, raster, suite
from benchmarks.jobs import Job
from neuroml.growth_methods import methods
from neuroml.streams.sources import load

HOME = Path(__file__).parent / "results"
TASKS = 10
PANELS = {
    "births at plateaus": {"when": "plateau", "alive_percent": 25},
    "births and deaths": {"alive_percent": 25, "number": 4.0, "patience": 20.0, "apoptosis": 0.02},
}


def main() -> None:
    """Trains, counts and draws."""
    commands.prepare_jax()
    plain = dataclasses.replace(suite.load("growth_100"), tasks=TASKS, hidden=(100, 100))
    data, panels, counts = load(plain.data), {}, {}
    for title, settings in PANELS.items():
        one = suite.change(plain, {f"growth.{name}": value for name, value in settings.items()}, methods)
        panels[title] = raster.births_and_deaths(raster.watched(Job(one, "domain", "growth"), data, raster.alive))
        born, died = ({name: int(which.sum()) for name, which in kind.items()} for kind in panels[title])
        counts[title] = {"born": born, "died": died}
    (HOME / "raster.json").write_text(json.dumps({"tasks": TASKS, **counts}, indent=1) + "\n")
    raster.draw(panels, -(-(plain.examples or 0) // plain.batch_size), HOME / "raster.png")
    print(counts)


if __name__ == "__main__":
    main()
