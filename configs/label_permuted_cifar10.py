"""Label-permuted CIFAR-10: a million images, one at a time; after every 2,500 the ten labels are shuffled.

    python -m benchmarks run label_permuted_cifar10 --methods sgd,homeostasis --seeds 1 --steps 20000

As `label_permuted_mnist`, with a convolutional network: three blocks of a 3 x 3 convolution and pooling, 256 units; and
pixels from -1 to 1, as the authors of UPGD have them. Rules that judge neurons see those of its dense layer. Four trials
for each of the methods that have grids here, on the first two tasks.
"""

import dataclasses

from configs.label_permuted_mnist import suite as mnist

suite = dataclasses.replace(
    mnist,
    name="label_permuted_cifar10",
    summary="CIFAR-10, a million images one by one, the labels shuffled after each 2,500",
    data="cifar10",
    network="cnn",
    standardized=(0.5, 0.5),
    methods=tuple(name for name in mnist.methods if name not in ("layer_norm", "crelu")),  # for dense networks
    seeds=10,
    hyperparameters={
        "sgd": {"learning_rate": 0.02},
        "adamw": {"learning_rate": 3e-4},
        "weight_clipping": {"learning_rate": 0.02, "factor": 5.0},
        "homeostasis": {"learning_rate": 0.02, "ridge": 10.0, "bound": 2.0, "anchoring": 1e-4, "decay": 0.999},
    },
    grids={
        "sgd": {"learning_rate": (0.003, 0.005, 0.01, 0.02)},
        "adamw": {"learning_rate": (1e-4, 3e-4, 5e-4, 1e-3)},
        "weight_clipping": {"learning_rate": (0.005, 0.01, 0.01, 0.02), "factor": (2.0, 2.0, 4.0, 2.0)},
        "l2_init": {"learning_rate": (0.005, 0.01, 0.01, 0.02), "strength": (1e-4, 1e-4, 1e-3, 1e-4)},
        "shrink_perturb": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02),
            "shrink": (1e-6, 1e-6, 1e-5, 1e-6),
            "noise": (1e-5, 1e-5, 1e-4, 1e-5),
        },
        "spectral": {"learning_rate": (0.005, 0.01, 0.01, 0.02), "strength": (1e-4, 1e-4, 1e-2, 1e-4)},
        "upgd": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02),
            "noise": (0.001, 0.001, 0.01, 0.001),
            "weight_decay": (1e-4, 1e-4, 1e-3, 1e-4),
        },
        "cbp": {"learning_rate": (0.005, 0.01, 0.01, 0.02), "rate": (1e-6, 1e-6, 1e-5, 1e-6)},
        "redo": {"learning_rate": (0.005, 0.01, 0.01, 0.02), "threshold": (0.01, 0.01, 0.1, 0.01)},
        "homeostasis": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02),
            "ridge": (0.1, 1.0, 10.0, 10.0),
            "bound": (2.0, 2.0, 2.0, 2.0),
            "anchoring": (1e-4, 1e-4, 1e-4, 1e-4),
            "decay": (0.999, 0.999, 0.999, 0.999),
        },
    },
)
