"""Split CIFAR-100 in one pass, class-incremental, from scratch, no stored data: ten tasks of ten classes.

    python -m benchmarks run split_cifar100

As `split_cifar10`, the dictionary from the first 2,000 images of the first ten classes. 6 minutes a seed on one CPU
core. To expect, in %: condensate_memory 53.6, random features 23; of what learns by gradient, with settings from four
trials each: joint 17, DER++ 10, ER 9, OWM and GPM 5, EWC, SI and naive 4 (1 to 6 minutes a seed, GPM 10 to 21).
"""

import dataclasses

from configs.split_cifar10 import suite as ten

suite = dataclasses.replace(
    ten,
    name="split_cifar100",
    summary="CIFAR-100, 10 tasks x 10 classes, one pass",
    data="cifar100",
    tasks=10,
    hyperparameters={
        **ten.hyperparameters,
        "naive": {"learning_rate": 0.03},
        "gpm": {"learning_rate": 0.3, "threshold": 0.9},
    },
)
