"""Permuted MNIST, 100 permutations of 10,000 images each: does a network that keeps also go on learning?

    python -m benchmarks run permuted_mnist_100_short

One pass, one head of ten outputs, no task ids, MLP 784-400-400-10, SGD, batches of 128. Online accuracy (on each batch
before it is learnt) says how well the network still learns, the accuracy on all tasks at the end what it has kept.

One seed takes 1 to 5 minutes on one CPU core. To expect, in %, online and at the end: condensate_shell 83.3 and 79,
homeostasis 83.3 and 31, condensate_metric 80.3 and 79, condensate_projector 79.9 and 77, naive 80.2 and 37,
condensate_homeostasis 73.9 and 69.
"""

import dataclasses

from configs.permuted_mnist_one_pass import suite as ten

suite = dataclasses.replace(
    ten,
    name="permuted_mnist_100_short",
    summary="MNIST, 100 permutations of 10,000 images, one pass, one head, no task ids",
    tasks=100,
    examples=10_000,
    hidden=(400, 400),
    measure="online_and_final_accuracy",
    inspected=500,
    batch_sizes={},
    methods=(
        "naive",
        "condensate_projector",
        "homeostasis",
        "condensate_homeostasis",
        "condensate_metric",
        "condensate_shell",
    ),
    seeds=10,
    options={
        "homeostasis": {"adapts": False},
        "condensate_homeostasis": {"adapts": False},
        "condensate_shell": {"adapts": False, "core": "condensate_metric"},
    },
    hyperparameters={
        "naive": {"learning_rate": 0.2},
        "condensate_projector": {"learning_rate": 0.6, "scale": 2.0},
        "homeostasis": {"anchoring": 0.001},
        "condensate_homeostasis": {"learning_rate": 0.3, "anchoring": 0.001, "scale": 0.6},
        "condensate_metric": {"learning_rate": 0.6, "scale": 2.0},
        # A core that is condensate_metric, and a shell that takes the steps of homeostasis (.1): no trials of its own.
        "condensate_shell": {"learning_rate": 0.6, "anchoring": 0.001, "scale": 2.0, "speed": 0.1667},
    },
    grids={
        "naive": {"learning_rate": (0.03, 0.1, 0.2, 0.3)},
        "condensate_projector": {"learning_rate": (0.3, 0.3, 0.6, 0.6), "scale": (0.6, 2.0, 0.6, 2.0)},
        "homeostasis": {"learning_rate": (0.03, 0.1, 0.2, 0.3)},
        "condensate_homeostasis": {"learning_rate": (0.3, 0.3, 0.6, 0.6), "scale": (0.6, 2.0, 0.6, 2.0)},
        "condensate_metric": {"learning_rate": (0.3, 0.3, 0.6, 0.6), "scale": (0.6, 2.0, 0.6, 2.0)},
    },
)
