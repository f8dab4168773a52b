"""Paired comparisons of nanotubes with the other methods, over the same seeds.

    python -m paper_repro.repair.compare

Differences in batches until 95 % of the accuracy before the injury, and in accuracy on all tasks at the end, with 95 %
intervals and the p value of Student's paired t-test, not corrected for the number of comparisons.
"""

from pathlib import Path

from benchmarks import results
from benchmarks.statistics import paired

HOME = Path(__file__).parent / "results"


def values(folder: str, method: str, injury: float, metric: str) -> dict[int, float | None]:
    """Returns {seed: metric} of a method."""
    records = results.latest(results.read(HOME / folder / "injury_recovery.domain.jsonl"))
    mine = [r for r in records if r["method"] == method and r["config"]["protocol"].get("injury") == injury]
    return {record["seed"]: record["metrics"][metric] for record in mine}


def main() -> None:
    """Prints a line for each comparison."""
    others = (("", "none"), ("", "random_rebirth"), ("", "schwann"), ("controls", "nanotube"))
    for injury in (0.5, 0.8):
        for metric in ("recovery_steps", "accuracy"):
            ours = values("", "nanotube", injury, metric)
            for folder, method in others:
                found = paired(ours, values(folder, method, injury, metric))
                if found.difference == found.difference:  # the control ran at 0.8 only
                    name = f"{folder} {method}".strip()
                    spread = f"[{found.low:.3f}, {found.high:.3f}], p = {found.p_value:.3f}"
                    print(f"injury {injury}, {metric}: nanotube - {name} = {found.difference:.3f} {spread}")


if __name__ == "__main__":
    main()
