"""Blended digits: the split digits as one stream in which tasks pass into each other, with nobody telling where.

    python -m benchmarks run blended_digits

Each training image comes once. Methods that consolidate at task boundaries are refused; those that find their own
moments (`si_every`, `si_on_surprise`, `ewc_every`) and those that need none (`er`) run.
"""

from benchmarks.suite import Suite

suite = Suite(
    name="blended_digits",
    summary="embedded handwritten digits, one pass, tasks blend into each other and no boundaries are given",
    data="digits",
    window=100,
    scenarios=("domain", "class"),
    hidden=(100, 100),
    batch_size=4,
    epochs=1,
    samples=200,
    seeds=10,
    methods=("naive", "ewc_every", "si_every", "si_on_surprise", "er"),
    hyperparameters={},
    options={
        "ewc_every": {"steps": 70},
        "si_every": {"steps": 70},
        "er": {"capacity": 100},
    },
)
