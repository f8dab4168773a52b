"""Label-permuted MNIST: a million images, one at a time; after every 2,500 the ten labels are shuffled.

    python -m benchmarks run label_permuted_mnist --methods sgd,adamw,cbp,upgd,homeostasis --seeds 3 --steps 100000

As `input_permuted_mnist`, and as the label-permuted EMNIST of Elsayed and Mahmood 2024, with MNIST in its place.
Four trials for each of the methods that have settings here, on the first 24 tasks.
"""

import dataclasses

from configs.input_permuted_mnist import suite as by_input

suite = dataclasses.replace(
    by_input,
    name="label_permuted_mnist",
    summary="MNIST, a million images one by one, the labels shuffled after each 2,500",
    stream="label_permuted",
    tasks=400,
    examples=2500,
    hyperparameters={
        "sgd": {"learning_rate": 0.02},
        "adamw": {"learning_rate": 1e-3},
        "l2_init": {"strength": 3e-4},
        "layer_norm": {"learning_rate": 0.02},
        "upgd": {"noise": 0.1, "weight_decay": 1e-3},
        "cbp": {"rate": 1e-5},
        "homeostasis": {"learning_rate": 0.005, "anchoring": 6e-3},
    },
    grids={**by_input.grids, "homeostasis": {"anchoring": (1e-5, 1e-4, 1e-3, 6e-3)}},
)
