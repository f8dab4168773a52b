"""Input-permuted MNIST with every method's inputs normalized by their running mean and variance, as homeostasis does.

    python -m benchmarks run input_permuted_mnist_conditioned --seeds 3 --steps 100000

What a mechanism adds is so seen apart from the conditioning of its inputs. Six trials for each method of its own, on
the first 12 tasks; nothing is standardized as well. `homeostasis` is that of `input_permuted_mnist`.

100,000 steps of a seed take 10 to 50 seconds on one CPU core. To expect of them, in %: L2 Init and the penalty
on the activity rate 87.5, maturity locks, concatenated ReLU and layer norm 87.3, AdamW 87.2, UPGD 87.1, SGD and
continual backpropagation 86.6; homeostasis 89.1.
"""

import dataclasses

from configs.input_permuted_mnist import suite as plain

suite = dataclasses.replace(
    plain,
    name="input_permuted_mnist_conditioned",
    summary="MNIST, a million images one by one, permuted, every method's inputs normalized",
    conditioning=0.99,
    methods=("sgd", "adamw", "l2_init", "layer_norm", "crelu", "upgd", "cbp", "maturity_lock", "activity_rate"),
    hyperparameters={
        "sgd": {"learning_rate": 0.005},
        "adamw": {"learning_rate": 0.0002},
        "l2_init": {"learning_rate": 0.005, "strength": 0.01},
        "layer_norm": {"learning_rate": 0.002},
        "crelu": {"learning_rate": 0.005},
        "upgd": {"learning_rate": 0.01, "noise": 0.001, "weight_decay": 0.001},
        "cbp": {"learning_rate": 0.005, "rate": 1e-06},
        "maturity_lock": {"learning_rate": 0.01, "strength": 0.97},
        "activity_rate": {"learning_rate": 0.005, "strength": 1.0},
    },
    grids={
        **{name: plain.grids[name] for name in ("sgd", "adamw", "layer_norm", "crelu")},
        "l2_init": {
            "learning_rate": (0.003, 0.003, 0.005, 0.005, 0.005, 0.01),
            "strength": (1e-2, 3e-2, 3e-3, 1e-2, 3e-2, 1e-2),
        },
        "upgd": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.02, 0.02),
            "noise": (0.001, 0.01, 0.001, 0.01, 0.001, 0.01),
            "weight_decay": (1e-3, 1e-2, 1e-3, 1e-2, 1e-3, 1e-2),
        },
        "cbp": {
            "learning_rate": (0.003, 0.003, 0.005, 0.005, 0.005, 0.01),
            "rate": (1e-6, 1e-5, 1e-7, 1e-6, 1e-5, 1e-6),
        },
        "activity_rate": {
            "learning_rate": (0.003, 0.003, 0.005, 0.005, 0.005, 0.01),
            "strength": (1.0, 3.0, 0.3, 1.0, 3.0, 1.0),
        },
        "maturity_lock": {
            "learning_rate": (0.005, 0.005, 0.01, 0.01, 0.02, 0.02),
            "strength": (0.9, 0.97, 0.9, 0.97, 0.9, 0.97),
        },
    },
)
