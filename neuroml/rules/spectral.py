"""Spectral regularization: the largest singular value of every layer is held at one."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core, projection
from neuroml.errors import UsageError

START = 30  # power iterations at the start, where the direction is not yet near


class SpectralState(NamedTuple):
    """State of `spectral_regularization`."""

    directions: Any  # like params: of a kernel its leading right singular vector, [outputs], of all else a zero
    strength: jax.Array  # ()
    power: jax.Array  # ()

    hyperparameters = ("strength", "power")

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength / 2 * sum over layers of (sigma^power - 1)^2 + |bias|^2`, sigma by the carried vectors."""
        seen = _seen(params, self.directions)
        leaves, along = jax.tree.leaves(seen), jax.tree.leaves(self.directions)
        total = jnp.zeros(())
        for layer in projection.layers(seen).values():
            sigma = _sigma(_matrix(leaves[layer.kernel]), along[layer.kernel])
            # The slope of a power below 1 is infinite at 0, where sigma has no direction to move in.
            raised = jnp.where(sigma == 0, 0, jnp.where(sigma == 0, 1, sigma) ** self.power)
            total += (raised - 1) ** 2
            if layer.bias is not None:
                total += jnp.sum(leaves[layer.bias].astype(jnp.float32) ** 2)
        return self.strength / 2 * total


def spectral_regularization(
    strength: ArrayLike, *, power: ArrayLike = 2.0, iterations: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of a penalty on the largest singular value of each layer's kernel, and on biases.

        strength / 2 * \sum_layers [(sigma^power - 1)^2 + \sum bias^2],    sigma = |kernel @ v|
        gradient of sigma: u v^T,  u = kernel @ v / sigma
        v = direction of kernel^T @ kernel @ v                                     `iterations` times per update

    It leaves all other singular values alone: unlike weight decay, it lets a layer keep its rank while it holds its
    gain. Kernels of convolutions count as matrices [height * width * inputs, outputs]. The kernels of attention whose
    bias has several axes (`query`, `key`, `value` of Flax) belong to no layer as yet and are left alone; without biases
    they count as matrices [inputs * heads, size of a head].

    Args:
      strength: >= 0; 0 is inert.
      power: > 0; larger ones hold large singular values more firmly than small ones.
      iterations: power iterations per update that follow the leading direction v as the weights move.

    Returns:
      A rule. First in the chain: the pull then passes through the optimizer as a loss term would (the paper's form).
      The cost is that of one example passed through the layers, a few times. Layers are left out by `optax.masked`.

    Raises:
      UsageError: no layer, or `iterations` below 1.

    Reference:
      Lewandowski et al. 2025, ICLR, "Learning continually by spectral regularization".

    How ours differs: the vectors are those of the weights one update ago, carried in the state from update to update
    (at the start they are iterated 30 times), and are constants to the gradient; normalization layers are left alone,
    so are biases without a kernel beside them; our strength is twice theirs.

    >>> tx = spectral_regularization(1.0)
    >>> params = {"kernel": jnp.diag(jnp.array([2.0, 1.0]))}
    >>> step, state = tx.update({"kernel": jnp.zeros((2, 2))}, tx.init(params), params)
    >>> [f"{abs(x):.2f}" for x in jnp.diag(step["kernel"])], f"{float(state.penalty(params)):.2f}"   # (2^2 - 1) * 2 * 2
    (['12.00', '0.00'], '4.50')
    """
    if iterations < 1:
        raise UsageError(f"iterations={iterations} must be at least 1.")

    def init(params):
        begin = lambda _: _followed(_blank(params), params, START)
        directions = projection.begin("spectral_regularization", params, begin)
        return SpectralState(directions, core.leaf(strength), core.leaf(power))

    def spectral_regularization(updates, state, params, **_):
        state = core.live(state, strength=strength, power=power)
        slope = jax.grad(state.penalty)(params)
        updates = jax.tree.map(lambda update, pull: update + pull.astype(update.dtype), updates, slope)
        return updates, state._replace(directions=_followed(state.directions, params, iterations))

    return core.rule(init, spectral_regularization)


def _seen(params: Any, like: Any) -> Any:
    """Returns the weights without those that `optax.masked` hid from the rule."""
    pick = lambda hid, given: hid if core.is_hidden(hid) else given
    return jax.tree.map(pick, like, params, is_leaf=core.is_hidden)


def _blank(params: Any) -> Any:
    """Returns any direction for each kernel: it is no noise, all seeds may share it."""
    leaves, structure = jax.tree.flatten(params)
    blank = [jnp.zeros(()) for _ in leaves]
    for layer in projection.layers(params).values():
        start = jax.random.normal(jax.random.key(0), layer.shape[-1:])
        blank[layer.kernel] = start / jnp.linalg.norm(start)
    return structure.unflatten(blank)


def _followed(directions: Any, params: Any, times: int) -> Any:
    """Returns the directions after some power iterations with the weights as they are."""
    leaves, (along, structure) = jax.tree.leaves(params), jax.tree.flatten(directions)
    for layer in projection.layers(params).values():
        matrix = _matrix(leaves[layer.kernel])
        turn = lambda _, v, matrix=matrix: _unit(matrix.T @ _unit(matrix @ v, 0.0), v)
        along[layer.kernel] = jax.lax.fori_loop(0, times, turn, along[layer.kernel])
    return structure.unflatten(along)


def _sigma(matrix: Array, along: Array) -> Float[Array, ""]:
    """Returns the singular value along a direction, with the gradient of one whose vectors are fixed."""
    answer = matrix @ along
    return jax.lax.stop_gradient(_unit(answer, 0.0)) @ answer


def _matrix(kernel: Array) -> Float[Array, "inputs outputs"]:
    return kernel.reshape(math.prod(kernel.shape[:-1]), kernel.shape[-1]).astype(jnp.float32)


def _unit(vector: Array, otherwise: ArrayLike) -> Array:
    """Returns a vector of length 1. A kernel of zeros has no directions: then the one before is kept for later."""
    length = jnp.linalg.norm(vector)
    return jnp.where(length > 0, vector / jnp.where(length > 0, length, 1), otherwise)
