"""Permuted MNIST in one pass: ten permutations of the 28 x 28 pixels, one head of ten outputs, no task ids.

    python -m benchmarks run permuted_mnist_one_pass

All 60,000 images once in each task. Networks that learn by gradient: MLP 784-1000-500-10 (1.29 million weights), SGD,
batches of 128; condensate_contexts: a ridge over 3,000 random features for each context that it finds. 4 minutes a seed
on 2 CPU cores. To expect, in %: condensate_projector 96, condensate_contexts 96.6, every context inferred.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="permuted_mnist_one_pass",
    summary="MNIST, 10 permutations, one pass, one head, no task ids",
    data="mnist",
    stream="permuted",
    scenarios=("domain",),
    tasks=10,
    hidden=(1000, 500),
    initialization="lecun",
    batch_size=128,
    epochs=1,
    optimizer="sgd",
    learning_rate=0.1,
    evaluation="ends",
    methods=("naive", "condensate_projector", "condensate_projector_on_surprise", "condensate_contexts"),
    seeds=5,
    hyperparameters={
        "condensate_projector": {"learning_rate": 0.5, "scale": 0.3},
        "condensate_projector_on_surprise": {"learning_rate": 0.5, "scale": 0.3},
        "condensate_contexts": {"ridge": 0.001},
    },
    options={"condensate_contexts": {"width": 3000, "slots": 20}},
    batch_sizes={"condensate_contexts": 500},
)
