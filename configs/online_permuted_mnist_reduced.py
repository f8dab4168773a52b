"""Online Permuted MNIST, reduced: 200 permutations of 10,000 images, one at a time.

    python -m benchmarks run online_permuted_mnist_reduced --methods sgd,cbp,homeostasis --seeds 1 --steps 200000

Dohare et al. 2024 take 800 permutations of 60,000 images and three hidden layers of 2,000 units: 48 million steps. This
is a smaller stream with three layers of 100 units, and its numbers stand beside no number of that paper. Images are
standardized, as in `input_permuted_mnist`. Six trials for each method, on the first ten tasks.

One seed takes 1 to 7 minutes on one CPU core. To expect, in %: homeostasis 90.6, UPGD 88.6, weight clipping and L2 Init
88.1, AdamW 86.7, concatenated ReLU 86.1, layer norm 84.6, continual backpropagation 84.0, SGD 82.9.
"""

import dataclasses

from configs.input_permuted_mnist import suite as by_input

suite = dataclasses.replace(
    by_input,
    name="online_permuted_mnist_reduced",
    summary="MNIST, 200 permutations of 10,000 images one by one, reduced from 800 of 60,000",
    examples=10_000,
    hidden=(100, 100, 100),
    initialization="lecun",
    methods=(
        "sgd",
        "adamw",
        "l2_init",
        "shrink_perturb",
        "weight_clipping",
        "layer_norm",
        "crelu",
        "upgd",
        "cbp",
        "homeostasis",
    ),
    seeds=10,
    hyperparameters={
        "sgd": {"learning_rate": 0.003},
        "adamw": {"learning_rate": 0.0002},
        "layer_norm": {"learning_rate": 0.002},
        "crelu": {"learning_rate": 0.002},
        "l2_init": {"learning_rate": 0.003, "strength": 0.003},
        "shrink_perturb": {"learning_rate": 0.003, "shrink": 1e-05, "noise": 0.0001},
        "weight_clipping": {"learning_rate": 0.003, "factor": 2.0},
        "upgd": {"learning_rate": 0.005, "noise": 0.001, "weight_decay": 0.001},
        "cbp": {"learning_rate": 0.003, "rate": 1e-06},
        "homeostasis": {"learning_rate": 0.005, "anchoring": 0.006},
    },
    grids={
        **{name: by_input.grids[name] for name in ("shrink_perturb", "cbp")},
        "sgd": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02)},
        "adamw": {"learning_rate": (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3)},
        "layer_norm": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02)},
        "crelu": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02)},
        "l2_init": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (3e-4, 1e-3, 3e-3, 3e-4, 1e-3, 3e-3),
        },
        "weight_clipping": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "factor": (2.0, 3.0, 5.0, 2.0, 3.0, 5.0),
        },
        "upgd": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.02, 0.02),
            "noise": (0.001, 0.01, 0.001, 0.01, 0.001, 0.01),
            "weight_decay": (1e-3, 1e-2, 1e-3, 1e-2, 1e-3, 1e-2),
        },
        "homeostasis": {
            "learning_rate": (0.003, 0.003, 0.005, 0.005, 0.01, 0.01),
            "anchoring": (1e-3, 6e-3, 1e-3, 6e-3, 1e-3, 6e-3),
        },
    },
)
