"""Paired comparisons of networks that grow with fixed ones of the same width, over the same seeds.

    python -m paper_repro.growth.compare

Differences in accuracy at the end, in points, with 95 % intervals and the p value of Student's paired t-test, not
corrected for the number of comparisons.
"""

from pathlib import Path

from benchmarks import results
from benchmarks.statistics import paired
from paper_repro.growth.front import name_of

HOME = Path(__file__).parent / "results"
FILES = (
    "growth_100.domain.jsonl",
    "ten/growth_100.domain.jsonl",
    "hundred/growth_100.domain.jsonl",
    "split_mnist_one_pass.class.jsonl",
)


def values(path: Path) -> dict[tuple[int, str], dict[int, float]]:
    """Returns {(neurons a layer, name): {seed: accuracy in %}} of a file."""
    found: dict[tuple[int, str], dict[int, float]] = {}
    for record in results.latest(results.read(path)):
        key = record["config"]["protocol"]["hidden"][0], name_of(record)
        found.setdefault(key, {})[record["seed"]] = 100 * record["metrics"]["accuracy"]
    return found


def main() -> None:
    """Prints a line for each width and each setting of growth."""
    for name in FILES:
        found = values(HOME / name)
        for (width, setting), ours in sorted(found.items()):
            fixed = found[width, "fixed"]
            if setting != "fixed":
                it = paired(ours, fixed)
                spread = f"[{it.low:.2f}, {it.high:.2f}], p = {it.p_value:.3f}, {len(ours.keys() & fixed)} seeds"
                print(f"{name}, {width} neurons: {setting} - fixed = {it.difference:.2f} {spread}")


if __name__ == "__main__":
    main()
