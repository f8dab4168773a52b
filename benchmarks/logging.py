"""Logging beside the result files, which are the record: Weights & Biases, on request."""

import itertools
import math
from collections.abc import Callable
from typing import Any

from neuroml.errors import UsageError

Sink = Callable[[dict[str, Any]], None]


def sink(mode: str) -> Sink:
    """Returns what takes a finished record: nothing ("off"), or one W&B run a record ("offline", "online").

    Offline runs lie in `wandb/` until `wandb sync wandb/offline-run-*` sends them.

    Raises:
      UsageError: wandb is not installed, or does not start.
    """
    if mode == "off":
        return lambda record: None
    try:
        import wandb  # about a second: only here
    except ModuleNotFoundError:
        raise UsageError('logging to Weights & Biases needs wandb: pip install "neuroml-jax[bench]".') from None
    return lambda record: _log(wandb, mode, record)


def _log(wandb: Any, mode: str, record: dict[str, Any]) -> None:
    try:
        run = wandb.init(
            mode=mode,
            project="neuroml",
            group=f"{record['suite']}-{record['scenario']}-{record['method']}",
            name=f"{record['method']}-{record['seed']}",
            config={**record["config"], "seed": record["seed"], **record["versions"]},
            reinit="create_new",
        )
    except wandb.errors.Error as why:
        raise UsageError(f"Weights & Biases did not start: {why}. --wandb offline needs no account.") from None
    curves = {name: record[f"{name}_curve"] for name in ("loss", "online_accuracy")}
    for step, values in enumerate(itertools.zip_longest(*curves.values(), fillvalue=math.nan)):  # a curve may be empty
        run.log({name: x for name, x in zip(curves, values, strict=True) if math.isfinite(x)}, step=step)
    for phase, row in enumerate(record["accuracy"]):
        run.log({"phase": phase, **{f"accuracy/task_{task}": value for task, value in enumerate(row)}})
    run.summary.update({name: value for name, value in record["metrics"].items() if value is not None})
    run.finish()
