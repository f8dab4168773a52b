"""Input-permuted MNIST: a million images, one at a time, a new permutation of the pixels after every 5,000.

    python -m benchmarks run input_permuted_mnist --methods sgd,adamw,cbp,upgd,homeostasis --seeds 3 --steps 100000

The protocol of Elsayed and Mahmood 2024 (UPGD): MLP 784-300-150-10 in PyTorch's initialization, batches of 1, accuracy
on each image before it is learnt, over the whole stream. Four trials for each method, on the first 12 tasks.

100,000 steps of a seed take 6 to 40 seconds on 2 CPU cores. To expect of them, in %: homeostasis 89, AdamW 86, layer
norm 85, SGD, UPGD and continual backpropagation 83 to 84; of the whole: 89, AdamW 86, layer norm 84, SGD 80.
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
        "bcm",
        "synaptic_gate",
        "three_factor",
        "intrinsic_plasticity",
        "synaptic_scaling",
        "maturity_lock",
        "surprise_rate",
        "homeostasis",
    ),
    seeds=20,
    hyperparameters={
        "sgd": {"learning_rate": 0.01},
        "adamw": {"learning_rate": 3e-4},
        "l2_init": {"strength": 3e-3},
        "shrink_perturb": {"shrink": 1e-5, "noise": 1e-4},
        "weight_clipping": {"factor": 3.0},
        "layer_norm": {"learning_rate": 0.003},
        "crelu": {"learning_rate": 0.005},
        "spectral": {"strength": 1e-3},
        "upgd": {"noise": 0.001, "weight_decay": 1e-3},
        "cbp": {"rate": 1e-5},
        "redo": {"threshold": 0.01},
        "self_normalized_resets": {"rejection": 0.001},
        "homeostasis": {"learning_rate": 0.005, "anchoring": 6e-3},
    },
    grids={
        "sgd": {"learning_rate": (0.003, 0.005, 0.01, 0.02)},
        "adamw": {"learning_rate": (3e-5, 1e-4, 3e-4, 1e-3)},
        "l2_init": {"strength": (3e-4, 1e-3, 3e-3, 1e-2)},
        "shrink_perturb": {"shrink": (1e-6, 1e-5, 1e-4, 1e-3), "noise": (1e-5, 1e-4, 1e-4, 1e-3)},
        "weight_clipping": {"factor": (1.0, 2.0, 3.0, 5.0)},
        "layer_norm": {"learning_rate": (0.003, 0.005, 0.01, 0.02)},
        "crelu": {"learning_rate": (0.003, 0.005, 0.01, 0.02)},
        "spectral": {"strength": (1e-4, 1e-3, 1e-2, 1e-1)},
        "upgd": {"noise": (0.001, 0.01, 0.1, 0.1), "weight_decay": (1e-3, 1e-2, 1e-2, 1e-3)},
        "cbp": {"rate": (1e-6, 1e-5, 1e-4, 1e-3)},
        "redo": {"threshold": (0.01, 0.03, 0.1, 0.3)},
        "self_normalized_resets": {"rejection": (0.001, 0.01, 0.03, 0.1)},
        "bcm": {"strength": (0.1, 0.3, 0.6, 1.0)},
        "synaptic_gate": {"strength": (0.1, 0.3, 0.6, 1.0)},
        "three_factor": {"strength": (0.1, 0.3, 0.6, 1.0)},
        "intrinsic_plasticity": {"speed": (1e-5, 1e-4, 1e-3, 1e-2)},
        "synaptic_scaling": {"speed": (1e-5, 1e-4, 1e-3, 1e-2)},
        "maturity_lock": {"strength": (0.3, 0.6, 0.9, 0.99)},
        "surprise_rate": {"strength": (0.1, 0.3, 1.0, 3.0)},
        "homeostasis": {"anchoring": (1e-3, 3e-3, 6e-3, 1e-2)},
    },
)
