"""Recycling: now and then, neurons whose score has stayed far below their population's mean are replaced.

What is scored differs from rule to rule; when, whom and how is the same. The functions that take a state take any with
the fields of `RecyclingState`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from neuroml import averages, core, surgery, units
from neuroml.errors import UsageError, unknown

CHOICES = ("utility", "random")
HEALED = ("silent", "destroyed")
TINY = 1e-12


class RecyclingState(NamedTuple):
    """State of a rule that recycles neurons."""

    sums: dict[str, jax.Array]  # [size]: the neurons' signals, summed since the last check; not finite once one is not
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced
    count: jax.Array  # () int32: updates so far
    births: jax.Array  # () int32: replacements so far
    threshold: jax.Array  # ()

    hyperparameters = ("threshold",)

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far."""
        return {"replaced": self.births.astype(jnp.float32)}


def check_settings(every: int, choose: str, heals: str = "silent") -> None:
    """Raises `UsageError` for an `every` below 1, an unknown choice, or unknown neurons to heal."""
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)
    if heals not in HEALED:
        raise unknown("value of `heals`", heals, HEALED)


def begin(rule: str, wiring: Any, params: Any, threshold: ArrayLike) -> RecyclingState:
    """Returns the state of `rule` before the first update."""
    sums = units.begin(rule, wiring, params, jnp.zeros)
    renewed = units.begin(rule, wiring, params, lambda size: jnp.zeros(size, bool))
    return RecyclingState(sums, renewed, jnp.int32(0), jnp.int32(0), core.leaf(threshold))


def step(
    found: Mapping[str, units.Units],
    updates: Any,
    state: RecyclingState,
    params: Any,
    signal: Mapping[str, Float[Array, " size"]],
    fresh: Callable[[PRNGKeyArray], Any],
    key: PRNGKeyArray,
    *,
    every: int,
    choose: str,
    heals: str = "silent",
    wiring: Any = None,
) -> tuple[Any, RecyclingState]:
    """Adds the neurons' signals to their sums; every so many updates, replaces those far below the mean sum.

    With the names of the axes, `wiring`, what belongs to neurons and to no layer is replaced, too (`surgery.pull`).
    """
    state = heard(state, signal)

    def check(steps, state):
        birth, draw = jax.random.split(key)
        chosen = healed(found, params, failing(state), heals)
        chosen = units.by_lot(draw, chosen) if choose == "random" else chosen
        share = {name: which.astype(jnp.float32) for name, which in chosen.items()}
        replace = lambda own: surgery.pull(found, own, params, fresh(birth), share, wiring=wiring)
        return jax.lax.cond(units.some(chosen), replace, lambda own: own, steps), checked(state, chosen)

    # `every` is no leaf: the count is the same in all runs of a `vmap`, where this so remains a branch.
    return jax.lax.cond(state.count % every == 0, check, waiting, updates, state)


def heard(state: Any, signal: Mapping[str, Float[Array, " size"]]) -> Any:
    """Returns the state after one more update, with the neurons' signals added to their sums."""
    sums = {name: total + signal[name] for name, total in state.sums.items()}
    return state._replace(sums=sums, count=state.count + 1)


def failing(state: Any) -> dict[str, Bool[Array, " size"]]:
    """Returns which neurons have a score below the threshold. One whose sum is not finite is spared until the next."""
    return {name: jnp.isfinite(total) & (_score(total) < state.threshold) for name, total in state.sums.items()}


def healed(found: Any, params: Any, failing: dict[str, Array], heals: str) -> dict[str, Bool[Array, " size"]]:
    """Returns those of the neurons that fail who are healed: all of them, or those that were destroyed."""
    if heals == "silent":
        return failing
    destroyed = units.destroyed(found, params)
    return {name: which & destroyed[name] for name, which in failing.items()}


def _score(total: Float[Array, " size"]) -> Float[Array, " size"]:
    """Returns each neuron's sum over that of the mean neuron. Where all are zero, so are the scores."""
    return total / jnp.maximum(averages.of_finite(total), TINY)


def checked(state: Any, chosen: dict[str, Array]) -> Any:
    """Returns the state after a check: sums begin anew, for those that stay too."""
    births = state.births + sum(which.sum() for which in chosen.values())
    sums = jax.tree.map(jnp.zeros_like, state.sums)
    return state._replace(sums=sums, renewed=chosen, births=jnp.asarray(births, jnp.int32))


def waiting(steps: Any, state: Any) -> tuple[Any, Any]:
    """Returns steps and state after an update without a check."""
    return steps, state._replace(renewed=jax.tree.map(jnp.zeros_like, state.renewed))
