"""Label-permuted CIFAR-10: a million images, one at a time; after every 2,500 the ten labels are shuffled.

    python -m benchmarks run label_permuted_cifar10 --methods homeostasis,adamw,sgd,upgd,cbp --seeds 3 --steps 20000

As `label_permuted_mnist`, with a convolutional network: three blocks of a 3 x 3 convolution and pooling, 256 units; and
pixels from -1 to 1, as the authors of UPGD have them. Rules that judge neurons see those of its dense layer. Six trials
for each of the methods that have grids here, on the first two tasks.

20,000 steps of a seed take two to three minutes on one CPU core. To expect of them, in %: homeostasis 37.5, AdamW 33.2,
weight clipping 32.4, SGD 30.8, continual backpropagation 30.4, UPGD 30.3.
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
    options={},
    hyperparameters={
        "sgd": {"learning_rate": 0.02},
        "adamw": {"learning_rate": 0.0002},
        "weight_clipping": {"learning_rate": 0.02, "factor": 2.0},
        "l2_init": {"learning_rate": 0.02, "strength": 0.0001},
        "shrink_perturb": {"learning_rate": 0.02, "shrink": 1e-06, "noise": 1e-05},
        "spectral": {"learning_rate": 0.02, "strength": 0.0001},
        "upgd": {"learning_rate": 0.03, "noise": 0.001, "weight_decay": 0.0001},
        "cbp": {"learning_rate": 0.02, "rate": 1e-06},
        "redo": {"learning_rate": 0.02, "threshold": 0.01},
        "homeostasis": {"learning_rate": 0.02, "ridge": 10.0, "bound": 2.0, "anchoring": 0.0001, "decay": 0.999},
    },
    grids={
        "sgd": {"learning_rate": (0.003, 0.005, 0.01, 0.02, 0.03, 0.04)},
        "adamw": {"learning_rate": (0.0001, 0.0003, 0.0005, 0.001, 0.0002, 0.0004)},
        "weight_clipping": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "factor": (2.0, 2.0, 4.0, 2.0, 2.0, 2.0),
        },
        "l2_init": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "strength": (0.0001, 0.0001, 0.001, 0.0001, 0.0001, 0.0001),
        },
        "shrink_perturb": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "shrink": (1e-06, 1e-06, 1e-05, 1e-06, 1e-06, 1e-06),
            "noise": (1e-05, 1e-05, 0.0001, 1e-05, 1e-05, 1e-05),
        },
        "spectral": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "strength": (0.0001, 0.0001, 0.01, 0.0001, 0.0001, 0.0001),
        },
        "upgd": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "noise": (0.001, 0.001, 0.01, 0.001, 0.001, 0.001),
            "weight_decay": (0.0001, 0.0001, 0.001, 0.0001, 0.0001, 0.0001),
        },
        "cbp": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "rate": (1e-06, 1e-06, 1e-05, 1e-06, 1e-06, 1e-06),
        },
        "redo": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.04),
            "threshold": (0.01, 0.01, 0.1, 0.01, 0.01, 0.01),
        },
        "homeostasis": {
            "learning_rate": (0.005, 0.01, 0.01, 0.02, 0.03, 0.02),
            "ridge": (0.1, 1.0, 10.0, 10.0, 10.0, 30.0),
            "bound": (2.0, 2.0, 2.0, 2.0, 2.0, 2.0),
            "anchoring": (0.0001, 0.0001, 0.0001, 0.0001, 0.0001, 0.0001),
            "decay": (0.999, 0.999, 0.999, 0.999, 0.999, 0.999),
        },
    },
)
