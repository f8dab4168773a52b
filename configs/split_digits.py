"""Split digits: five tasks of two classes on scikit-learn's handwritten digits, which come with the package.

    python -m benchmarks run split_digits

A small suite that runs anywhere in seconds and shows what the large ones show. It has no published numbers.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="split_digits",
    summary="embedded handwritten digits, 5 tasks x 2 classes: seconds, no download",
    data="digits",
    hidden=(100, 100),
    batch_size=32,
    iterations=100,
    joint_iterations=500,
    learning_rate=1e-3,
    samples=200,
    seeds=10,
    options={"er": {"capacity": 100, "keep": "class_balanced"}},
)
