"""Label-permuted CIFAR-10: a million images, one at a time; after every 2,500 the ten labels are shuffled.

    python -m benchmarks run label_permuted_cifar10 --methods sgd,homeostasis --seeds 1 --steps 20000

As `label_permuted_mnist`, with a convolutional network: three blocks of a 3 x 3 convolution and pooling, 256 units.
Rules that judge neurons see those of its dense layer.
"""

import dataclasses

from configs.label_permuted_mnist import suite as mnist

suite = dataclasses.replace(
    mnist,
    name="label_permuted_cifar10",
    summary="CIFAR-10, a million images one by one, the labels shuffled after each 2,500",
    data="cifar10",
    network="cnn",
    methods=tuple(name for name in mnist.methods if name not in ("layer_norm", "crelu")),  # for dense networks
    seeds=10,
)
