"""A hundred permutations of MNIST in one pass, one head of ten outputs, no task ids.

    python -m benchmarks run permuted_mnist_100

A slot with a map of its own for each context, chosen by the nearest mean image; random features, their width from the
first task. After a task it alone is tested, and all at the end. 19 minutes a seed on 2 CPU cores, and 1.2 GB of
statistics. To expect, in %: 96.1, every context inferred.
"""

import dataclasses

from configs.permuted_mnist_one_pass import suite as ten

suite = dataclasses.replace(
    ten,
    name="permuted_mnist_100",
    summary="MNIST, 100 permutations, one pass, one head, no task ids",
    tasks=100,
    methods=("condensate_contexts",),
    seeds=2,
    options={"condensate_contexts": {"width": 2200, "slots": 120}},
)
