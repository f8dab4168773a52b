"""Fabricated results: records as a run writes them, of any method, seed and configuration."""

from benchmarks import results


def record(method="ewc", seed=0, accuracy=0.75, forgetting=0.25, config=None, scenario="class", **other):
    config = {"protocol": {"scenario": scenario}, "hyperparameters": {}} if config is None else config
    return {
        "suite": "split_mnist",
        "data": "mnist",
        "scenario": scenario,
        "method": method,
        "seed": seed,
        "config": config,
        "config_hash": results.config_hash(config),
        "diverged": None,
        "metrics": {"accuracy": accuracy, "forgetting": forgetting},
        "bytes": 1000,
        "flops": 2e9,
        "seconds": 3.0,
        **other,
    }


def strength(number):
    return {"protocol": {"steps": 5}, "hyperparameters": {"strength": number, "decay": 1.0}}
