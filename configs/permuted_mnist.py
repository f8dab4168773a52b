"""Permuted MNIST as in van de Ven and Tolias 2018: ten permutations of the padded 32 x 32 pixels.

    python -m benchmarks run permuted_mnist --scenario domain --methods naive,joint,ewc,si,er --seeds 5

MLP of 2 x 1,000 ReLU units; Adam, learning rate 1e-4, batches of 128, 5,000 steps a task, joint training 50,000.
65 TFLOP a run for the optimizer alone and twice that for replay: about 11 and 22 minutes a seed on 2 CPU cores (at the
0.1 TFLOP/s that split MNIST reaches there). Not run yet. To expect (paper, domain): none 78.5, EWC 94.3, SI 95.3, joint
97.6 %. For a quick look: `--set iterations=100 --set tasks=3`.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="permuted_mnist",
    summary="MNIST, 10 permutations, protocol of van de Ven and Tolias 2018",
    data="mnist",
    stream="permuted",
    tasks=10,
    pad=2,
    hidden=(1000, 1000),
    batch_size=128,
    iterations=5000,
    learning_rate=1e-4,
    samples=1000,
    hyperparameters={"ewc": {"strength": 100.0}, "si": {"strength": 10.0, "damping": 0.1}},
    options={
        "si": {"clip_negative": False},
        "er": {"capacity": 1000, "keep": "class_balanced", "replay": "past", "weighting": "tasks"},
    },
)
