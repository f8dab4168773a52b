"""Imagining: what new neurons would have answered to earlier inputs, drawn from what the projector's cores remember.

A neuron that is born late answers earlier inputs too. The projector never saw what, so nothing holds the weights that
leave it, and answers to earlier inputs move with them. The first core knows the mean and the covariance of what came
in: inputs drawn from them and sent through the network say what the cores of later layers would hold by now.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from neuroml import projection, units
from neuroml.errors import UsageError
from neuroml.rules.condensate_projector import Condensate, CondensateProjectorState, held, rebuilt


def imagined(
    state: CondensateProjectorState,
    capture: Callable[[Array], Any],
    params: Any,
    found: Mapping[str, units.Units],
    born: Mapping[str, Bool[Array, " size"]],
    key: PRNGKeyArray,
    *,
    first: str,
    samples: int = 4000,
) -> CondensateProjectorState:
    r"""Returns the projector with rows for new neurons in the cores of the layers that they feed.

        x ~ N(mean, covariance) of the inputs of `first`, as its core has them summed over T consolidations
        M = mean over x of a(x) a(x)^T,   a: inputs of a layer, of which n are new neurons and o are not
        B = M_no M_oo^-1                  (with a small ridge)
        core_no <- B core_oo,   core_nn <- B core_oo B^T + T (M_nn - B M_on)

    So new neurons answer to what is remembered as they answer to what is drawn, and no eigenvalue becomes negative.

    Args:
      state: of the projector; unchanged before its first consolidation.
      capture: `(x [samples, inputs]) -> activity`, the inputs of each layer of the network with its new neurons, when
        `first` is given x: `neuroml.activity.capture_nnx(model, any_inputs, replaced={first: x})`.
      params: the weights.
      found: the populations (`neuroml.units.find`).
      born: of each population, which neurons are new.
      key: of the draws.
      first: path of the dense layer before all that grow; it must have a bias, which counts consolidations. Behind
        convolutions it is the layer that reads what they see, flattened.
      samples: how many inputs are drawn.

    Raises:
      UsageError: the first layer is a convolution, whose core knows patches and not whole inputs, or has no bias; a
        convolution reads neurons, and what is drawn has no places for its patches.

    Reference: none that we know; Gaussian feature replay (FeTrIL, FeCAM and others) draws features, not inputs, and
    rehearses them, where this only fills rows of second moments.
    """
    layer = projection.layers(params)[first]
    if len(layer.shape) != 2 or layer.bias is None:
        raise UsageError(
            f"inputs are imagined from the core of a dense first layer with a bias; {first!r} is none: without "
            "imagining (`growth.imagines=False`), answers that new neurons would have given before are not held."
        )
    _check_readers(params, found)
    core = state.layers[first]
    total = jnp.maximum(held(core)[-1, -1], 1e-6)  # the input of the bias is 1, so this counts consolidations
    rows = projection.inputs(params, capture(_drawn(core, total, key, samples)))
    layers = dict(state.layers)
    for name, part in found.items():
        for home in part.readers:
            new = jnp.pad(born[name], (0, layers[home].shell.shape[0] - part.size))  # the bias is old
            moment = total * projection.second_moment(rows[home])
            known = (held(core)[-1, -1] > 0) & new.any()
            filled = rebuilt(layers[home], _completed(held(layers[home]), moment, new))
            layers[home] = jax.tree.map(lambda a, b, known=known: jnp.where(known, a, b), filled, layers[home])
    return state._replace(layers=layers)


def _check_readers(params: Any, found: Mapping[str, units.Units]) -> None:
    layers = projection.layers(params)
    for home in (home for part in found.values() for home in part.readers):
        if len(layers[home].shape) != 2:
            raise UsageError(
                f"convolution {home!r} reads neurons that may grow: inputs are imagined as vectors, which have no "
                "places for its patches. Leave its channels without names, or set `growth.imagines=False`."
            )


def _completed(known: Array, drawn: Array, new: Bool[Array, " inputs"]) -> Float[Array, "inputs inputs"]:
    """Returns `known` [inputs, inputs] with rows for new inputs, related to the old ones as in the moment `drawn`.

    The new ones are regressed on the old ones, and what that leaves is added: no eigenvalue can become negative.
    """
    fresh, old = new[:, None], ~new[:, None]
    among = jnp.where(old & old.T, drawn, 0)
    ridge = 1e-4 * jnp.trace(among) / jnp.maximum(old.sum(), 1)
    weights = jnp.linalg.solve(among + ridge * jnp.eye(new.size), jnp.where(old & fresh.T, drawn, 0)).T
    rest = jnp.where(fresh & fresh.T, drawn - weights @ drawn @ weights.T, 0)
    lift = weights + jnp.diag(~new)
    return lift @ jnp.where(old & old.T, known, 0) @ lift.T + rest


def _drawn(core: Condensate, total: Array, key: PRNGKeyArray, samples: int) -> Float[Array, "samples inputs"]:
    """Returns inputs of the core's mean and covariance, without the bias behind.

    Draws s with the second moment of the core, bias entry included, have E[s_x | s_b] = mean * s_b: taking that away
    leaves the covariance around the mean.
    """
    mean = held(core)[:-1, -1] / total
    noise = jax.random.normal(key, (samples, core.energy.size))
    drawn = (noise * jnp.sqrt(core.energy / total)) @ core.basis.T
    return drawn[:, :-1] - drawn[:, -1:] * mean + mean
