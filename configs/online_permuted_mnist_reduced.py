"""Online Permuted MNIST, reduced: 200 permutations of 10,000 images, one at a time.

    python -m benchmarks run online_permuted_mnist_reduced --methods sgd,cbp,homeostasis --seeds 1 --steps 200000

Dohare et al. 2024 take 800 permutations of 60,000 images and three hidden layers of 2,000 units: 48 million steps. This
is a smaller stream with three layers of 100 units, and its numbers stand beside no number of that paper.
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
    standardized=(0.0, 1.0),
    learning_rate=0.003,
    seeds=10,
)
