"""Random-label MNIST, long: 500 tasks of random labels, 400 passes each, 15 million steps.

    python -m benchmarks run random_label_mnist_long --methods adam,l2_init,homeostasis --seeds 1

As `random_label_mnist`, ten times as long. Not run yet; its minutes are not measured.
"""

import dataclasses

from configs.random_label_mnist import suite as short

suite = dataclasses.replace(
    short,
    name="random_label_mnist_long",
    summary="MNIST, 1,200 images, 500 tasks of random labels, 400 passes each",
    tasks=500,
)
