"""How much each weight matters: Fisher diagonals for EWC, sensitivities for MAS.

Both are means over examples of a function of *per-example* gradients (the square of a mean gradient is a different and
much smaller number), computed a chunk at a time, so that memory is bounded by `chunk` gradients.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from neuroml import quadratic
from neuroml.errors import MissingWordError, UsageError, unknown

FISHER_LABELS = ("all", "sample", "true", "true_weighted", "predicted")


def fisher(
    predict: Callable[[Any, Any], Array],
    params: Any,
    inputs: Any,
    *,
    labels: str = "all",
    targets: Int[Array, " n"] | None = None,
    key: PRNGKeyArray | None = None,
    chunk: int | None = None,
) -> Any:
    r"""Returns the diagonal of the Fisher information of the weights, a mean of squared per-example gradients.

        F_i = mean_x \sum_y weight(y | x) (d log p(y | x, params) / d params_i)^2

    Args:
      predict: `(params, inputs) -> logits [n, classes]`, with inputs batched along the leading axis.
      params: the weights.
      inputs: n examples; an array or any tree of arrays [n, ...] that `predict` takes.
      labels: which labels y stand for x. "all": every class, weighted by p(y | x): exact, `classes` gradients an
        example. "sample": one drawn from p(y | x), an unbiased estimate, needs `key`. "true": the given `targets`
        (the "empirical Fisher"). "true_weighted": the same, weighted by p(target | x), one term of "all".
        "predicted": the most probable class.
      targets: labels [n] for "true" and "true_weighted".
      key: random key for "sample".
      chunk: gradients held at once; by default 1 on CPU, whose cache more would leave, and 32 elsewhere.

    Returns:
      A tree like `params`, float32.

    Raises:
      UsageError: no examples, an unknown choice of labels, or targets of another number than the inputs or out of
        range (not seen where `jit` traces them).

    Reference:
      Kirkpatrick et al. 2017, PNAS; on how these choices change EWC: van de Ven 2025, ICLR blog posts; on why the
      empirical Fisher is not the Fisher: Kunstner et al. 2019, NeurIPS.

    >>> predict = lambda w, x: jnp.stack([x * w, jnp.zeros_like(x)], axis=1)  # logistic regression
    >>> fisher(predict, jnp.float32(0.0), jnp.array([2.0])).item()            # p (1 - p) x^2 = .25 * 4
    1.0
    """
    inputs = jax.tree.map(jnp.asarray, inputs)  # a traced index does not reach into numpy
    logits = _nonempty(predict(params, inputs)).astype(jnp.float32)  # in bfloat16 the drawn labels would be biased
    n, classes = logits.shape
    if labels == "all":
        label, weight = jnp.tile(jnp.arange(classes), n), jax.nn.softmax(logits).reshape(-1)
        example = jnp.repeat(jnp.arange(n), classes)
    else:
        label, example = _one_label(labels, logits, targets, key), jnp.arange(n)
        weight = jax.nn.softmax(logits)[example, label] if labels == "true_weighted" else jnp.ones(n)

    def log_probability(params, i, y):
        return jax.nn.log_softmax(predict(params, _one(inputs, i))[0].astype(jnp.float32))[y]

    squared = lambda i, y: jax.tree.map(lambda g: g.astype(jnp.float32) ** 2, jax.grad(log_probability)(params, i, y))
    return _weighted_mean(squared, params, (example, label), weight, n, chunk)


def sensitivity(predict: Callable[[Any, Any], Array], params: Any, inputs: Any, *, chunk: int | None = None) -> Any:
    r"""Returns how strongly the outputs react to each weight; no labels are needed.

        S_i = mean_x | d ||f(x)||_2^2 / d params_i |

    Args:
      predict: `(params, inputs) -> outputs [n, outputs]`.
      params: the weights.
      inputs: n examples, as in `fisher`.
      chunk: gradients held at once, as in `fisher`.

    Returns:
      A tree like `params`, float32.

    Reference: Aljundi et al. 2018, ECCV, equation 3 with the squared norm of the outputs.

    >>> sensitivity(lambda w, x: (x * w)[:, None], jnp.float32(3.0), jnp.array([1.0, 2.0])).item()  # mean 2 w x^2
    15.0
    """
    inputs = jax.tree.map(jnp.asarray, inputs)
    n = _nonempty(jax.tree.leaves(inputs)[0]).shape[0]
    energy = lambda params, i: jnp.sum(predict(params, _one(inputs, i)).astype(jnp.float32) ** 2)
    size = lambda i: jax.tree.map(lambda g: jnp.abs(g.astype(jnp.float32)), jax.grad(energy)(params, i))
    return _weighted_mean(size, params, (jnp.arange(n),), jnp.ones(n), n, chunk)


def _one_label(labels: str, logits: Array, targets: Array | None, key: Any) -> Array:
    if labels == "predicted":
        return jnp.argmax(logits, axis=1)
    if labels == "sample":
        if key is None:
            raise MissingWordError('fisher(labels="sample") draws labels and needs `key=`.')
        return jax.random.categorical(key, logits)
    if labels in ("true", "true_weighted"):
        if targets is None:
            raise MissingWordError(f'fisher(labels="{labels}") needs the labels of the inputs as `targets=`.')
        if targets.shape != logits.shape[:1]:
            raise UsageError(f"targets have shape {targets.shape}, and there are {logits.shape[0]} inputs.")
        _check_range(targets, logits.shape[1])
        return targets
    raise unknown("choice of Fisher labels", labels, FISHER_LABELS)


def _check_range(targets: Array, classes: int) -> None:
    if isinstance(targets, jax.core.Tracer):
        return
    given = np.asarray(targets)  # in NumPy: inside `jit`, JAX would trace even what is known
    lowest, highest = given.min(), given.max()
    if lowest < 0 or highest >= classes:
        raise UsageError(f"targets are in 0..{classes - 1}, and these range from {lowest} to {highest}.")


def _nonempty(rows: Array) -> Array:
    if not rows.shape[0]:
        raise UsageError("no examples: importance is a mean over at least one.")
    return rows


def _one(inputs: Any, i: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[i][None], inputs)


def _weighted_mean(function: Callable, params: Any, arguments: tuple, weight: Array, n: int, chunk: int | None) -> Any:
    """Returns sum_j weight_j function(*arguments_j) / n, `chunk` terms at a time; the last chunk is padded by 0."""
    if chunk is None:
        chunk = 1 if jax.default_backend() == "cpu" else 32
    if chunk < 1:
        raise UsageError(f"chunk={chunk} must be at least 1.")
    chunk = min(chunk, weight.size)
    missing = -weight.size % chunk
    rows = jax.tree.map(lambda leaf: jnp.pad(leaf, (0, missing)).reshape(-1, chunk), (arguments, weight))

    def add(total, row):
        arguments, weight = row
        terms = jax.vmap(function)(*arguments)
        return jax.tree.map(lambda t, term: t + jnp.tensordot(weight, term, axes=1), total, terms), None

    total, _ = jax.lax.scan(add, quadratic.like_params(params), rows)
    return jax.tree.map(lambda t: t / n, total)
