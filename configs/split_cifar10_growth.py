"""Split CIFAR-10 in one pass, class-incremental, by a convolutional network that keeps: whole, or growing.

    python -m benchmarks run split_cifar10_growth --seeds 3

Three convolutions and a dense layer of 256 neurons, SGD, batches of 32; condensates protect the inputs of earlier tasks
in every layer. `growth` begins with half of the dense layer, and bears the rest at fixed steps.

5 minutes a seed and method on one CPU core. To expect, in %: 16.5 and 18, the last two classes and none of the others;
on one seed of three both end at chance (10). Four trials each, on all tasks of one tuning seed.
"""

import dataclasses

from configs.split_cifar10 import suite as whole

suite = dataclasses.replace(
    whole,
    name="split_cifar10_growth",
    summary="CIFAR-10, 5 tasks x 2 classes, one pass: a network that grows against a fixed one",
    batch_size=32,
    methods=("fixed", "growth"),
    hyperparameters={
        "fixed": {"learning_rate": 0.1, "scale": 10.0},
        "growth": {"learning_rate": 0.1, "scale": 10.0, "number": 32.0, "patience": 50.0},
    },
    options={
        "fixed": {"consolidates": True},
        "growth": {"consolidates": True, "when": "steps", "alive_percent": 50},
    },
    batch_sizes={},
    grids={
        "fixed": {"learning_rate": (0.1, 0.1, 0.1, 0.1), "scale": (0.3, 1.0, 3.0, 10.0)},
        "growth": {"number": (8.0, 8.0, 32.0, 32.0), "patience": (50.0, 10.0, 50.0, 10.0)},
    },
)
