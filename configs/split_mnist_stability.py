"""Split MNIST in one pass, class-incremental: what condensates and homeostasis do alone, and together.

    python -m benchmarks run split_mnist_stability

Five tasks of two digits, one head, nobody says which task it is, MLP 784-400-400-10, batches of 32, plain SGD, every
image once, as in `split_mnist_one_pass`, and settings chosen by learning and keeping in equal parts: the mean of online
accuracy (on each batch before it is learnt) and accuracy on all digits at the end. Those of condensate_shell are those
of its core, condensate_homeostasis.

One seed takes .1 to 1 minute on one CPU core. To expect, in %, online and at the end: condensate_shell 98.4 and 95,
condensate_homeostasis 96.0 and 95, condensate_metric 95.5 and 92, condensate_projector 95.0 and 90, homeostasis 89.1
and 81, naive 98.5 and 23.
"""

import dataclasses

from configs.split_mnist_one_pass import suite as one_pass

suite = dataclasses.replace(
    one_pass,
    name="split_mnist_stability",
    summary="MNIST, 5 tasks x 2 digits, one pass, to be learnt and kept",
    measure="online_and_final_accuracy",
    methods=(
        "naive",
        "condensate_projector",
        "homeostasis",
        "condensate_homeostasis",
        "condensate_metric",
        "condensate_shell",
    ),
    hyperparameters={
        "naive": {"learning_rate": 0.05},
        "condensate_projector": {"learning_rate": 0.1, "scale": 1.0},
        "homeostasis": {"learning_rate": 0.001, "anchoring": 0.01},
        "condensate_homeostasis": {"learning_rate": 0.03, "scale": 1.0},
        "condensate_metric": {"learning_rate": 0.1, "scale": 1.0},
        # A core that is condensate_homeostasis, and a shell that takes steps as large: no trials of its own.
        "condensate_shell": {"learning_rate": 0.03, "scale": 1.0},
    },
    options={
        "homeostasis": {"adapts": False},
        "condensate_homeostasis": {"adapts": False},
        "condensate_shell": {"adapts": False},
    },
    batch_sizes={},
    grids={
        "naive": {"learning_rate": (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)},
        "condensate_projector": {
            "learning_rate": (0.03, 0.03, 0.03, 0.03, 0.1, 0.1, 0.1, 0.1),
            "scale": (0.1, 0.3, 1.0, 3.0, 0.1, 0.3, 1.0, 3.0),
        },
        "homeostasis": {
            "learning_rate": (0.0005, 0.0005, 0.001, 0.001, 0.002, 0.002, 0.003, 0.003),
            "anchoring": (0.001, 0.01, 0.001, 0.01, 0.001, 0.01, 0.001, 0.01),
        },
        "condensate_homeostasis": {
            "learning_rate": (0.03, 0.03, 0.03, 0.03, 0.1, 0.1, 0.1, 0.1),
            "scale": (0.1, 0.3, 1.0, 3.0, 0.1, 0.3, 1.0, 3.0),
        },
        "condensate_metric": {
            "learning_rate": (0.03, 0.03, 0.03, 0.03, 0.1, 0.1, 0.1, 0.1),
            "scale": (0.1, 0.3, 1.0, 3.0, 0.1, 0.3, 1.0, 3.0),
        },
    },
)
