"""Random-label MNIST: 1,200 images whose labels are drawn anew in each of 50 tasks, 400 passes each.

    python -m benchmarks run random_label_mnist --methods adam,l2_init,homeostasis --seeds 3

The protocol of Kumar, Marklund, Van Roy 2023: MLP 784-100-100-10, Adam, batches of 16. What counts is how well each
task is memorized while it is learnt: the mean of online accuracy over its 30,000 steps. Eight trials for each method,
on the first three tasks.

One seed takes 4 to 13 minutes on one CPU core. To expect, in %: homeostasis 98.8, concatenated ReLU 98.6, L2 Init 95.5.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="random_label_mnist",
    summary="MNIST, 1,200 images, 50 tasks of random labels, 400 passes each",
    data="mnist",
    stream="random_labels",
    scenarios=("domain",),
    tasks=50,
    examples=1200,
    hidden=(100, 100),
    initialization="torch",
    batch_size=16,
    epochs=400,
    optimizer="adam",
    learning_rate=1e-3,
    evaluation="ends",
    measure="online_accuracy",
    inspected=1200,
    methods=("adam", "l2_init", "shrink_perturb", "weight_clipping", "layer_norm", "crelu", "cbp", "homeostasis"),
    seeds=10,
    hyperparameters={
        "adam": {"learning_rate": 3e-4},
        "l2_init": {"learning_rate": 3e-4, "strength": 1e-3},
        "shrink_perturb": {"learning_rate": 3e-4, "shrink": 1e-4, "noise": 1e-4},
        "weight_clipping": {"learning_rate": 3e-4, "factor": 2.0},
        "layer_norm": {"learning_rate": 2e-4},
        "crelu": {"learning_rate": 2e-3},
        "cbp": {"rate": 1e-3},
        "homeostasis": {"learning_rate": 6e-4, "anchoring": 1e-4, "ridge": 1.0},
    },
    grids={
        "adam": {"learning_rate": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3)},
        "layer_norm": {"learning_rate": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3)},
        "crelu": {"learning_rate": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3)},
        "l2_init": {
            "learning_rate": (3e-4, 3e-4, 3e-4, 1e-3, 1e-3, 1e-3, 3e-3, 3e-3),
            "strength": (1e-4, 1e-3, 1e-2, 1e-4, 1e-3, 1e-2, 1e-3, 1e-2),
        },
        "shrink_perturb": {
            "learning_rate": (3e-4, 3e-4, 3e-4, 1e-3, 1e-3, 1e-3, 3e-3, 3e-3),
            "shrink": (1e-4, 1e-4, 3e-4, 1e-4, 1e-4, 3e-4, 1e-4, 3e-4),
            "noise": (1e-5, 1e-4, 3e-4, 1e-5, 1e-4, 3e-4, 1e-4, 3e-4),
        },
        "weight_clipping": {
            "learning_rate": (3e-4, 3e-4, 3e-4, 1e-3, 1e-3, 1e-3, 3e-3, 3e-3),
            "factor": (1.5, 2.0, 3.0, 1.5, 2.0, 3.0, 1.5, 2.0),
        },
        "cbp": {
            "learning_rate": (3e-4, 3e-4, 3e-4, 1e-3, 1e-3, 1e-3, 3e-3, 3e-3),
            "rate": (1e-4, 1e-3, 1e-2, 1e-4, 1e-3, 1e-2, 1e-3, 1e-2),
        },
        "homeostasis": {
            "learning_rate": (3e-4, 6e-4, 6e-4, 6e-4, 6e-4, 1e-3, 1e-3, 1e-3),
            "anchoring": (1e-4, 1e-4, 1e-4, 1e-4, 1e-3, 1e-5, 1e-4, 1e-4),
            "ridge": (1.0, 0.1, 1.0, 10.0, 1.0, 0.1, 1.0, 10.0),
        },
    },
)
