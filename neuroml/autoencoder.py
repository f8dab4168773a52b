"""A small variational autoencoder of images in [0, 1]: it dreams of what it saw, and says how likely an image is."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from neuroml.errors import UsageError
from neuroml.modules.reference import mlp


class Autoencoder(NamedTuple):
    """Pure functions over `params`, a dictionary."""

    init: Callable[[PRNGKeyArray], Any]  # (key) -> params
    loss: Callable[[Any, Array, PRNGKeyArray], Array]  # (params, x [n, ...], key) -> [n] negative ELBO, in nats
    sample: Callable[[Any, int, PRNGKeyArray], Array]  # (params, n, key) -> [n, ...] in [0, 1]
    log_likelihood: Callable[..., Array]  # (params, x [n, ...], key, samples) -> [n], in nats


def autoencoder(
    shape: tuple[int, ...], hidden: Sequence[int], latent: int, *, initialization: str = "torch"
) -> Autoencoder:
    r"""Makes a variational autoencoder of two MLPs: image -> hidden -> latent, and back through the same widths.

        q(z | x) = N(mean(x), exp(log_variance(x))),   p(z) = N(0, I),   p(x | z) = Bernoulli(sigmoid(decoder(z)))
        loss(x)  = -log p(x | z) + KL(q(z | x) || p(z)),   one z ~ q(z | x)
        log_likelihood(x) = log mean_s p(x | z_s) p(z_s) / q(z_s | x),   z_s ~ q(z | x),  s = 1..samples

    with -log p(x | z) the binary cross-entropy summed over pixels, grey ones counted as probabilities.

    Args:
      shape: of one image; its values are in [0, 1].
      hidden: widths of the encoder's hidden layers; the decoder's are the same backwards.
      latent: number of latent variables.
      initialization: of both networks, as `neuroml.mlp` has it.

    Returns:
      An `Autoencoder`.

    Raises:
      UsageError: `latent` below 1, or an unknown initialization.

    Reference:
      Kingma and Welling 2014, "Auto-encoding variational Bayes", ICLR; importance samples: Rezende et al. 2014.

    >>> one = autoencoder((4, 4, 1), [8], 2)
    >>> params = one.init(jax.random.key(0))
    >>> one.sample(params, 3, jax.random.key(1)).shape
    (3, 4, 4, 1)
    """
    if latent < 1:
        raise UsageError(f"latent={latent} must be at least 1.")
    pixels = functools.reduce(lambda a, b: a * b, shape)
    encoder = mlp(shape, list(hidden), 2 * latent, initialization=initialization)
    decoder = mlp(latent, list(hidden)[::-1], pixels, initialization=initialization)

    def init(key):
        first, second = jax.random.split(key)
        return {"encoder": encoder.init(first)[0], "decoder": decoder.init(second)[0]}

    def encode(params, x):
        return jnp.split(encoder.apply(params["encoder"], {}, x)[0], 2, axis=-1)

    def decode(params, z):
        return decoder.apply(params["decoder"], {}, z)[0]

    def unlikely(params, x, z) -> Float[Array, " n"]:
        return optax.sigmoid_binary_cross_entropy(decode(params, z), x.reshape(x.shape[0], -1)).sum(-1)

    def draw(mean, log_variance, key):
        return mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)

    def loss(params, x, key):
        mean, log_variance = encode(params, x)
        divergence = 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1)
        return unlikely(params, x, draw(mean, log_variance, key)) + divergence

    def sample(params, n, key):
        return jax.nn.sigmoid(decode(params, jax.random.normal(key, (n, latent)))).reshape(n, *shape)

    def log_likelihood(params, x, key, samples):
        mean, log_variance = encode(params, x)

        def weight(key):
            z = draw(mean, log_variance, key)
            prior = jax.scipy.stats.norm.logpdf(z).sum(-1)
            posterior = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(log_variance / 2)).sum(-1)
            return prior - posterior - unlikely(params, x, z)

        weights = jax.lax.map(weight, jax.random.split(key, samples))
        return jax.nn.logsumexp(weights, axis=0) - jnp.log(samples)

    return Autoencoder(init, loss, sample, log_likelihood)
