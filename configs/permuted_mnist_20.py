"""Permuted MNIST, 20 tasks, as in Mammoth (Buzzega et al. 2020, the DER paper), P-MNIST: one pass, batches of 128.

    python -m benchmarks run permuted_mnist_20 --methods naive,ewc,si,er,derpp --seeds 5

All 60,000 images in each task, one random permutation of the pixels a task; one head, no task ids.
MLP of 2 x 100 ReLU units with Xavier initialization; SGD with the learning rates, strengths and sizes of replayed
batches of `utils/best_args.py` for 200 stored examples, translated as in `split_mnist_online`.
MESU, which is not in that paper, is tuned on the first five permutations (eight trials; most larger priors diverged).
To expect, in %, from the paper: SGD 40.7, online EWC 75.8, SI 65.9, ER with 200 examples 72.4, DER++ 83.6.
`python -m paper_repro check buzzega_2020_permuted`.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="permuted_mnist_20",
    summary="MNIST, 20 permutations, one pass, protocol of Mammoth's P-MNIST",
    data="mnist",
    stream="permuted",
    scenarios=("domain",),
    tasks=20,
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
        "si": {"strength": 0.5, "damping": 1.0, "learning_rate": 0.1},
        "er": {"learning_rate": 0.1},
        "derpp": {"distillation": 1.0, "strength": 1.0, "learning_rate": 0.1},
        "mesu": {"learning_rate": 0.12, "prior": 0.03, "window": 2e4},
    },
    options={
        "ewc": {"anchors": "latest", "labels": "true_weighted"},
        "si": {"clip_negative": False},
        "agem": {"capacity": 200, "keep": "ring", "each": 10},
        "er": {"capacity": 200, "keep": "reservoir"},
        "derpp": {"capacity": 200},
    },
    grids={
        "mesu": {
            "learning_rate": (0.12, 0.12, 0.3, 0.3, 0.5, 0.5, 1.3, 1.3),
            "prior": (0.03, 0.03, 0.05, 0.05, 0.06, 0.06, 0.1, 0.1),
            "window": (2e3, 2e4, 2e3, 2e4, 2e3, 2e4, 2e3, 2e4),
        },
    },
)
