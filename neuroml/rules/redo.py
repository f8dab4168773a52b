"""ReDo: neurons that have fallen silent beside the rest of their layer are recycled, now and then."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core, units
from neuroml.errors import UsageError, unknown

CHOICES = ("utility", "random")
TINY = 1e-12


class ReDoState(NamedTuple):
    """State of `redo`."""

    sums: dict[str, jax.Array]  # [size]: mean magnitudes of what the neurons answered, summed since the last check
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced
    count: jax.Array  # () int32: updates so far
    births: jax.Array  # () int32: replacements so far
    threshold: jax.Array  # ()

    hyperparameters = ("threshold",)

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far."""
        return {"replaced": self.births.astype(jnp.float32)}


def redo(
    wiring: Any,
    fresh: Callable[[Array], Any],
    *,
    threshold: ArrayLike = 0.1,
    every: int = 1000,
    choose: str = "utility",
) -> optax.GradientTransformationExtraArgs:
    r"""ReDo: replaces the neurons that hardly answer, compared with the mean neuron of their layer.

        score_j = mean |h_j| / mean_i mean |h_i|         over the examples since the last check; i: the layer's neurons
        every so many updates: replace the neurons with score_j < threshold

    A replaced neuron gets fresh incoming weights and bias, and outgoing weights of zero.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons.
      threshold: of the score, whose mean is 1, >= 0; 0 is inert.
      every: updates between two checks.
      choose: "utility", those below the threshold; or "random", the content-free control: as many, drawn by lot.

    Returns:
      A rule that needs the words `activity` and `key`. Last in the chain; with momentum or Adam, as
      `neuroml.renewal(optax.adam(1e-3), redo(wiring, ...), wiring)`.

    Raises:
      UsageError: no population between two layers, a layer without names, an activity that lacks one, `every` below 1,
        an unknown choice.

    Reference:
      Sokar et al. 2023, ICML, "The dormant neuron phenomenon in deep reinforcement learning", algorithm 1.

    How ours differs: the score is of all examples since the last check, not of one batch; neurons *at* the threshold
    are spared, so that 0 is inert (a tiny threshold replaces what the paper's 0 does, the neurons that never answer).

    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = redo(names, lambda key: params, every=1)
    >>> words = {"activity": {"a": jnp.ones((1, 2)), "b": jnp.array([[5.0, 0.1, 4.0]])}, "key": jax.random.key(0)}
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    >>> step["b"]["kernel"].ravel().tolist(), int(state.births)                            # the second loses its voice
    ([0.0, -1.0, 0.0], 1)
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)

    def init(params):
        sums = units.begin("redo", wiring, params, jnp.zeros)
        renewed = units.begin("redo", wiring, params, lambda size: jnp.zeros(size, bool))
        return ReDoState(sums, renewed, jnp.int32(0), jnp.int32(0), core.leaf(threshold))

    def redo(updates, state, params, *, activity, key, **_):
        state = core.live(state, threshold=threshold)
        found = units.find(wiring, params)
        answers = units.outputs(found, activity)
        sums = {name: total + jnp.abs(answers[name]).mean(0) for name, total in state.sums.items()}
        state = state._replace(sums=sums, count=state.count + 1)

        def check(steps, state):
            birth, draw = jax.random.split(key)
            chosen = {name: _score(total) < state.threshold for name, total in state.sums.items()}
            chosen = units.by_lot(draw, chosen) if choose == "random" else chosen
            share = {name: which.astype(jnp.float32) for name, which in chosen.items()}
            return units.pull(found, steps, params, fresh(birth), share), _checked(state, chosen)

        # `every` is no leaf: the count is the same in all runs of a `vmap`, where this so remains a branch.
        return jax.lax.cond(state.count % every == 0, check, _waiting, updates, state)

    return core.rule(init, redo)


def _score(total: Float[Array, " size"]) -> Float[Array, " size"]:
    """Returns each neuron's answers over those of the mean neuron. Where nobody answers, all have a score of 0."""
    return total / jnp.maximum(total.mean(), TINY)


def _checked(state: ReDoState, chosen: dict[str, Array]) -> ReDoState:
    """Returns the state after a check: sums begin anew, for those that stay too."""
    births = state.births + sum(which.sum() for which in chosen.values())
    sums = jax.tree.map(jnp.zeros_like, state.sums)
    return state._replace(sums=sums, renewed=chosen, births=jnp.asarray(births, jnp.int32))


def _waiting(steps: Any, state: ReDoState) -> tuple[Any, ReDoState]:
    return steps, state._replace(renewed=jax.tree.map(jnp.zeros_like, state.renewed))
