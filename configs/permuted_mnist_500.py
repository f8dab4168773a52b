"""Permuted MNIST, 500 tasks of 10,000 images, each image once, batches of 16.

    python -m benchmarks run permuted_mnist_500 --methods adam,l2_init,homeostasis --seeds 3

The protocol of Kumar, Marklund, Van Roy 2023: MLP 784-100-100-10, Adam. Eight trials for each method, joint in learning
rate and strength, on the first twenty tasks.

One seed takes 1.5 to 2 minutes on one CPU core. To expect, in %: homeostasis 90.5, L2 Init 87.9, Adam 78.9.
"""

import dataclasses

from configs.random_label_mnist import suite as random_labels

suite = dataclasses.replace(
    random_labels,
    name="permuted_mnist_500",
    summary="MNIST, 500 permutations of 10,000 images, each once",
    stream="permuted",
    methods=(*random_labels.methods, "effective_rank"),
    tasks=500,
    examples=10_000,
    epochs=1,
    inspected=500,
    hyperparameters={
        "adam": {"learning_rate": 1e-3},
        "l2_init": {"strength": 1e-3},
        "shrink_perturb": {"shrink": 3e-4, "noise": 3e-4},
        "weight_clipping": {"factor": 2.0},
        "layer_norm": {"learning_rate": 1e-3},
        "crelu": {"learning_rate": 1e-3},
        "cbp": {"rate": 1e-3},
        "effective_rank": {"strength": 0.1},
        "homeostasis": {"anchoring": 1e-2},
    },
    grids={
        **random_labels.grids,
        "effective_rank": {
            "learning_rate": (3e-4, 3e-4, 3e-4, 1e-3, 1e-3, 1e-3, 1e-3, 3e-3),
            "strength": (1e-3, 1e-2, 1e-1, 1e-4, 1e-3, 1e-2, 1e-1, 1e-2),
        },
        "homeostasis": {
            "learning_rate": (3e-4, 3e-4, 1e-3, 1e-3, 1e-3, 1e-3, 3e-3, 3e-3),
            "anchoring": (1e-3, 1e-2, 1e-3, 1e-2, 3e-2, 1e-1, 1e-2, 3e-2),
        },
    },
)
