"""Split MNIST online as in Mammoth (Buzzega et al. 2020, the DER paper), S-MNIST: one pass, batches of 10.

    python -m benchmarks run split_mnist_online --scenario class --methods naive,joint,si,er --seeds 10

Five tasks of two digits; MLP of 2 x 100 ReLU units with Xavier initialization; SGD with the learning rates, strengths
and 200 stored examples of `utils/best_args.py` at the tag neurips2020. Two of their numbers are translated: their EWC
has no half, so 90 is our 180 (their Fisher also weighs true labels by their probability, which is not translated), and
their replay takes one mean over new and stored examples together, so a learning rate of .01 is our .005.

4 minutes for 10 seeds on 2 CPU cores. To expect, in %, class-incremental (paper's number behind): naive 19.8 (19.6),
EWC 22.1 (20.5), SI 21.9 (19.3), ER with 200 examples 82.2 (80.4), joint 95.3 (95.6).
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_mnist_online",
    summary="MNIST, 5 tasks x 2 digits, one pass, protocol of Mammoth's S-MNIST",
    data="mnist",
    scenarios=("class",),
    hidden=(100, 100),
    initialization="glorot",
    batch_size=10,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.03,
    samples=1000,
    seeds=10,
    hyperparameters={
        "ewc": {"strength": 180.0},
        "si": {"strength": 1.0, "damping": 0.9, "learning_rate": 0.1},
        "er": {"learning_rate": 0.005},
        "condensate_projector": {"learning_rate": 0.1, "scale": 0.1},
    },
    batch_sizes={"condensate_memory": 500},
    options={
        "ewc": {"anchors": "latest"},
        "si": {"clip_negative": False},
        "er": {"capacity": 200, "keep": "reservoir"},
    },
)
