"""Input-permuted MNIST: a million images, one at a time, a new permutation of the pixels after every 5,000.

    python -m benchmarks run input_permuted_mnist --methods sgd,adamw,cbp,upgd,homeostasis --seeds 3 --steps 100000

The protocol of Elsayed and Mahmood 2024 (UPGD): MLP 784-300-150-10 in PyTorch's initialization, images standardized,
batches of 1, accuracy on each image before it is learnt, over the whole stream. Six trials for each method, on the
first 12 tasks.

100,000 steps of a seed take 6 to 50 seconds on 2 CPU cores. To expect of them, in %: homeostasis 89, all others 85.5 to
86.8.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="input_permuted_mnist",
    summary="MNIST, a million images one by one, a new permutation after each 5,000",
    data="mnist",
    stream="permuted",
    scenarios=("domain",),
    tasks=200,
    examples=5000,
    hidden=(300, 150),
    initialization="torch",
    standardized=(0.1307, 0.3081),
    batch_size=1,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.01,
    evaluation="ends",
    measure="online_accuracy",
    inspected=500,
    methods=(
        "sgd",
        "adamw",
        "l2_init",
        "shrink_perturb",
        "weight_clipping",
        "layer_norm",
        "crelu",
        "spectral",
        "upgd",
        "cbp",
        "redo",
        "self_normalized_resets",
        "regrama",
        "partial_resets",
        "bcm",
        "synaptic_gate",
        "three_factor",
        "intrinsic_plasticity",
        "synaptic_scaling",
        "maturity_lock",
        "surprise_rate",
        "activity_rate",
        "sparsity",
        "k_winners",
        "homeostasis",
    ),
    seeds=20,
    hyperparameters={
        "sgd": {"learning_rate": 0.005},
        "upgd": {"learning_rate": 0.01, "noise": 0.001, "weight_decay": 0.001},
        "layer_norm": {"learning_rate": 0.002},
        "l2_init": {"learning_rate": 0.003, "strength": 0.001},
        "adamw": {"learning_rate": 0.0002},
        "cbp": {"learning_rate": 0.003, "rate": 1e-05},
        "homeostasis": {"learning_rate": 0.005, "anchoring": 0.01},
        "weight_clipping": {"learning_rate": 0.003, "factor": 3.0},
        "crelu": {"learning_rate": 0.003},
        "spectral": {"learning_rate": 0.003, "strength": 0.01},
        "shrink_perturb": {"learning_rate": 0.003, "shrink": 1e-06, "noise": 1e-05},
        "redo": {"learning_rate": 0.003, "threshold": 0.01},
        "self_normalized_resets": {"learning_rate": 0.003, "rejection": 0.03},
        "regrama": {"learning_rate": 0.003, "threshold": 0.01},
        "partial_resets": {"learning_rate": 0.003, "strength": 0.015},
        "maturity_lock": {"learning_rate": 0.003, "strength": 0.9},
        "three_factor": {"learning_rate": 0.003, "strength": 0.3},
        "bcm": {"learning_rate": 0.003, "strength": 0.3},
        "synaptic_gate": {"learning_rate": 0.003, "strength": 0.1},
        "intrinsic_plasticity": {"learning_rate": 0.003, "speed": 1e-06},
        "synaptic_scaling": {"learning_rate": 0.003, "speed": 1e-05},
        "surprise_rate": {"learning_rate": 0.003, "strength": 0.3},
        "activity_rate": {"learning_rate": 0.003, "strength": 1.0},
        "sparsity": {"learning_rate": 0.003, "strength": 0.01},
        "k_winners": {"learning_rate": 0.003, "winners": 1.0},
    },
    grids={
        "sgd": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.007, 0.01)},
        "adamw": {"learning_rate": (3e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3)},
        "l2_init": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (1e-3, 3e-3, 1e-2, 1e-3, 3e-3, 1e-2),
        },
        "shrink_perturb": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "shrink": (1e-6, 1e-5, 1e-4, 1e-6, 1e-5, 1e-4),
            "noise": (1e-5, 1e-4, 1e-4, 1e-5, 1e-4, 1e-4),
        },
        "weight_clipping": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "factor": (1.0, 2.0, 3.0, 1.0, 2.0, 3.0),
        },
        "layer_norm": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02)},
        "crelu": {"learning_rate": (0.001, 0.002, 0.003, 0.005, 0.007, 0.01)},
        "spectral": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (1e-3, 1e-2, 1e-1, 1e-3, 1e-2, 1e-1),
        },
        "upgd": {
            "learning_rate": (0.005, 0.005, 0.005, 0.01, 0.01, 0.01),
            "noise": (0.001, 0.01, 0.1, 0.001, 0.01, 0.1),
            "weight_decay": (1e-3, 1e-2, 1e-2, 1e-3, 1e-2, 1e-2),
        },
        "cbp": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "rate": (1e-6, 1e-5, 1e-4, 1e-6, 1e-5, 1e-4),
        },
        "redo": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "threshold": (0.01, 0.03, 0.1, 0.01, 0.03, 0.1),
        },
        "self_normalized_resets": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "rejection": (0.001, 0.01, 0.03, 0.001, 0.01, 0.03),
        },
        "regrama": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "threshold": (0.003, 0.01, 0.03, 0.003, 0.01, 0.03),
        },
        "partial_resets": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.005, 0.015, 0.05, 0.005, 0.015, 0.05),
        },
        "bcm": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.1, 0.3, 1.0, 0.1, 0.3, 1.0),
        },
        "synaptic_gate": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.1, 0.3, 1.0, 0.1, 0.3, 1.0),
        },
        "three_factor": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.1, 0.3, 1.0, 0.1, 0.3, 1.0),
        },
        "intrinsic_plasticity": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "speed": (1e-6, 1e-5, 1e-4, 1e-6, 1e-5, 1e-4),
        },
        "synaptic_scaling": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "speed": (1e-5, 1e-4, 1e-3, 1e-5, 1e-4, 1e-3),
        },
        "maturity_lock": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.6, 0.9, 0.99, 0.6, 0.9, 0.99),
        },
        "surprise_rate": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.03, 0.1, 0.3, 0.03, 0.1, 0.3),
        },
        "activity_rate": {
            "learning_rate": (0.003, 0.003, 0.003, 0.005, 0.005, 0.005),
            "strength": (1.0, 3.0, 10.0, 1.0, 3.0, 10.0),
        },
        "sparsity": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "strength": (0.001, 0.01, 0.1, 0.001, 0.01, 0.1),
        },
        "k_winners": {
            "learning_rate": (0.003, 0.003, 0.003, 0.01, 0.01, 0.01),
            "winners": (0.1, 0.3, 1.0, 0.1, 0.3, 1.0),
        },
        "homeostasis": {
            "learning_rate": (0.003, 0.003, 0.005, 0.005, 0.005, 0.01),
            "anchoring": (3e-3, 6e-3, 3e-3, 6e-3, 1e-2, 6e-3),
        },
    },
)
