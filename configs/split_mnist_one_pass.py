"""Split MNIST in one pass, class-incremental: five tasks of two digits, one head, nobody says which task it is.

    python -m benchmarks run split_mnist_one_pass

MLP 784-400-400-10, batches of 32, plain SGD, every image once. First layer of smooth random receptive fields (see
`neuroml.mlp`), the same for every method that trains it.

.03 to 2 minutes a seed and method on 2 CPU cores. To expect, in %: condensate_projector 94, told or not where a task
ends; OWM 92, DER++ with 200 examples 92, EWC 26, joint 97; on fixed features: random 96, patch condensates 99.
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
        "condensate_projector_on_surprise",
        "condensate_shuffled",
        "condensate_anchor",
        "condensate_head",
        "condensate_homeostasis",
        "condensate_memory",
        "patch_random",
        "random_ridge",
    ),
    hyperparameters={
        "naive": {"learning_rate": 0.03},
        "ewc": {"strength": 100.0},
        "si": {"strength": 0.1},
        "owm": {"alpha": 1.0},
        "fixed": {"scale": 0.1},
        "gpm": {"threshold": 0.95},
        "growth": {"scale": 0.1, "number": 32.0, "patience": 10.0},
        "er": {"learning_rate": 0.01},
        "derpp": {"learning_rate": 0.03},
        "condensate_projector": {"scale": 0.1},
        "condensate_head": {"radius": 0.45},
        "condensate_homeostasis": {"learning_rate": 0.03, "scale": 0.2, "anchoring": 0.001},
        "condensate_shell": {"learning_rate": 0.03, "scale": 0.2, "anchoring": 0.001},
        "homeostasis": {"learning_rate": 0.03, "anchoring": 0.001},
        "random_ridge": {"ridge": 0.0001},
    },
    options={
        "ewc": {"anchors": "latest"},
        "condensate_head": {"slots": 4000},
        "condensate_homeostasis": {"adapts": False},
        "condensate_shell": {"adapts": False},
        "homeostasis": {"adapts": False},
        "condensate_memory": {"width": 300},
        "patch_random": {"width": 300},
    },
    batch_sizes={"condensate_memory": 500, "patch_random": 500, "random_ridge": 500},
    grids={
        "naive": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "ewc": {"strength": (1.0, 10.0, 100.0, 1000.0)},
        "si": {"strength": (0.01, 0.1, 1.0, 10.0)},
        "owm": {"alpha": (0.01, 0.1, 1.0, 10.0)},
        "gpm": {"threshold": (0.9, 0.95, 0.99, 0.999)},
        "er": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "derpp": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "condensate_projector": {"scale": (0.03, 0.06, 0.1, 0.2)},
        "random_ridge": {"ridge": (0.0001, 0.001, 0.01, 0.1)},
    },
)
