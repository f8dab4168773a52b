"""Utility-based perturbed gradient descent: noise and steps reach the weights that are of little use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import averages, core
from neuroml.errors import unknown
from neuroml.noise import noise_like

GATES = ("utility", "constant")


class UPGDState(NamedTuple):
    """State of `upgd`."""

    utility: Any  # like params, float32: running mean of -gradient * weight
    count: jax.Array  # () int32: updates so far
    strength: jax.Array  # ()
    noise: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "noise", "decay")


def upgd(
    strength: ArrayLike = 1.0, *, noise: ArrayLike = 0.1, decay: ArrayLike = 0.9999, gate: str = "utility"
) -> optax.GradientTransformationExtraArgs:
    r"""Adds noise to the gradient, and holds both back where a weight is useful.

        utility  = decay * utility - (1 - decay) * gradient * weight          what the loss would lose
        gate     = 1 - strength * sigmoid(utility / max utility)              max over all weights of the network
        gradient = (gradient + noise * normal) * gate

    Args:
      strength: of the gate, >= 0; 1 is the paper's. With `noise=0` too, 0 is inert.
      noise: standard deviation of the perturbation, >= 0.
      decay: of the utilities, in [0, 1); they are corrected for their start at zero. One whose new value is not finite
        stays what it was.
      gate: "utility"; or "constant", the content-free control: a sigmoid of 0 for every weight.

    Returns:
      A rule that needs the word `key`. First in the chain; the paper's UPGD-W is `optax.chain(upgd(),
      optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))`.

    Raises:
      UsageError: a number outside its range, an unknown gate.

    Reference:
      Elsayed and Mahmood 2024, ICLR, "Addressing loss of plasticity and catastrophic forgetting in continual learning",
      algorithm 1 (first-order, global).

    How ours differs: the maximum is of the corrected utilities. Where all are negative, nothing is held: the gates are
    1, where the equation, at strength 1, would have at most 0.27. The authors' README steps twice as far as their
    experiments do; ours steps as the experiments. The noise is that which `shrink_perturb` draws from the same key: in
    one chain the two are not independent.

    >>> tx = upgd(noise=0.0, decay=0.0)
    >>> params = jnp.array([1.0, 1.0])
    >>> step, _ = tx.update(jnp.array([-1.0, 1.0]), tx.init(params), params, key=jax.random.key(0))
    >>> [f"{x:.2f}" for x in step]                           # the first weight lowers the loss, the second raises it
    ['-0.27', '0.73']
    """
    if gate not in GATES:
        raise unknown("gate", gate, GATES)
    given = {"strength": strength, "noise": noise, "decay": decay}
    core.require_ranges("upgd", given, strength="[0, inf)", noise="[0, inf)", decay="[0, 1)")

    def init(params):
        utility = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)
        return UPGDState(utility, jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def upgd(updates, state, params, *, key, **_):
        state = core.live(state, **given)
        gain = lambda old, g, w: state.decay * old - (1 - state.decay) * (g.astype(jnp.float32) * w)
        utility = averages.where_finite(jax.tree.map(gain, state.utility, updates, params), state.utility)
        count = state.count + 1
        corrected = jax.tree.map(lambda u: u / (1 - state.decay**count), utility)
        share = jax.tree.map(jnp.zeros_like, corrected) if gate == "constant" else _relative(corrected)
        held = jax.tree.map(lambda s: 1 - state.strength * jax.nn.sigmoid(s), share)
        turn = lambda g, h, n: ((g + state.noise * n) * h).astype(g.dtype)
        return jax.tree.map(turn, updates, held, noise_like(key, updates)), state._replace(utility=utility, count=count)

    return core.rule(init, upgd)


def _relative(utility: Any) -> Any:
    """Returns utilities over the largest of all."""
    largest = jax.tree.reduce(jnp.maximum, jax.tree.map(lambda u: jnp.max(u, initial=-jnp.inf), utility), -jnp.inf)
    return jax.tree.map(lambda u: u / jnp.maximum(largest, 1e-30), utility)
