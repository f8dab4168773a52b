"""Quadratic pulls towards remembered weights, which EWC, SI, MAS and RWalk share.

    penalty(params) = strength * sum_i importance_i * (params_i - anchor_i)**2

All three arguments mirror the weights. Sums and products are taken in float32, and the result is cast back to the dtype
of the update.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from neuroml import averages
from neuroml.core import visible

# A pull harder than this is already infinitely hard in float32; the bound keeps inf / inf away.
_HARDEST = 1e30


def penalty(params: Any, anchor: Any, importance: Any, strength: jax.Array) -> jax.Array:
    """Returns `strength * sum(importance * (params - anchor)**2)`, over the weights that are not masked."""
    each = jax.tree.map(
        lambda w, p, a: jnp.sum(w * (p - a).astype(w.dtype) ** 2), importance, visible(params, anchor), anchor
    )
    return strength * optax.tree.sum(each)


def pull(updates: Any, params: Any, anchor: Any, importance: Any, strength: jax.Array) -> Any:
    """Returns `updates + 2 * strength * importance * (params - anchor)`: the gradient of `penalty` is added."""

    def add(update, param, anchor, importance):
        return (update + 2 * strength * importance * (param - anchor)).astype(update.dtype)

    return jax.tree.map(add, updates, params, anchor, importance)


def pull_implicitly(
    updates: Any, params: Any, anchor: Any, importance: Any, strength: jax.Array, step_size: jax.Array
) -> Any:
    """Returns the step after which the penalty's gradient *at the new weights* has been descended by `step_size`.

    With c = 2 * step_size * strength * importance, the new weights solve `new = params + updates - c * (new - anchor)`:

        new = (params + updates + c * anchor) / (1 + c)

    which is stable for any c >= 0: c = 0 leaves the step as it is, and a large c returns to the anchor.
    """

    def blend(update, param, anchor, importance):
        c = jnp.minimum(2 * step_size * strength * importance, _HARDEST)
        return (update + c / (1 + c) * (anchor - param - update)).astype(update.dtype)

    return jax.tree.map(blend, updates, params, anchor, importance)


def credited(credit: Any, grads: Any, params: Any, last_params: Any) -> Any:
    """Returns `credit - grads * (params - last_params)`: added is the loss that the step removed, to first order.

    Credit that would not be finite stays what it was: it is a sum, and would be so for good.
    """
    earn = lambda c, g, p, q: c - g.astype(c.dtype) * (p - q).astype(c.dtype)
    return averages.where_finite(jax.tree.map(earn, credit, grads, params, last_params), credit)


def like_params(params: Any, fill: float = 0.0) -> Any:
    """Returns float32 arrays (or wider) with the shapes of `params`: where small importances add up."""
    wide = lambda p: jnp.full(jnp.shape(p), fill, jnp.promote_types(jnp.result_type(p), jnp.float32))
    return jax.tree.map(wide, params)
