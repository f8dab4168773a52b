"""Averages that pass over what is not a finite number."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def begin(means: Any) -> Any:
    """Returns of how many values running means are before the first one: zeros, int32, in the shapes of a tree."""
    return jax.tree.map(lambda mean: jnp.zeros(jnp.shape(mean), jnp.int32), means)


def after(means: Any, counts: Any, values: Any, decay: ArrayLike) -> tuple[Any, Any]:
    """Returns running means, and of how many values each is, after one more; what is not finite changes neither.

        mean += max(1 - decay, 1 / (count + 1)) * (value - mean)            a plain average at first

    All three are trees of the same structure, or arrays.

    >>> mean, count = jnp.zeros(2), begin(jnp.zeros(2))
    >>> for value in ([jnp.nan, 1.0], [4.0, 3.0]):
    ...     mean, count = after(mean, count, jnp.array(value), 0.9)
    >>> mean.tolist(), count.tolist()
    ([4.0, 2.0], [1, 2])
    """

    def moved(mean, count, value):
        rate = jnp.maximum(1 - decay, 1 / (count + 1))
        return jnp.where(jnp.isfinite(value), mean + rate * (value - mean), mean)

    counted = lambda count, value: count + jnp.isfinite(value)
    return jax.tree.map(moved, means, counts, values), jax.tree.map(counted, counts, values)


def of_finite(values: Float[Array, " size"]) -> Float[Array, ""]:
    """Returns the mean of those values that are finite; `values.mean()`, to the bit, where all are.

    >>> float(of_finite(jnp.array([1.0, jnp.inf, 2.0])))
    1.5
    """
    fine = jnp.isfinite(values)
    share = values.size / jnp.maximum(fine.sum(), 1)  # exactly 1 where all are finite
    return jnp.where(fine, values, 0).mean() * share


def where_finite(new: Any, old: Any) -> Any:
    """Returns a tree with the entries of `new` where they are finite, elsewhere with those of `old`."""
    return jax.tree.map(lambda new, old: jnp.where(jnp.isfinite(new), new, old), new, old)
