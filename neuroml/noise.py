"""Noise in the shape of a tree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

TABLE = 2**20
LARGEST = TABLE // 2  # numbers that a window may hold


@functools.cache
def _table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(TABLE, dtype=np.float32)


def noise_like(key: PRNGKeyArray, tree: Any) -> Any:
    """Returns standard normal numbers, float32, in the shapes of a tree's arrays.

        noise = sign * table[start : start + size]          a random sign and start for each array

    A normal number for every weight at every step costs far more than the step. So the numbers of an array come from
    one table of a million: two steps seldom see the same window, and a weight sees the table's numbers in random order.
    An array of more than half the table gets numbers of its own.

    Args:
      key: a random key.
      tree: arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([_noise(k, jnp.shape(leaf)) for k, leaf in zip(keys, leaves, strict=True)])


def _noise(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    size = int(np.prod(shape))
    if size > LARGEST:
        return jax.random.normal(key, shape)
    place, side = jax.random.split(key)
    start = jax.random.randint(place, (), 0, TABLE - size + 1)
    window = jax.lax.dynamic_slice(jnp.asarray(_table()), (start,), (size,))
    return jnp.where(jax.random.bernoulli(side), window, -window).reshape(shape)
