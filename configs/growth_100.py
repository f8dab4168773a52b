"""Growth over 100 permutations: accuracy for the parameters that are allocated, of growing and of fixed networks.

    python -m benchmarks run growth_100 --methods fixed,growth --seeds 2 --json --set tasks=20

Permuted MNIST, 100 permutations of 10,000 images each, one pass, one head, no task ids, SGD, batches of 128, and
condensates that protect the input directions of earlier permutations (`--set consolidates=False` leaves them out).
MLP 784-400-400-10; `--set hidden=100,100` and other widths make the front. `growth` begins with half of its neurons and
bears the others at fixed steps, which does better than a quarter and plateaus (`paper_repro/growth`). All that a
network has allocated is charged, alive or in reserve. `neurogenesis` bears neurons for each permutation that it infers,
with room for as many as there are tasks, and silences them in older ones.

1 to 5 minutes a seed and method on one CPU core for 100 permutations. To expect, in %, with `hidden=100,100`: fixed
61.2, growth 60.8, neurogenesis 66.2; over 20 permutations 86.2, 86.3, 86.9.
"""

import dataclasses

from configs.permuted_mnist_100_short import suite as hundred

suite = dataclasses.replace(
    hundred,
    name="growth_100",
    summary="MNIST, 100 permutations of 10,000 images: networks that grow against fixed ones",
    measure="accuracy",
    methods=("fixed", "growth", "neurogenesis"),
    seeds=10,
    hyperparameters={
        "fixed": {"learning_rate": 0.5, "scale": 0.6},
        "growth": {"learning_rate": 0.5, "scale": 0.6, "number": 32.0, "patience": 10.0},
        "neurogenesis": {"learning_rate": 0.5, "scale": 0.6, "alive": 0.75},
    },
    options={
        "fixed": {"consolidates": True},
        "growth": {"consolidates": True, "pairs": True, "when": "steps", "alive_percent": 50},
        "neurogenesis": {"consolidates": True, "pool": 4},
    },
    grids={
        "fixed": {"learning_rate": (0.3, 0.3, 0.5, 0.5), "scale": (0.3, 0.6, 0.3, 0.6)},
        "growth": {"number": (8.0, 8.0, 32.0, 32.0), "patience": (50.0, 10.0, 50.0, 10.0)},
        "neurogenesis": {"alive": (0.25, 0.5, 0.75, 0.9)},
    },
)
