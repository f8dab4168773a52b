"""Calibrated partial resets: the less a neuron learns, the further it is drawn towards a fresh start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, surgery, units
from neuroml.errors import UsageError, unknown

CHOICES = ("utility", "random")
TINY = 1e-12


class PartialResetsState(NamedTuple):
    """State of `partial_resets`."""

    utilities: dict[str, jax.Array]  # [size]: running means, 1 is the layer's
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced whole (a share of 1)
    count: jax.Array  # () int32: updates so far
    moved: jax.Array  # (): sum of all shares so far
    strength: jax.Array  # ()
    sharpness: jax.Array  # ()
    threshold: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "sharpness", "threshold", "decay")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far: ten that went a tenth of the way count as one."""
        return {"replaced": self.moved}


def partial_resets(
    wiring: Any,
    fresh: Callable[[Array], Any],
    strength: ArrayLike = 0.015,
    *,
    sharpness: ArrayLike = 16.0,
    threshold: ArrayLike = 1.0,
    decay: ArrayLike = 0.99,
    every: int = 1000,
    choose: str = "utility",
) -> optax.GradientTransformationExtraArgs:
    r"""Calibrated partial resets: draws each neuron towards a fresh start, further the less its weights learn.

        utility_j = decay * utility_j + (1 - decay) * mean |gradient of w_in_j| / mean_i mean |gradient of w_in_i|
        every so many updates:
            share_j = strength * min(1, 2 sigmoid(-sharpness * (utility_j - threshold)))
            w_in_j  = (1 - share_j) * w_in_j + share_j * fresh w_in_j;    w_out_j = (1 - share_j) * w_out_j
            utility_j = 1

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are where neurons are drawn to.
      strength: the share of the way that the least useful neurons go, in [0, 1]; 0 is inert.
      sharpness: how fast the share falls as the utility rises above the threshold.
      threshold: the utility up to which the share is the whole strength; 1 is that of the mean neuron of a layer.
      decay: of the utilities, in [0, 1).
      every: updates between two resets.
      choose: "utility"; or "random", the content-free control: the same shares, dealt to neurons by lot.

    Returns:
      A rule that needs the word `key`. Last in the chain, `optax.chain(optax.sgd(0.01), partial_resets(wiring, ...))`;
      with momentum or Adam, as `neuroml.renewal(optax.adam(1e-3), partial_resets(wiring, ...), wiring)`.

    Raises:
      UsageError: a number outside its range, no population between two layers, a layer without names, `every` below 1,
        an unknown choice.

    Reference:
      Calibrated partial resets, in the authors' Optax form: github.com/LucMc/continual-learning,
      continual_learning/optim/cpr.py ("sigmoid").

    How ours differs: only `neuroml.renewal` hands on the gradients, as the word `gradients`. In a plain chain the rule
    sees the optimizer's updates in their place: proportional with SGD, which a relative utility does not notice; made
    alike by Adam. A neuron whose gradient is not finite keeps its utility. Biases go the way of the incoming weights
    (theirs stay). As theirs, moments are left alone: `neuroml.renewal` clears them only where the share is 1. Their
    defaults are a strength of 0.012, a threshold of 0.95, and an exponential ("exp") for the sigmoid.

    >>> params = {"a": {"kernel": jnp.ones((1, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = partial_resets(names, lambda key: params, 0.5, decay=0.0, every=1)
    >>> moves = {"a": {"kernel": jnp.array([[0.4, 0.0]])}, "b": {"kernel": jnp.zeros((2, 1))}}
    >>> step, state = tx.update(moves, tx.init(params), params, key=jax.random.key(0))
    >>> [f"{x:.3f}" for x in step["b"]["kernel"].ravel()]                                       # the second stood still
    ['-0.000', '-0.500']
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)
    given = {"strength": strength, "sharpness": sharpness, "threshold": threshold, "decay": decay}
    core.require_ranges("partial_resets", given, strength="[0, 1]", decay="[0, 1)")

    def init(params):
        utilities = units.begin("partial_resets", wiring, params, jnp.ones)
        renewed = units.begin("partial_resets", wiring, params, lambda size: jnp.zeros(size, bool))
        leaves = {name: core.leaf(value) for name, value in given.items()}
        return PartialResetsState(utilities, renewed, jnp.int32(0), jnp.zeros(()), **leaves)

    def partial_resets(updates, state, params, *, key, gradients=None, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        learnt = updates if gradients is None else gradients
        moves = units.incoming(found, learnt)  # all neurons of a layer have as many inputs: a sum does for a mean
        utilities = {name: _judge(state, old, moves[name]) for name, old in state.utilities.items()}
        state = state._replace(utilities=utilities, count=state.count + 1)

        def reset(steps, state):
            birth, draw = jax.random.split(key)
            share = {name: _share(state, utility) for name, utility in state.utilities.items()}
            share = units.by_lot(draw, share) if choose == "random" else share
            return surgery.pull(found, steps, params, fresh(birth), share, wiring=wiring), _after(state, share)

        # `every` is no leaf: the count is the same in all runs of a `vmap`, where this so remains a branch.
        return jax.lax.cond(state.count % every == 0, reset, _waiting, updates, state)

    return core.rule(init, partial_resets)


def _judge(state: PartialResetsState, utility: Array, moves: Array) -> Float[Array, " size"]:
    """Returns the utilities after one more update."""
    mean = jnp.maximum(averages.of_finite(moves), TINY)
    return averages.where_finite(state.decay * utility + (1 - state.decay) * moves / mean, utility)


def _share(state: PartialResetsState, utility: Array) -> Float[Array, " size"]:
    """Returns how far each neuron goes."""
    useless = 2 * jax.nn.sigmoid(-state.sharpness * (utility - state.threshold))
    return state.strength * jnp.minimum(1, useless)


def _after(state: PartialResetsState, share: dict[str, Array]) -> PartialResetsState:
    """Returns the state after a reset: all neurons are judged anew, from the mean."""
    utilities = jax.tree.map(jnp.ones_like, state.utilities)
    whole = {name: part >= 1 for name, part in share.items()}
    moved = state.moved + jnp.asarray(sum(part.sum() for part in share.values()))
    return state._replace(utilities=utilities, renewed=whole, moved=moved)


def _waiting(steps: Any, state: PartialResetsState) -> tuple[Any, PartialResetsState]:
    return steps, state._replace(renewed=jax.tree.map(jnp.zeros_like, state.renewed))
