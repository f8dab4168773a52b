"""Paired comparisons of nanotubes with the other methods, over the same seeds.

    python -m paper_repro.repair.compare

Differences in batches until 95 % of the accuracy before the injury, and in accuracy on all tasks at the end, with 95 %
intervals and the p value of Student's paired t-test, not corrected for the number of comparisons.
"""

import itertools
from pathlib import Path

from benchmarks import results
from benchmarks.statistics import paired

HOME = Path(__file__).parent / "results"
METRICS = ("recovery_steps", "accuracy")
OTHERS = (("", "none"), ("", "random_rebirth"), ("", "schwann"), ("controls", "nanotube"), ("consolidated", "none"))


def values(folder: str, method: str, injury: float, metric: str, heals: str = "silent") -> dict[int, float | None]:
    """Returns {seed: metric} of a method."""
    records = results.latest(results.read(HOME / folder / "injury_recovery.domain.jsonl"))
    given = lambda record: record["config"]["hyperparameters"].get("heals", "silent")
    mine = [r for r in records if r["method"] == method and r["config"]["protocol"].get("injury") == injury]
    return {record["seed"]: record["metrics"][metric] for record in mine if given(record) == heals}


def main() -> None:
    """Prints a line for each comparison for which there are results."""
    cases = itertools.product((0.05, 0.2, 0.5, 0.8), ("silent", "destroyed"), METRICS, OTHERS)
    for injury, heals, metric, (folder, method) in cases:
        home = folder if folder == "consolidated" else ""
        found = paired(values(home, "nanotube", injury, metric, heals), values(folder, method, injury, metric))
        if found.difference == found.difference:  # some ran at some injuries only
            name = " ".join(["nanotube", f"({heals})", "-", *filter(None, [folder]), method])
            spread = f"[{found.low:.3f}, {found.high:.3f}], p = {found.p_value:.3f}"
            print(f"injury {injury}, {metric}: {name} = {found.difference:.3f} {spread}")


if __name__ == "__main__":
    main()
