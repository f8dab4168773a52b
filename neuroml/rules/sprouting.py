"""Sprouting: a neuron that hears and hands on nothing puts out weights at random, a little at every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from neuroml import core, surgery, units


class SproutingState(NamedTuple):
    """State of `sprouting`."""

    left: dict[str, jax.Array]  # [size] int32: updates for which each neuron goes on
    begun: jax.Array  # () int32: how often a neuron has begun
    strength: jax.Array  # ()
    duration: jax.Array  # ()

    hyperparameters = ("strength", "duration")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how often a neuron has begun to sprout, not counting anew, and how many are at it."""
        now = sum(((left > 0).sum() for left in self.left.values()), jnp.int32(0))
        return {"sprouted": self.begun.astype(jnp.float32), "sprouting": now.astype(jnp.float32)}


def sprouting(
    wiring: Any, fresh: Callable[[Array], Any], strength: ArrayLike = 1.0, *, duration: ArrayLike = 100
) -> optax.GradientTransformationExtraArgs:
    r"""Sprouting: gives neurons born with outgoing weights of zero the variety of a network that was drawn.

        a neuron that hears (w_in_j != 0) and hands on nothing (w_out_j = 0) begins, or begins anew;
        for `duration` updates
            update of w_out_j += strength / sqrt(duration) * fresh w_out_j,     fresh: a new network at each update

    A birth so leaves the function as it was, and after `duration` updates the steps have summed up to weights as large
    as `strength` times those of a network that was drawn, beside what was learnt meanwhile. `neuroml.growth`, where it
    grows where steps are largest, takes these for steps of the optimizer.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network.
      strength: of the weights put out, in units of those drawn; 0 is inert.
      duration: updates, >= 1, rounded up.

    Returns:
      A rule that needs the word `key`. Behind the optimizer, which would divide the steps out, and before a projector,
      which keeps them out of the directions that are held: `optax.chain(optax.sgd(0.1), sprouting(wiring, fresh),
      neuroml.condensate_projector())`, with that as the base of `neuroml.renewal`.

    Raises:
      UsageError: no population between two layers, a layer without names, or a `fresh` that does not fit the weights.

    Reference:
      Axons of adult-born neurons reach their targets over weeks, after their dendrites: Toni and Schinder 2015,
      "Maturation and functional integration of new granule cells into the adult hippocampus", Cold Spring Harb.
      Perspect. Biol. 8:a018903. The rule is ours.

    How ours differs: in the animal many synapses are put out and those of use stay; here none is taken back.

    >>> params = {"a": {"kernel": jnp.ones((1, 2))}, "b": {"kernel": jnp.array([[1.0], [0.0]])}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = sprouting(names, lambda key: jax.tree.map(jnp.ones_like, params), duration=4)
    >>> still = jax.tree.map(jnp.zeros_like, params)
    >>> step, state = tx.update(still, tx.init(params), params, key=jax.random.key(0))
    >>> step["b"]["kernel"].ravel().tolist(), state.left["hidden"].tolist()
    ([0.0, 0.5], [0, 3])
    """
    given = {"strength": strength, "duration": duration}

    def init(params):
        left = units.begin("sprouting", wiring, params, lambda size: jnp.zeros(size, jnp.int32))
        return SproutingState(left, jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def sprouting(updates, state, params, *, key, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        whole = jnp.maximum(jnp.ceil(state.duration), 1)
        state = _seen(state, whole, units.incoming(found, params), units.outgoing(found, params))
        each = state.strength / jnp.sqrt(whole)
        share = {name: jnp.where(left > 0, each, 0) for name, left in state.left.items()}

        def sprout(steps):
            return surgery.extended(found, steps, fresh(key), share)

        some = units.some({name: left > 0 for name, left in state.left.items()})
        updates = jax.lax.cond(some, sprout, lambda steps: steps, updates)
        return updates, state._replace(left={name: jnp.maximum(left - 1, 0) for name, left in state.left.items()})

    return core.rule(init, sprouting)


def _seen(state: SproutingState, whole: Array, entering: dict[str, Array], leaving: dict[str, Array]) -> SproutingState:
    """Returns the state in which those have begun who hear and hand on nothing, and those stopped who hear nothing."""

    def after(name: str, left: Array) -> Int[Array, " size"]:
        left = jnp.where(leaving[name] == 0, whole.astype(jnp.int32), left)
        return jnp.where(entering[name] != 0, left, 0)

    left = {name: after(name, one) for name, one in state.left.items()}
    began = [((one > 0) & (state.left[name] == 0)).sum(dtype=jnp.int32) for name, one in left.items()]
    return state._replace(left=left, begun=state.begun + jnp.stack(began).sum())
