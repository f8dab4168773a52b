"""Split MNIST online as in Mammoth (Buzzega et al. 2020, the DER paper), S-MNIST: one pass, batches of 10.

    python -m benchmarks run split_mnist_online --scenario class --methods naive,joint,si,er --seeds 10

Five tasks of two digits, in the order of the digits; MLP of 2 x 100 ReLU units with Xavier initialization; SGD with
the learning rates, strengths and sizes of replayed batches of `utils/best_args.py` for 200 stored examples. Three of
their numbers are translated: their EWC has no half, so 90 is our 180 (its Fisher takes true labels, weighted by their
probability, and so does ours here); their replay takes one mean over new and stored examples together, so a learning
rate of .01 is our .005. Their distillation has no temperature^2, so an alpha of 1 is our .25 at temperature 2. Their SI
counts the penalty's gradient, too (`count_penalty`), and ours does not.
ER-ACE, the nearest mean of what ER stores, GDumb and the projector, which that table lacks, had four trials of one
number each, and chose the edge of their grids.
`python -m paper_repro check buzzega_2020_split` holds all of it against the paper.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_mnist_online",
    summary="MNIST, 5 tasks x 2 digits, one pass, protocol of Mammoth's S-MNIST",
    data="mnist",
    scenarios=("class",),
    ordered=True,
    hidden=(100, 100),
    initialization="glorot",
    batch_size=10,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.03,
    samples=1000,
    seeds=10,
    hyperparameters={
        "agem": {"learning_rate": 0.1},
        "icarl": {"learning_rate": 0.1, "strength": 0.017},
        "lwf": {"strength": 0.25},
        "ewc": {"strength": 180.0},
        "si": {"strength": 1.0, "damping": 0.9, "learning_rate": 0.1},
        "er": {"learning_rate": 0.005},
        "er_ace": {"learning_rate": 0.1},
        "er_nearest_mean": {"learning_rate": 0.1},
        "gdumb": {"learning_rate": 0.1},
        "derpp": {"distillation": 0.2, "strength": 1.0},
        "condensate_projector": {"learning_rate": 0.1, "scale": 0.03},
    },
    batch_sizes={"condensate_memory": 500},
    options={
        "ewc": {"anchors": "latest", "labels": "true_weighted"},
        "si": {"clip_negative": False},
        "agem": {"capacity": 200, "keep": "ring", "replay_batch": 128, "each": 40},
        "er": {"capacity": 200, "keep": "reservoir"},
        "derpp": {"capacity": 200, "replay_batch": 128},
    },
    grids={
        "er_ace": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "er_nearest_mean": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "gdumb": {"learning_rate": (0.003, 0.01, 0.03, 0.1)},
        "condensate_projector": {"scale": (0.03, 0.06, 0.1, 0.2)},
    },
)
