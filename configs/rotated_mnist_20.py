"""Rotated MNIST, 20 tasks, as in Mammoth (Buzzega et al. 2020, the DER paper), R-MNIST: one pass, batches of 128.

    python -m benchmarks run rotated_mnist_20 --methods naive,ewc,si,er,derpp --seeds 5

All 60,000 images in each task, one angle a task, uniform in [0, 180) degrees, nearest pixels; one head, no task ids.
MLP of 2 x 100 ReLU units with Xavier initialization; SGD with the learning rates, strengths and sizes of replayed
batches of `utils/best_args.py` for 200 stored examples, translated as in `split_mnist_online`.
To expect, in %, from the paper: SGD 67.7, online EWC 77.4, SI 71.9, ER with 200 examples 85.0, DER++ 90.4.
`python -m paper_repro check buzzega_2020_rotated`.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="rotated_mnist_20",
    summary="MNIST, 20 angles, one pass, protocol of Mammoth's R-MNIST",
    data="mnist",
    stream="rotated",
    scenarios=("domain",),
    tasks=20,
    interpolation="nearest",
    hidden=(100, 100),
    initialization="glorot",
    batch_size=128,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.2,
    samples=1000,
    evaluation="ends",
    hyperparameters={
        "agem": {"learning_rate": 0.1},
        "ewc": {"strength": 1.4, "learning_rate": 0.1},
        "si": {"strength": 1.0, "damping": 1.0, "learning_rate": 0.1},
        "er": {"learning_rate": 0.1},
        "derpp": {"distillation": 1.0, "strength": 0.5, "learning_rate": 0.1},
    },
    options={
        "ewc": {"anchors": "latest", "labels": "true_weighted"},
        "si": {"clip_negative": False},
        "agem": {"capacity": 200, "keep": "ring", "each": 10},
        "er": {"capacity": 200, "keep": "reservoir"},
        "derpp": {"capacity": 200},
    },
)
