"""Split MNIST in one pass, class-incremental: five tasks of two digits, one head, nobody says which task it is.

python -m benchmarks run split_mnist_one_pass
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_mnist_one_pass",
    summary="MNIST, 5 tasks x 2 digits, one pass, MLP 784-400-400-10",
    data="mnist",
    scenarios=("class",),
    hidden=(400, 400),
    initialization="smooth",
    batch_size=32,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.1,
    seeds=10,
)
