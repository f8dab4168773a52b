"""Split MNIST online as in Mammoth (Buzzega et al. 2020, the DER paper), S-MNIST: one pass, batches of 10.

    python -m benchmarks run split_mnist_online --scenario class --methods naive,joint,si,er --seeds 10

Five tasks of two digits; MLP of 2 x 100 ReLU units with Xavier initialization; SGD. Task-incremental accuracy there is
the class-incremental network asked with the outputs of the task only; here the scenario "task" also trains so.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_mnist_online",
    summary="MNIST, 5 tasks x 2 digits, one pass, protocol of Mammoth's S-MNIST",
    data="mnist",
    scenarios=("class",),
    hidden=(100, 100),
    initialization="glorot",
    batch_size=10,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.03,
    samples=1000,
    seeds=10,
    hyperparameters={"ewc": {"strength": 90.0}, "si": {"strength": 1.0, "damping": 0.9}},
    options={
        "ewc": {"anchors": "latest"},
        "si": {"clip_negative": False},
        "er": {"capacity": 200, "keep": "reservoir"},
    },
)
