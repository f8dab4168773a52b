"""Shrink and perturb: weights are drawn towards zero and shaken, at every step or now and then."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import core
from neuroml.errors import UsageError
from neuroml.noise import noise_like


class ShrinkPerturbState(NamedTuple):
    """State of `shrink_perturb`."""

    count: jax.Array  # () int32: updates so far
    shrink: jax.Array  # ()
    noise: jax.Array  # ()

    hyperparameters = ("shrink", "noise")


def shrink_perturb(
    shrink: ArrayLike = 1e-4, *, noise: ArrayLike = 1e-4, every: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Shrinks the weights and adds noise to them, every so many steps.

        step = step - shrink * weight + noise * normal

    Args:
      shrink: share of each weight that is lost, in [0, 1]. With `noise=0` too, 0 is inert.
      noise: standard deviation of what is added, >= 0.
      every: updates between two of them.

    Returns:
      A rule that needs the word `key`. Last in the chain: it changes weights, not gradients.

    Raises:
      UsageError: a number outside its range, `every` below 1.

    Reference:
      Ash and Adams 2020, "On warm-starting neural network training"; at every step: Dohare et al. 2024. How ours
      differs: normal noise of one size for all layers, as in the second. It is that which `upgd` draws from the same
      key: in one chain the two are not independent.

    >>> tx = shrink_perturb(0.5, noise=0.0)
    >>> params = jnp.array([2.0])
    >>> tx.update(jnp.zeros(1), tx.init(params), params, key=jax.random.key(0))[0].tolist()
    [-1.0]
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    given = {"shrink": shrink, "noise": noise}
    core.require_ranges("shrink_perturb", given, shrink="[0, 1]", noise="[0, inf)")

    def init(params):
        del params
        return ShrinkPerturbState(jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def shrink_perturb(updates, state, params, *, key, **_):
        state = core.live(state, **given)

        def shaken(steps):
            change = lambda u, w, n: u + (state.noise * n - state.shrink * w).astype(u.dtype)
            return jax.tree.map(change, steps, params, noise_like(key, steps))

        due = (state.count + 1) % every == 0
        return jax.lax.cond(due, shaken, lambda steps: steps, updates), state._replace(count=state.count + 1)

    return core.rule(init, shrink_perturb)
