"""Losses and scores for a head whose outputs may be switched on and off by task."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

# Low enough that exp() is zero in float32 and bfloat16, finite so that its gradient is.
OFF = -1e9


def mask_outputs(logits: Float[Array, "*batch outputs"], active: Bool[Array, "*#batch outputs"]) -> Array:
    """Returns `logits` with the outputs that are not `active` switched off: their probability is zero."""
    return jnp.where(active, logits, jnp.asarray(OFF, logits.dtype))


def cross_entropy(logits: Float[Array, "batch outputs"], labels: Int[Array, " batch"]) -> Float[Array, ""]:
    """Returns the mean of `-log softmax(logits)[label]`, in nats, in float32.

    >>> cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 1, 2])).round(3).item()  # log 4
    1.3860000371932983
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


def classes_in(labels: Int[Array, " batch"], outputs: int) -> Bool[Array, " outputs"]:
    """Says of each class whether an example of it is there.

    >>> classes_in(jnp.array([2, 0, 2]), 3).tolist()
    [True, False, True]
    """
    return jax.nn.one_hot(labels, outputs, dtype=bool).any(0)


def correct(logits: Float[Array, "batch outputs"], labels: Int[Array, " batch"]) -> Bool[Array, " batch"]:
    """Says for each example whether its largest output is its label. A non-finite row is wrong."""
    return (jnp.argmax(logits, -1) == labels) & jnp.all(jnp.isfinite(logits), -1)


def finite(tree) -> Bool[Array, ""]:
    """Says whether every number in `tree` is finite."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
