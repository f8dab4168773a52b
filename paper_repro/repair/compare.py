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
# Where nanotubes were run, and what they are held against: folder and method of each.
PAIRS = (
    ("", "", "none"),
    ("", "", "random_rebirth"),
    ("", "", "schwann"),
    ("", "parts", "random_rebirth"),  # every 20 steps
    ("", "controls", "nanotube"),
    ("consolidated", "consolidated", "none"),
    ("consolidated", "consolidated", "random_rebirth"),
)


def values(folder: str, method: str, share: tuple[str, float], metric: str) -> dict[int, float | None]:
    """Returns {seed: metric} of a method at a share of neurons injured or synapses severed."""
    records = results.latest(results.read(HOME / folder / "injury_recovery.domain.jsonl"))
    part, size = share
    heals = lambda record: record["config"]["hyperparameters"].get("heals", "silent")
    mine = [r for r in records if r["method"] == method and r["config"]["protocol"].get(part) == size]
    usual = [r for r in mine if method != "nanotube" or heals(r) == "destroyed"]
    return {record["seed"]: record["metrics"][metric] for record in usual}


def main() -> None:
    """Prints a line for each comparison for which there are results."""
    shares = [("injury", size) for size in (0.05, 0.2, 0.5, 0.8)] + [("severed", size) for size in (0.2, 0.5, 0.8)]
    for share, metric, (ours, folder, method) in itertools.product(shares, METRICS, PAIRS):
        found = paired(values(ours, "nanotube", share, metric), values(folder, method, share, metric))
        if found.difference == found.difference:  # some ran at some injuries only
            name = " ".join(["nanotube", "-", *filter(None, [folder]), method])
            spread = f"[{found.low:.3f}, {found.high:.3f}], p = {found.p_value:.3f}"
            print(f"{share[0]} {share[1]}, {metric}: {name} = {found.difference:.3f} {spread}")


if __name__ == "__main__":
    main()
