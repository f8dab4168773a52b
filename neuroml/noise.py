"""Noise in the shape of a tree."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray


def noise_like(key: PRNGKeyArray, tree: Any) -> Any:
    """Returns standard normal numbers, float32, in the shapes of a tree's arrays."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([jax.random.normal(k, jnp.shape(leaf)) for k, leaf in zip(keys, leaves, strict=True)])
