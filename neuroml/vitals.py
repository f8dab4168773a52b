"""Vital signs of a network: units that no longer answer, the rank of what the others say, the size of weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuroml import units

TINY = 1e-12


def vitals(wiring: Any, params: Any, activity: Any, *, threshold: float = 0.1) -> dict[str, Float[Array, ""]]:
    r"""Measures how able to learn a network still looks.

        dead units      share of the units between layers that answer no example at all
        dormant units   share with mean |answer| <= threshold * that of their population     (Sokar et al. 2023: .1)
        effective rank  exp(-\sum p_i log p_i) of the answers of the last population, p: singular values over their sum
                        (Roy and Vetterli 2007); at most the number of examples
        weight size     root mean square of all weights

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      params: the weights.
      activity: the inputs of the layers for a batch of examples, the more the better.
      threshold: of dormant units.

    >>> from neuroml import mlp
    >>> network = mlp(4, [8], 2)
    >>> params, _ = network.init(jax.random.key(0))
    >>> _, _, activity = network.capture(params, {}, jax.random.normal(jax.random.key(1), (100, 4)))
    >>> found = vitals(network.wiring(params), params, activity)
    >>> sorted(found), float(found["dead units"])
    (['dead units', 'dormant units', 'effective rank', 'weight size'], 0.0)
    """
    answers = units.outputs(units.find(wiring, params), activity)
    strength = {name: jnp.abs(rows).mean(0) for name, rows in answers.items()}
    dead = jnp.concatenate([mean == 0 for mean in strength.values()])
    dormant = jnp.concatenate([mean <= threshold * mean.mean() for mean in strength.values()])
    leaves = [leaf.astype(jnp.float32).reshape(-1) for leaf in jax.tree.leaves(params)]
    return {
        "dead units": dead.mean(),
        "dormant units": dormant.mean(),
        "effective rank": effective_rank(answers[list(answers)[-1]]),
        "weight size": jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves) / sum(leaf.size for leaf in leaves)),
    }


def effective_rank(rows: Float[Array, "n size"]) -> Float[Array, ""]:
    """Returns the exponential of the entropy of the normalized singular values; 0 where all are zero.

    Its gradient is finite where singular values are equal or zero.

    >>> float(effective_rank(jnp.eye(3)).round(4)), float(effective_rank(jnp.ones((3, 3))).round(4))
    (3.0, 1.0)
    """
    values = jnp.linalg.svd(rows, compute_uv=False)
    some = ~(values.sum() <= 0)  # what is no number stays none
    share = values / jnp.where(some, values.sum(), 1)
    # Below it a share adds nothing to the entropy, but its logarithm grows in the gradient.
    positive = ~(share <= TINY)
    entropy = -jnp.sum(jnp.where(positive, share * jnp.log(jnp.where(positive, share, 1)), 0))
    return jnp.where(some, jnp.exp(entropy), 0)
