"""Input-permuted MNIST: a million images, one at a time, a new permutation of the pixels after every 5,000.

python -m benchmarks run input_permuted_mnist --steps 100000
"""

from benchmarks.suite import Suite

suite = Suite(
    name="input_permuted_mnist",
    summary="MNIST, a million images one by one, a new permutation after each 5,000",
    data="mnist",
    stream="permuted",
    scenarios=("domain",),
    tasks=200,
    examples=5000,
    hidden=(300, 150),
    batch_size=1,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.01,
    evaluation="ends",
    methods=("naive",),
    seeds=20,
)
