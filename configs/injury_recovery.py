"""Injury and recovery: in the midst of the third of four permutations, half of all hidden neurons are destroyed.

    python -m benchmarks run injury_recovery --methods none,random_rebirth,schwann,nanotube --seeds 3 --json

Permuted MNIST, 20,000 images of each permutation once, batches of 16, MLP 784-100-100-10, plain SGD. Destroyed are all
weights that enter and leave a neuron, so that no gradient brings it back. `--set injury=0.8` for another share,
`--set injury=0.0 --set severed=0.2` for synapses, `--set consolidates=True --set scale=1.0` to keep earlier tasks by
condensates: there `python -m paper_repro.repair.with_condensates` chose `--set nanotube.newborns=held
--set nanotube.compensation=0.0 --set random_rebirth.every=1`. A seed takes 1 to 5 seconds on one CPU core, with
condensates 20 to 25. To expect, in batches until 95 % of the accuracy before it is back: at injury=0.8
nanotube 98, random rebirth 158, none 177, Schwann cells 190; at half nanotube 23, none 27, random rebirth 27, Schwann
cells 31. Settings are those that `python -m paper_repro.repair.trials` chose.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="injury_recovery",
    summary="MNIST, 4 permutations of 20,000 images, neurons destroyed in the midst of the third",
    data="mnist",
    stream="permuted",
    scenarios=("domain",),
    tasks=4,
    examples=20_000,
    hidden=(100, 100),
    initialization="torch",
    batch_size=16,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.1,
    measure="online_accuracy",
    injury=0.5,
    injury_at=3125,
    inspected=500,
    methods=("none", "random_rebirth", "schwann", "nanotube"),
    hyperparameters={"schwann": {"rate": 0.3, "gain": 1.0}, "nanotube": {"noise": 0.3, "compensation": 0.5}},
    options={
        "random_rebirth": {"every": 5, "heals": "destroyed"},
        "nanotube": {"every": 1, "heals": "destroyed"},
    },
    seeds=10,
    grids={
        "none": {"learning_rate": (0.02, 0.05, 0.1, 0.2)},
        "random_rebirth": {"learning_rate": (0.02, 0.05, 0.1, 0.2)},
        "schwann": {"learning_rate": (0.02, 0.05, 0.1, 0.2)},
        "nanotube": {"learning_rate": (0.02, 0.05, 0.1, 0.2)},
    },
)
