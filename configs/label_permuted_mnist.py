"""Label-permuted MNIST: a million images, one at a time; after every 2,500 the ten labels are shuffled.

    python -m benchmarks run label_permuted_mnist --methods sgd,adamw,cbp,upgd,homeostasis --seeds 3 --steps 100000

As `input_permuted_mnist`, and as the label-permuted EMNIST of Elsayed and Mahmood 2024, with MNIST in its place. Eight
trials for each of the methods that have settings here, on the first 24 tasks.

100,000 steps of a seed take 14 to 72 seconds on one CPU core. To expect of them, in %: homeostasis 93.9, weight
clipping 92.6, UPGD 91.8, continual backpropagation 91.4, SGD 91.3, layer norm 89.5, concatenated ReLU 88.1, AdamW 87.7.
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
    options={"homeostasis": {"surprised": "head"}},
    hyperparameters={
        "sgd": {"learning_rate": 0.015},
        "weight_clipping": {"learning_rate": 0.01, "factor": 2.0},
        "cbp": {"learning_rate": 0.015, "rate": 1e-05},
        "l2_init": {"learning_rate": 0.015, "strength": 0.0001},
        "layer_norm": {"learning_rate": 0.02},
        "upgd": {"learning_rate": 0.03, "noise": 0.001, "weight_decay": 0.0001},
        "adamw": {"learning_rate": 0.0005},
        "homeostasis": {
            "learning_rate": 0.01,
            "ridge": 30.0,
            "surprise": 1.0,
            "bound": 2.0,
            "anchoring": 0.0001,
            "decay": 0.999,
        },
        "spectral": {"learning_rate": 0.015, "strength": 0.0001},
        "shrink_perturb": {"learning_rate": 0.015, "shrink": 1e-06, "noise": 1e-05},
        "redo": {"learning_rate": 0.015, "threshold": 0.01},
        "crelu": {"learning_rate": 0.005},
        "self_normalized_resets": {"learning_rate": 0.015, "rejection": 0.001},
    },
    grids={
        "sgd": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02)},
        "adamw": {"learning_rate": (0.00003, 0.0001, 0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.002)},
        "layer_norm": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02)},
        "crelu": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02)},
        "l2_init": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "strength": (1e-4, 1e-3, 1e-4, 1e-3, 1e-4, 1e-3, 1e-4, 1e-3),
        },
        "shrink_perturb": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "shrink": (1e-6, 1e-5, 1e-6, 1e-5, 1e-6, 1e-5, 1e-6, 1e-5),
            "noise": (1e-5, 1e-4, 1e-5, 1e-4, 1e-5, 1e-4, 1e-5, 1e-4),
        },
        "weight_clipping": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "factor": (2.0, 4.0, 2.0, 4.0, 2.0, 4.0, 2.0, 4.0),
        },
        "spectral": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "strength": (1e-4, 1e-2, 1e-4, 1e-2, 1e-4, 1e-2, 1e-4, 1e-2),
        },
        "upgd": {
            "learning_rate": (0.015, 0.015, 0.02, 0.02, 0.03, 0.03, 0.04, 0.04),
            "noise": (0.001, 0.01, 0.001, 0.01, 0.001, 0.01, 0.001, 0.01),
            "weight_decay": (1e-4, 1e-3, 1e-4, 1e-3, 1e-4, 1e-3, 1e-4, 1e-3),
        },
        "cbp": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "rate": (1e-6, 1e-5, 1e-6, 1e-5, 1e-6, 1e-5, 1e-6, 1e-5),
        },
        "redo": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "threshold": (0.01, 0.1, 0.01, 0.1, 0.01, 0.1, 0.01, 0.1),
        },
        "self_normalized_resets": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.015, 0.015, 0.02, 0.02),
            "rejection": (0.001, 0.03, 0.001, 0.03, 0.001, 0.03, 0.001, 0.03),
        },
        "homeostasis": {
            "learning_rate": (0.0075, 0.01, 0.01, 0.0125, 0.0125, 0.0125, 0.015, 0.015),
            "ridge": (30.0, 30.0, 30.0, 30.0, 30.0, 100.0, 30.0, 30.0),
            "surprise": (3.0, 1.0, 3.0, 1.0, 3.0, 1.0, 0.0, 1.0),
            "bound": (2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
            "anchoring": (1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4),
            "decay": (0.999, 0.999, 0.999, 0.999, 0.999, 0.999, 0.999, 0.999),
        },
    },
)
