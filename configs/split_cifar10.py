"""Split CIFAR-10 in one pass, class-incremental, from scratch, no stored data: five tasks of two classes.

    python -m benchmarks run split_cifar10

Fixed features: a dictionary of 800 whitened 6 x 6 patches, learnt from the first 2,000 images of the first task. 8 to
12 minutes a seed on one CPU core. To expect, in %: condensate_memory 79.5, the same with random patches 79, random
features and ridge 49. Networks that learn by gradient, four trials each on one tuning seed, 1 to 11 minutes a seed:
joint 56, DER++ and ER with 500 examples 33 and 32, OWM 19, GPM, naive, EWC and SI 17.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_cifar10",
    summary="CIFAR-10, 5 tasks x 2 classes, one pass",
    data="cifar10",
    scenarios=("class",),
    network="cnn",
    batch_size=10,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.01,
    evaluation="ends",
    methods=(
        "naive",
        "joint",
        "ewc",
        "si",
        "owm",
        "gpm",
        "er",
        "derpp",
        "condensate_projector",
        "condensate_memory",
        "patch_random",
        "random_ridge",
    ),
    seeds=3,
    hyperparameters={
        "naive": {"learning_rate": 0.1},
        "joint": {"learning_rate": 0.1},
        "ewc": {"learning_rate": 0.03, "strength": 10.0},
        "si": {"learning_rate": 0.03, "strength": 0.1},
        "owm": {"learning_rate": 0.3, "alpha": 10.0},
        "gpm": {"learning_rate": 0.1, "threshold": 0.9},
        "er": {"learning_rate": 0.03},
        "derpp": {"learning_rate": 0.03},
        "condensate_projector": {"learning_rate": 0.1, "scale": 0.3},
        "condensate_memory": {"ridge": 0.01},
        "patch_random": {"ridge": 0.01},
        "random_ridge": {"ridge": 0.01},
    },
    options={
        "ewc": {"anchors": "latest", "form": "proximal", "labels": "sample"},  # all ten labels take ten times as long
        "er": {"capacity": 500},
        "derpp": {"capacity": 500},
        "random_ridge": {"width": 4000},
        "condensate_memory": {"width": 800, "size": 6, "pool": 2, "mirror": True},
        "patch_random": {"width": 800, "size": 6, "pool": 2, "mirror": True},
    },
    # Projecting takes as long for any batch, and longer than all the rest: larger ones for those that project.
    batch_sizes={
        "owm": 32,
        "gpm": 32,
        "condensate_projector": 32,
        "condensate_memory": 500,
        "patch_random": 500,
        "random_ridge": 500,
    },
    grids={
        "naive": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "joint": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "ewc": {"learning_rate": (0.01, 0.01, 0.03, 0.03), "strength": (10.0, 1000.0, 10.0, 1000.0)},
        "si": {"learning_rate": (0.01, 0.01, 0.03, 0.03), "strength": (0.1, 1.0, 0.1, 1.0)},
        "owm": {"learning_rate": (0.1, 0.1, 0.3, 0.3), "alpha": (1.0, 10.0, 1.0, 10.0)},
        "gpm": {"learning_rate": (0.1, 0.1, 0.3, 0.3), "threshold": (0.9, 0.97, 0.9, 0.97)},
        "er": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "derpp": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "condensate_projector": {"learning_rate": (0.03, 0.03, 0.1, 0.1), "scale": (0.1, 0.3, 0.1, 0.3)},
    },
)
