"""ReGraMa: neurons that hardly learn any more beside the rest of their layer are replaced, now and then."""

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


class ReGraMaState(NamedTuple):
    """State of `regrama`."""

    sums: dict[str, jax.Array]  # [size]: magnitudes of the steps of incoming weights, summed since the last check
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced
    count: jax.Array  # () int32: updates so far
    births: jax.Array  # () int32: replacements so far
    threshold: jax.Array  # ()

    hyperparameters = ("threshold",)

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far."""
        return {"replaced": self.births.astype(jnp.float32)}


def regrama(
    wiring: Any,
    fresh: Callable[[Array], Any],
    *,
    threshold: ArrayLike = 0.01,
    every: int = 1000,
    choose: str = "utility",
) -> optax.GradientTransformationExtraArgs:
    r"""ReGraMa: replaces the neurons whose incoming weights hardly move, compared with the mean neuron of their layer.

        score_j = mean |update of w_in_j| / mean_i mean |update of w_in_i|   since the last check; i: over the layer
        every so many updates: replace the neurons with score_j < threshold

    A replaced neuron gets fresh incoming weights and bias, and outgoing weights of zero. Unlike an answer, a gradient
    tells a neuron that is saturated, or that nobody reads, from one that learns.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons.
      threshold: of the score, whose mean is 1, >= 0; 0 is inert.
      every: updates between two checks.
      choose: "utility", those below the threshold; or "random", the content-free control: as many, drawn by lot.

    Returns:
      A rule that needs the word `key`. Last in the chain, `optax.chain(optax.sgd(0.01), regrama(wiring, ...))`; with
      momentum or Adam, as `neuroml.renewal(optax.adam(1e-3), regrama(wiring, ...), wiring)`.

    Raises:
      UsageError: no population between two layers, a layer without names, `every` below 1, an unknown choice.

    Reference:
      Liu et al. 2025, "Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement learning"
      (GraMa, ReGraMa), with the score of github.com/LucMc/continual-learning.

    How ours differs: a rule that replaces weights stands last, so what it sees are not gradients but the optimizer's
    updates. With SGD they are proportional, and a relative score does not know the factor. Adam makes the steps of all
    weights alike, so that only neurons without any gradient fall below the threshold. The score is of all updates since
    the last check, not of the last one; neurons *at* the threshold are spared, so that 0 is inert.

    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = regrama(names, lambda key: params, every=1)
    >>> moves = {"a": {"kernel": jnp.array([[0.2, 0.0, 0.3], [0.1, 0.0, 0.2]])}, "b": {"kernel": jnp.zeros((3, 1))}}
    >>> step, state = tx.update(moves, tx.init(params), params, key=jax.random.key(0))
    >>> step["b"]["kernel"].ravel().tolist(), int(state.births)                                 # the second stood still
    ([0.0, -1.0, 0.0], 1)
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)

    def init(params):
        sums = units.begin("regrama", wiring, params, jnp.zeros)
        renewed = units.begin("regrama", wiring, params, lambda size: jnp.zeros(size, bool))
        return ReGraMaState(sums, renewed, jnp.int32(0), jnp.int32(0), core.leaf(threshold))

    def regrama(updates, state, params, *, key, **_):
        state = core.live(state, threshold=threshold)
        found = units.find(wiring, params)
        moves = units.incoming(found, updates)  # all neurons of a layer have as many inputs: a sum does for a mean
        sums = {name: total + moves[name] for name, total in state.sums.items()}
        state = state._replace(sums=sums, count=state.count + 1)

        def check(steps, state):
            birth, draw = jax.random.split(key)
            chosen = {name: _score(total) < state.threshold for name, total in state.sums.items()}
            chosen = units.by_lot(draw, chosen) if choose == "random" else chosen
            share = {name: which.astype(jnp.float32) for name, which in chosen.items()}
            return units.pull(found, steps, params, fresh(birth), share), _checked(state, chosen)

        # `every` is no leaf: the count is the same in all runs of a `vmap`, where this so remains a branch.
        return jax.lax.cond(state.count % every == 0, check, _waiting, updates, state)

    return core.rule(init, regrama)


def _score(total: Float[Array, " size"]) -> Float[Array, " size"]:
    """Returns how far each neuron's weights moved over how far the mean neuron's did. If none did, all scores are 0."""
    return total / jnp.maximum(total.mean(), TINY)


def _checked(state: ReGraMaState, chosen: dict[str, Array]) -> ReGraMaState:
    """Returns the state after a check: sums begin anew, for those that stay too."""
    births = state.births + sum(which.sum() for which in chosen.values())
    sums = jax.tree.map(jnp.zeros_like, state.sums)
    return state._replace(sums=sums, renewed=chosen, births=jnp.asarray(births, jnp.int32))


def _waiting(steps: Any, state: ReGraMaState) -> tuple[Any, ReGraMaState]:
    return steps, state._replace(renewed=jax.tree.map(jnp.zeros_like, state.renewed))
