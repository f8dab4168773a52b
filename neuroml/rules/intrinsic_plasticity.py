"""Intrinsic plasticity: a neuron that fires too rarely lowers its threshold, one that fires too often raises it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, projection, units
from neuroml.errors import UsageError


class IntrinsicPlasticityState(NamedTuple):
    """State of `intrinsic_plasticity`."""

    firing: dict[str, jax.Array]  # [size]: running share of the examples to which each neuron answers above 0
    count: dict[str, jax.Array]  # [size] int32: of how many batches that is
    target: jax.Array  # ()
    speed: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("target", "speed", "decay")
    neurons = ("firing", "count")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the mean firing rate of all neurons."""
        return {"firing rate": jnp.concatenate([*self.firing.values()]).mean()}


def intrinsic_plasticity(
    wiring: Any,
    *,
    target: ArrayLike = 0.2,
    speed: ArrayLike = 0.001,
    decay: ArrayLike = 0.99,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Moves the bias of each neuron towards a set firing rate: an adaptive threshold.

        firing_j = decay * firing_j + (1 - decay) * mean (h_j > 0)              a plain average in the first updates
        bias_j   = bias_j + step + speed * (target - firing_j)

    It needs no gradient, so a neuron that is dead, and gets none, comes back.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      target: share of the examples to which a neuron should answer above 0; in (0, 1).
      speed: per update, in units of the bias, >= 0; 0 is inert.
      decay: of the running rates, in [0, 1).
      shuffled: the content-free control: each neuron's bias moves by what another one needs, always the same one.

    Returns:
      A rule that needs the word `activity`. Last in the chain, so that no optimizer rescales the move. Where several
      layers make a population, their biases share it. A neuron with an answer that is not a number keeps its rate.

    Raises:
      UsageError: a number outside its range; a population that no bias enters; no population between two layers, a
        layer without names, or an activity that lacks one.

    Reference:
      Desai, Rutherford, Turrigiano 1999, "Plasticity in the intrinsic excitability of cortical pyramidal neurons",
      Nature Neurosci. 2:515; as a rule for the threshold alone: Földiák 1990, "Forming sparse representations by local
      anti-Hebbian learning", Biol. Cybern. 64:165 (threshold += gamma * (output - p)).

    How ours differs: the rate is a running mean and not the output at this moment; the network goes on to learn by
    gradient.

    >>> layer = lambda *shape: {"kernel": jnp.ones(shape), "bias": jnp.zeros(shape[-1])}
    >>> params = {"a": layer(2, 2), "b": layer(2, 1)}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = intrinsic_plasticity(names, target=0.5, speed=0.1)
    >>> activity = {"a": jnp.ones((2, 2)), "b": jnp.array([[0.0, 1.0], [0.0, 1.0]])}      # one is silent, one never is
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, activity=activity)
    >>> [f"{x:.2f}" for x in step["a"]["bias"]], state.firing["hidden"].tolist()
    (['0.05', '-0.05'], [0.0, 1.0])
    """
    given = {"target": target, "speed": speed, "decay": decay}
    core.require_ranges("intrinsic_plasticity", given, target="(0, 1)", speed="[0, inf)", decay="[0, 1)")

    def init(params):
        firing = units.begin("intrinsic_plasticity", wiring, params, jnp.zeros)
        if isinstance(firing, dict):
            _check_biases(units.find(wiring, params), params)
        return IntrinsicPlasticityState(
            firing, averages.begin(firing), **{name: core.leaf(value) for name, value in given.items()}
        )

    def intrinsic_plasticity(updates, state, params, *, activity, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        shares = {name: _share(rows) for name, rows in units.outputs(found, activity).items()}
        firing, count = averages.after(state.firing, state.count, shares, state.decay)
        lacking = lambda rate: units.in_order(state.speed * (state.target - rate), shuffled)
        moves = {name: lacking(rate) for name, rate in firing.items()}
        return _moved(found, updates, moves), state._replace(firing=firing, count=count)

    return core.rule(init, intrinsic_plasticity)


def _share(rows: Float[Array, "n size"]) -> Float[Array, " size"]:
    """Returns which share of the examples each neuron answers above 0; NaN for one that gives a NaN."""
    return jnp.where(jnp.isnan(rows).any(0), jnp.nan, (rows > 0).mean(0))


def _moved(found: Mapping[str, units.Units], updates: Any, moves: Mapping[str, Array]) -> Any:
    """Returns updates with each neuron's move added to its bias."""
    leaves, structure = jax.tree.flatten(updates)
    layers = projection.layers(updates)
    for name, move in moves.items():
        places = [layers[home].bias for home in found[name].makers]
        biases = [at for at in places if at is not None]
        for at in biases:
            leaves[at] = leaves[at] + (move / len(biases)).astype(leaves[at].dtype)
    return structure.unflatten(leaves)


def _check_biases(found: Mapping[str, units.Units], params: Any) -> None:
    layers = projection.layers(params)
    for name, population in found.items():
        if all(layers[home].bias is None for home in population.makers):
            raise UsageError(
                f"intrinsic_plasticity moves biases, but population {name!r} has none: give a bias to one of the "
                f"layers {', '.join(map(repr, population.makers))}."
            )
