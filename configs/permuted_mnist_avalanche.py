"""Permuted MNIST as `continual-learning-baselines` has it for EWC: ten permutations, plain SGD at a small step.

    python -m benchmarks run permuted_mnist_avalanche --methods naive,ewc --seeds 5
    ... --methods naive,si --set hidden=1000 --set optimizer=adam --seeds 5

One hidden layer of 512 ReLU units, ten passes over each permutation in batches of 256, images with MNIST's mean and
deviation taken off; for SI 1,000 units and Adam. Their EWC of lambda 1 squares the mean gradient of a batch and has no
half: `neuroml.conventions.translate("avalanche", 1.0, examples=60000, batch_size=256)` is the strength here, the same
in the mean over weights and not in each. Their SI of lambda 10 has a half, counts no importance above a thousandth, and
its penalty's own gradient earns credit. They clear the optimizer's state where a task begins, ours does not.

3.5 minutes a seed on one CPU core for EWC, 6.5 for SI. To expect: EWC 83.7, SI 86 % (their README: 83 for both).
`python -m paper_repro check permuted_mnist_ewc_si`.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="permuted_mnist_avalanche",
    summary="MNIST, 10 permutations, ten passes, protocol of continual-learning-baselines",
    data="mnist",
    stream="permuted",
    scenarios=("domain",),
    tasks=10,
    standardized=(0.1307, 0.3081),
    hidden=(512,),
    batch_size=256,
    epochs=10,
    optimizer="sgd",
    learning_rate=1e-3,
    evaluation="ends",
    methods=("naive", "ewc", "si"),
    hyperparameters={"ewc": {"strength": 0.0078125}, "si": {"strength": 5.0, "damping": 0.1, "ceiling": 0.001}},
    options={"ewc": {"labels": "true"}, "si": {"clip_negative": False, "count_penalty": True}},
)
