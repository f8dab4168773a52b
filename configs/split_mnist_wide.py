"""Split MNIST in one pass, class-incremental, by a wider network: 1.39 million weights.

    python -m benchmarks run split_mnist_wide

As `split_mnist_one_pass`, with an MLP 784-1000-600-10. .1 to 4 minutes a seed and method on 2 CPU cores. To expect, in
%: condensate_projector 95, told or not where a task ends; condensate_head 96, GPM 94, OWM 93, DER++ 92.
"""

import dataclasses

from configs.split_mnist_one_pass import suite as narrow

suite = dataclasses.replace(
    narrow,
    name="split_mnist_wide",
    summary="MNIST, 5 tasks x 2 digits, one pass, MLP 784-1000-600-10",
    hidden=(1000, 600),
    methods=(
        "naive",
        "ewc",
        "owm",
        "gpm",
        "derpp",
        "condensate_projector",
        "condensate_projector_on_surprise",
        "condensate_head",
    ),
    seeds=5,
    options={**narrow.options, "ewc": {"anchors": "latest", "form": "proximal"}},  # the explicit pull diverges
    grids={},
)
