"""Feature maps fixed by the first examples of a stream: what a memory in closed form stands on.

A `FeatureMap` looks once at the first examples, never again, and knows nothing of classes to come: its widths, filters
and scales are those of the first task. Fixed features are called fixed features in every table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from neuroml.activity import patches
from neuroml.errors import UsageError


class FeatureMap(NamedTuple):
    """Pure functions: `fit(key, images) -> params`, `apply(params, images) -> [n, width]`."""

    fit: Callable[[PRNGKeyArray, Array], Any]
    apply: Callable[[Any, Array], Array]


def pixels() -> FeatureMap:
    """Returns the map that flattens its images and changes nothing else."""
    return FeatureMap(lambda key, images: (), lambda params, images: _flat(images))


def random_features(width: int, *, bandwidth: float = 1.0) -> FeatureMap:
    r"""Random Fourier features of a Gaussian kernel, its bandwidth set by the first examples.

        features_j(x) = sqrt(2) cos(w_j x + b_j),  w_j ~ N(0, I / (bandwidth * d)^2),  b_j ~ uniform(0, 2 pi)

    with d the root mean squared distance between two of the first examples. Reference: Rahimi and Recht 2007; as the
    features of a continual learner: Prabhu et al. 2024, "RanDumb". How ours differs from RanDumb: the bandwidth comes
    from the first task; theirs from the variance of the whole training set, which a stream does not give.

    >>> map = random_features(6)
    >>> map.apply(map.fit(jax.random.key(0), jnp.eye(4)), jnp.eye(4)).shape
    (4, 6)
    """
    if width < 1:
        raise UsageError(f"width={width} must be at least 1.")

    def fit(key, images):
        x = _flat(images)
        first, second = jax.random.split(key)
        distance = jnp.sqrt(2 * jnp.maximum(x.var(axis=0).sum(), 1e-12))
        directions = jax.random.normal(first, (x.shape[1], width)) / (bandwidth * distance)
        return {"directions": directions, "phases": jax.random.uniform(second, (width,), maxval=2 * jnp.pi)}

    def apply(params, images):
        return jnp.sqrt(2.0) * jnp.cos(_flat(images) @ params["directions"] + params["phases"])

    return FeatureMap(fit, apply)


def patch_condensates(
    filters: int,
    *,
    size: int = 6,
    pool: int = 2,
    threshold: float = 0.5,
    stride: int = 1,
    mirror: bool = False,
    whitening: float = 0.1,
    contrast: float = 0.01,
    samples: int = 50_000,
    rounds: int = 10,
    chunk: int | None = None,
) -> FeatureMap:
    r"""A dictionary of whitened local patches, nucleated from the first examples by winner-take-all Hebbian learning.

        p        = patch, less its mean, over sqrt(its variance + contrast)
        z        = (p - mean) V (E + whitening)^(-1/2) V^T                  V, E: of the covariance of patches
        response = z f_k,  f_k unit vectors;  winner: argmax_k |response|;  f_k <- normalized sum of response * z it won
        code     = max(response - threshold, 0), max(-response - threshold, 0)
        features = sqrt(mean of the code over each of pool x pool regions), standardized by the first examples

    Args:
      filters: size of the dictionary; there are `2 * pool**2 * filters` features.
      size: height and width of a patch.
      pool: regions along each axis.
      threshold: responses below it are silent, which makes the code sparse.
      stride: pixels between patches when images are read.
      mirror: adds the features of the mirrored image: for the ridge readout the same as also learning every mirrored
        image with a dictionary that has the mirror image of each filter, at half the features.
      whitening: regularizes the inverse square root of small variances.
      contrast: keeps flat patches from being blown up.
      samples: patches that the dictionary is learnt from.
      rounds: passes of winner-take-all learning over them; 0, the content-free control, keeps random patches.
      chunk: images whose responses are held at once; default: 20, on a CPU 1, whose responses stay in its cache.

    Returns:
      A `FeatureMap` for images [n, height, width, channels] in [0, 1].

    Raises:
      UsageError: settings below 1, more filters than samples; at `fit`, when these are no images, a patch does not fit
        into the image, is a single value (less its mean it is 0) or a region would be empty.

    Reference:
      Coates and Ng 2011, "The importance of encoding versus training with sparse coding and vector quantization". How
      ours differs: the dictionary is of the first task only; winners by absolute response; the square root.

    >>> map = patch_condensates(3, size=4, samples=50)
    >>> images = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))
    >>> map.apply(map.fit(jax.random.key(1), images), images).shape
    (5, 24)
    """
    if min(filters, size, pool, stride, samples - 1, rounds + 1, 1 if chunk is None else chunk) < 1:
        raise UsageError("filters, size, pool, stride and chunk must each be at least 1, samples 2 and rounds 0.")
    if filters > samples:
        raise UsageError(f"filters={filters} start from as many patches, and there are samples={samples}: take more.")

    def normalized(rows):
        rows = rows - rows.mean(-1, keepdims=True)
        return rows * jax.lax.rsqrt(rows.var(-1, keepdims=True) + contrast)

    def fit(key, images):
        _check_room(images, size, pool, stride)
        rows = normalized(_draw_patches(key, images.astype(jnp.float32), size, samples))
        mean, covariance = rows.mean(0), jnp.cov(rows.T)
        values, vectors = jnp.linalg.eigh(covariance)
        whiten = (vectors * jax.lax.rsqrt(jnp.maximum(values, 0) + whitening)) @ vectors.T
        directions = whiten @ _condense((rows - mean) @ whiten, filters, rounds).T
        params = {"directions": directions, "offset": mean @ directions}
        raw = each(params, images)
        spread = raw.std(0)
        return {**params, "center": raw.mean(0), "spread": spread + 1e-3 * spread.mean() + 1e-12}

    def pooled(params, images):
        views = (images, images[:, :, ::-1]) if mirror else (images,)
        rows = [normalized(patches(view, (size, size), stride, "VALID")) for view in views]
        return jnp.stack([_regions(params, row, pool, threshold) for row in rows]).sum(0)

    def each(params, images):
        at_once = chunk or (1 if jax.default_backend() == "cpu" else 20)
        return jax.lax.map(lambda one: pooled(params, one[None])[0], images, batch_size=at_once)

    def apply(params, images):
        images = images.astype(jnp.float32)
        raw = each(params, images)
        return (raw - params["center"]) / params["spread"]

    return FeatureMap(fit, apply)


def _flat(images: Array) -> Float[Array, "n pixels"]:
    return images.reshape(images.shape[0], -1).astype(jnp.float32)


def _check_room(images: Array, size: int, pool: int, stride: int) -> None:
    if images.ndim != 4:
        raise UsageError(f"images have the shape [n, height, width, channels], not {images.shape}.")
    if size * images.shape[3] == 1:
        raise UsageError("a patch of size=1 on one channel is its own mean and tells nothing: take a larger size.")
    positions = [(side - size) // stride + 1 for side in images.shape[1:3]]
    if min(positions) < pool:
        raise UsageError(
            f"patches of {size} pixels, stride {stride}, have {min(positions)} positions along images of shape "
            f"{images.shape[1:]}: too few for {pool} regions. Take a smaller size, stride or pool."
        )


def _draw_patches(key: Array, images: Array, size: int, samples: int) -> Array:
    """Returns [samples, size * size * channels] patches from random places."""
    which, row, column = jax.random.split(key, 3)
    count, height, width, channels = images.shape
    which = jax.random.randint(which, (samples,), 0, count)
    row = jax.random.randint(row, (samples,), 0, height - size + 1)
    column = jax.random.randint(column, (samples,), 0, width - size + 1)
    cut = lambda n, i, j: jax.lax.dynamic_slice(images, (n, i, j, 0), (1, size, size, channels)).ravel()
    return jax.vmap(cut)(which, row, column)


def _condense(rows: Array, filters: int, rounds: int) -> Array:
    """Returns [filters, d] unit vectors that the rows gathered around; one that wins nothing stays where it is."""
    unit = lambda vectors: vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)

    def learn(_, dictionary):
        response = rows @ dictionary.T
        winner = jnp.argmax(jnp.abs(response), axis=1)
        won = jnp.take_along_axis(response, winner[:, None], axis=1)
        total = jax.ops.segment_sum(won * rows, winner, filters)
        return jnp.where(jnp.linalg.norm(total, axis=1, keepdims=True) > 1e-6, unit(total), dictionary)

    return jax.lax.fori_loop(0, rounds, learn, unit(rows[:filters]))


def _regions(params: Any, rows: Array, pool: int, threshold: float) -> Array:
    """Returns the square root of the mean code in each region, [n, 2 pool^2 filters]."""
    response = rows @ params["directions"] - params["offset"]
    edges = lambda length: [round(i * length / pool) for i in range(pool + 1)]
    down, across = edges(response.shape[1]), edges(response.shape[2])
    cells = [response[:, down[i] : down[i + 1], across[j] : across[j + 1]] for i in range(pool) for j in range(pool)]
    codes = [jnp.maximum(sign * cell - threshold, 0).mean((1, 2)) for cell in cells for sign in (1, -1)]
    return jnp.sqrt(jnp.concatenate(codes, axis=-1))
