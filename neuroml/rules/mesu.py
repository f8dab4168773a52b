"""MESU: every weight is a Gaussian, and learns as fast as it is uncertain."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from neuroml import core


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How slopes are taken. A tree node without leaves; compares by value, so rules made alike have states alike."""

    loss: Callable[[Any, Any], jax.Array]
    samples: int
    centered: bool  # the prior's means are 0

    def slopes(self, params: Any, spread: Any, batch: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        """Returns the mean gradient of the loss by the means and by the spreads, over weights drawn around them."""

        def one(key):
            draw = optax.tree.random_like(key, spread)
            drawn = jax.tree.map(lambda p, s, e: p + (s * e).astype(p.dtype), params, spread, draw)
            grads = jax.grad(self.loss)(drawn, batch)
            evidence = lambda g, e: jnp.where(jnp.isfinite(g), g, 0).astype(e.dtype) * e  # NaN would stay in the spread
            return grads, jax.tree.map(evidence, grads, draw)

        mean = lambda leaf: leaf.mean(0).astype(leaf.dtype)
        return jax.tree.map(mean, jax.lax.map(one, jax.random.split(key, self.samples)))


class MESUState(NamedTuple):
    """State of `mesu`. The weights themselves are the means."""

    spread: Any  # like params, float32: standard deviations
    start: Any  # like params: the prior's means
    strength: jax.Array  # ()
    prior: jax.Array  # ()
    window: jax.Array  # ()
    examples: jax.Array  # ()
    sampling: Sampling

    hyperparameters = ("strength", "prior", "window", "examples")

    @property
    def anchors(self) -> tuple[str, ...]:
        """The prior's means, unless they are 0, which they stay."""
        return () if self.sampling.centered else ("start",)

    def fresh(self) -> dict[str, jax.Array]:
        """Returns the spread of a new weight: the prior's. At zero it would never learn."""
        return {"spread": self.prior}

    def report(self) -> dict[str, jax.Array]:
        """Returns the mean spread, in units of the prior's: 1 is as plastic as at the start."""
        leaves = jax.tree.leaves(self.spread)
        return {"spread": sum(leaf.sum() for leaf in leaves) / sum(leaf.size for leaf in leaves) / self.prior}


def mesu(
    loss: Callable[[Any, Any], jax.Array],
    *,
    strength: ArrayLike = 1.0,
    prior: ArrayLike = 0.1,
    window: ArrayLike = 1e5,
    examples: ArrayLike = 1.0,
    samples: int = 1,
    centered: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Metaplasticity from synaptic uncertainty: a weight's rate is its variance, and old evidence is let go.

    The weights are the means of Gaussians of standard deviation `spread`, `prior` at the start. With
    w = params + spread * e, e ~ N(0, 1), and g = d loss(w) / dw, averaged over `samples` draws,

        spread  <- spread - spread^2 examples g e / 2 + spread (prior^2 - spread^2) / (2 window prior^2)
        updates <- (spread / prior)^2 (g + (params - start) / (examples window prior^2))

    so that the paper's step is that of `optax.sgd(examples * prior**2)` behind it, and another learning rate scales the
    steps of the means alone. Where the loss is curved, g e is positive on average: the spread shrinks, and the weight
    settles. `window` says how many batches are remembered: the prior pulls back, so that the network never sets for
    good.

    Args:
      loss: `(params, batch) -> scalar`.
      strength: how much of the update is exchanged for the one above; in [0, 1], 0 is inert.
      prior: standard deviation of the prior; > 0.
      window: number of batches that are remembered (the paper's N); > 0.
      examples: how many examples `loss` is the mean of: evidence adds up over examples, so the size of a batch; 1 where
        the loss is a sum.
      samples: draws of the weights at each step, each with a gradient of its own.
      centered: the prior's means are 0, as in the paper; default: the weights at the start.

    Returns:
      A rule that needs the words `batch` and `key` (and, inside `optax.masked`, `all_params`). Put it before
      `optax.sgd`; consolidation changes nothing, since no task boundary is known to it. A slope that is not finite
      is no evidence: the spread drifts to the prior's.

    Raises:
      UsageError: `samples` below 1, or a prior or window that is not positive.

    Reference:
      Bonnet et al. 2025, "Bayesian continual learning and forgetting in neural networks", arXiv 2504.13569.

    How ours differs: no bound on the size of a step but that a spread stays between 1 % of the prior and ten times it;
    answers come from the mean weights, where the authors average over draws; no second-order or momentum terms.

    >>> import neuroml
    >>> loss = lambda w, x: ((w - x) ** 2).mean()
    >>> tx = optax.chain(neuroml.mesu(loss, prior=0.5), optax.sgd(0.25))
    >>> w, x = jnp.zeros(3), jnp.ones(3)
    >>> state, grads, update = tx.init(w), jnp.zeros(3), jax.jit(tx.update)      # the rule takes its own gradient
    >>> for step in range(100):
    ...     updates, state = update(grads, state, w, batch=x, key=jax.random.key(step))
    ...     w = w + updates
    >>> bool((abs(w - 1) < 0.2).all()), bool((state[0].spread < 0.5).all())      # learnt, and surer of it
    (True, True)
    """
    given = {"samples": samples, "prior": prior, "window": window, "examples": examples}
    core.require_ranges("mesu", given, **dict.fromkeys(given, "(0, inf]"))
    sampling = Sampling(loss, samples, centered)

    def init(params):
        spread = jax.tree.map(lambda p: jnp.full(jnp.shape(p), core.leaf(prior)), params)
        start = optax.tree.zeros_like(params) if centered else core.remembered(params, params)
        numbers = {"strength": strength, "prior": prior, "window": window, "examples": examples}
        leaves = {name: core.leaf(value) for name, value in numbers.items()}
        return MESUState(spread, start, **leaves, sampling=sampling)

    def mesu(updates, state, params, *, batch, key, all_params=None, **_):
        state = core.live(state, strength=strength, prior=prior, window=window, examples=examples)
        still = lambda seen, every: optax.tree.zeros_like(every) if core.is_hidden(seen) else seen
        every = core.whole("mesu", params, all_params)
        around = jax.tree.map(still, state.spread, every, is_leaf=core.is_hidden)
        slopes, spreading = state.sampling.slopes(every, around, batch, key)
        slopes, spreading = core.visible(slopes, params), core.visible(spreading, params)
        variance, memory = state.prior**2, state.window * state.prior**2

        def settle(spread, slope):
            drift = spread * (variance - spread**2) / (2 * memory)
            surer = spread - spread**2 * state.examples * slope / 2 + drift
            return jnp.clip(surer, 0.01 * state.prior, 10 * state.prior)

        def exchange(update, slope, spread, param, start):
            wanted = spread**2 / variance * (slope + (param - start) / (state.examples * memory))
            return (update + state.strength * (wanted - update)).astype(update.dtype)

        moved = jax.tree.map(exchange, updates, slopes, state.spread, params, state.start)
        return moved, state._replace(spread=jax.tree.map(settle, state.spread, spreading))

    return core.rule(init, mesu)
