"""Homeostasis as a loss: plain functions of what the layers of a model are given, to be added to your own loss.

    def loss(params, batch):
        outputs, _, activity = network.capture(params, {}, batch.x)
        rank = regularizers.effective_rank(activity, layers=["layers/1", "head"])
        return cross_entropy(outputs, batch.y) + 0.01 * rank

Each takes an activity tree (`neuroml.activity`, `Network.capture`), in which a layer's place holds the layer's inputs:
what the neurons before it answer. So name the layers *behind* the neurons that you mean. The first layer's inputs are
the data, which no weight changes: measured, they add a constant to the loss and cost time.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core, projection, vitals
from neuroml.errors import UsageError, unknown


def activity_rate(
    activity: Any, target: ArrayLike, *, layers: Sequence[str] | None = None, pooled: bool = False
) -> Float[Array, ""]:
    r"""Returns how far the mean answers of neurons are from a set-point.

        mean over layers of  mean_j (mean |h_j| - target)^2

    Args:
      activity: the inputs of the layers, as `neuroml.activity` captures them; images count place by place.
      target: mean magnitude of the answers, >= 0, in their units. With ReLU it is the mean answer.
      layers: paths of the layers whose inputs are measured, such as `["layers/1", "head"]`; default: all.
      pooled: the content-free control: the mean over a layer's neurons is drawn to the target, whose rate is whose.

    Returns:
      A scalar >= 0, to be made small.

    Raises:
      UsageError: a target below 0; an activity without layers, or a path that it does not have.

    Reference:
      The set-point of firing rates, Turrigiano 2008, "The self-tuning neuron: synaptic scaling of excitatory synapses",
      Cell 135:422. How ours differs: a gradient moves all weights; scaling moves the incoming ones of a neuron.

    >>> h = jnp.array([[0.0, 1.0], [1.0, 1.0]])
    >>> float(activity_rate({"a": h, "head": h}, target=0.5, layers=["head"]))
    0.125
    """
    core.require_ranges("activity_rate", {"target": target}, target="[0, inf)")
    rates = [jnp.abs(rows).mean(None if pooled else 0) for rows in _rows(activity, layers)]
    return _mean([jnp.mean((rate - target) ** 2) for rate in rates])


def sparsity(activity: Any, *, layers: Sequence[str] | None = None) -> Float[Array, ""]:
    r"""Returns over how many of its neurons a layer spreads its answers: 1 over all alike, 1 / size for a single one.

        mean over layers and examples of  (mean_j |h_j|)^2 / mean_j h_j^2

    It does not depend on the size of the answers: a network cannot lower it by small weights, as it can an L1 norm. An
    example to which nothing answers counts as 0 and has no gradient.

    Args:
      activity: the inputs of the layers, as `neuroml.activity` captures them; images count place by place.
      layers: paths of the layers whose inputs are measured; default: all.

    Returns:
      A scalar in [0, 1], to be made small for sparse answers.

    Raises:
      UsageError: an activity without layers, or a path that it does not have.

    Reference:
      The sparseness `a` of Treves and Rolls 1991, "What determines the capacity of autoassociative memories in the
      brain?", Network 2:371. How ours differs: taken of magnitudes, and over neurons for each example.

    >>> float(sparsity(jnp.array([[0.0, 2.0, 0.0, 0.0]]))), float(sparsity(jnp.array([[2.0, 2.0, 2.0, 2.0]])))
    (0.25, 1.0)
    """
    return _mean([_spread(rows).mean() for rows in _rows(activity, layers)])


def effective_rank(activity: Any, *, layers: Sequence[str] | None = None) -> Float[Array, ""]:
    r"""Returns minus the number of directions that the answers of a layer use.

        - mean over layers of  exp(-\sum_i p_i log p_i),     p: singular values of the rows over their sum

    Gradients are finite where singular values are equal or zero; a layer of which nothing answers counts as 0 and has
    no gradient. The cost is that of a singular value decomposition of n rows of the layer's size.

    Args:
      activity: the inputs of the layers, as `neuroml.activity` captures them; each place of an image is a row.
      layers: paths of the layers whose inputs are measured; default: all.

    Returns:
      A scalar, to be made small: in [-min(n, size), -1], or 0 for a silent layer.

    Raises:
      UsageError: an activity without layers, or a path that it does not have.

    Reference:
      Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality"; as a regularizer against lost
      plasticity, beside L2: L2-ER (KevinGuo27/lop-jax, batches of 100, weights of 1e-4 to 1e-2).

    How ours differs: nothing that we know of but the safe gradients.

    >>> float(effective_rank(jnp.eye(3)).round(4)), float(effective_rank(jnp.ones((3, 3))).round(4))
    (-3.0, -1.0)
    """
    return -_mean([vitals.effective_rank(rows) for rows in _rows(activity, layers)])


def _rows(activity: Any, layers: Sequence[str] | None) -> list[Float[Array, "n size"]]:
    """Returns the inputs of the layers that are measured, a row an example or place."""
    given = projection.by_home(activity)
    if not given or layers is not None and not layers:
        raise UsageError(f"no layer to measure: `activity` has {[*given]}, and layers={layers}.")
    if isinstance(layers, str):
        raise UsageError(f"layers={layers!r} must be a list of paths: give layers=[{layers!r}].")
    for home in layers or ():
        if home not in given:
            raise unknown("layer", home, given)
    chosen = [jnp.asarray(given[home]) for home in (given if layers is None else layers)]
    return [rows.reshape(-1, rows.shape[-1]).astype(jnp.float32) for rows in chosen]


def _mean(terms: list[Float[Array, ""]]) -> Float[Array, ""]:
    return jnp.stack(terms).mean()


def _spread(rows: Float[Array, "n size"]) -> Float[Array, " n"]:
    largest = jax.lax.stop_gradient(jnp.abs(rows).max(1, keepdims=True))
    rows = rows / jnp.where(largest > 0, largest, 1)  # changes nothing but the squares, which could vanish
    power = (rows**2).mean(1)
    # Inside `where` too: the gradient of the branch that is not taken must be finite.
    return jnp.where(power > 0, jnp.abs(rows).mean(1) ** 2 / jnp.where(power > 0, power, 1), 0)
