"""Split digits: five tasks of two classes on scikit-learn's handwritten digits, which come with the package.

    python -m benchmarks run split_digits

A small suite that runs anywhere and shows what the large ones show: 16 seconds of training on 2 CPU cores, a minute and
a half with compilation, half a minute when compiled before. It has no published numbers. To expect, class-incremental:
naive .20, EWC .20, SI .21, ER .88, joint .97.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_digits",
    summary="embedded handwritten digits, 5 tasks x 2 classes: seconds, no download",
    data="digits",
    hidden=(100, 100),
    batch_size=32,
    iterations=100,
    learning_rate=1e-3,
    samples=200,
    seeds=10,
    # Chosen by `python -m benchmarks tune split_digits --seeds 5` among the grids: the most accurate on held-out
    # training images, eight trials a method. The trials are in paper_repro/results/tuning/.
    hyperparameters={
        "ewc": {"strength": {"task": 1e3, "domain": 1e4, "class": 1e1}},
        "si": {"strength": {"task": 1e3, "domain": 1e1, "class": 1e1}},
        "mas": {"strength": {"task": 1e0, "domain": 1e-1, "class": 1e-1}},
        "er": {"strength": {"task": 8.0, "domain": 4.0, "class": 8.0}},
    },
    grids={
        "ewc": {"strength": (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)},
        "si": {"strength": (1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6)},
        "mas": {"strength": (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)},
        "er": {"strength": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)},
    },
    options={"er": {"capacity": 100, "keep": "class_balanced"}},
)
