"""Gradient projection memory: steps leave out the input directions that earlier tasks needed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core, projection
from neuroml.errors import UsageError

NOISE = 1e-6  # directions with a smaller share of the energy cannot be told from none in float32


class Memory(NamedTuple):
    """What one layer holds of its input space."""

    moment: jax.Array  # [inputs, inputs]: mean of x x^T since the last consolidation
    batches: jax.Array  # (): how many batches that is
    basis: jax.Array  # [inputs, rank]: orthonormal columns, those not yet taken are zero
    held: jax.Array  # () int32: columns taken


class GPMState(NamedTuple):
    """State of `gpm`."""

    layers: dict[str, Memory]
    tasks: jax.Array  # () int32: consolidations so far
    strength: jax.Array  # ()
    threshold: jax.Array  # ()
    threshold_increment: jax.Array  # ()

    hyperparameters = ("strength", "threshold", "threshold_increment")

    def consolidate(self, params: Any, **_: Any) -> "GPMState":
        """Adds to every layer's memory the directions that it lacks, and forgets the inputs."""
        del params
        threshold = jnp.minimum(self.threshold + self.tasks * self.threshold_increment, 1)
        layers = {home: _remember(one, threshold) for home, one in self.layers.items()}
        return self._replace(layers=layers, tasks=self.tasks + 1)

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the fraction of each layer's input space that is held: 1 leaves nothing to learn with."""
        return {f"held {home}": self.strength * one.held / one.basis.shape[0] for home, one in self.layers.items()}


def gpm(
    strength: ArrayLike = 1.0,
    *,
    threshold: ArrayLike = 0.95,
    threshold_increment: ArrayLike = 0.0,
    rank: int | None = None,
    windows: projection.Windows | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient projection memory: steps are orthogonal to the main input directions of earlier tasks, layer by layer.

    Of every dense or convolutional layer, bias included, a memory M [inputs, rank] holds orthonormal directions. With R
    the layer's inputs since the last consolidation as columns and R_hat = R - M M^T R, to consolidate adds to M the
    first k left singular vectors of R_hat, as few as it takes for

        ||R_hat_k||^2 + ||M M^T R||^2 >= threshold * ||R||^2

    and every step W of the layer's matrix [inputs, out] becomes `W - strength * M M^T W`.

    Args:
      strength: 0 is inert, 1 projects fully.
      threshold: share of each task's energy to hold, in [0, 1].
      threshold_increment: added to the threshold at each consolidation after the first; the sum stays at most 1. The
        authors take 0.003 for 10 tasks and 0.001 for 20.
      rank: directions that each memory may hold; default all. Those that come first stay.
      windows: strides and padding of convolutions other than stride 1 and "SAME", by layer path. Name them all: neither
        weights nor activity tell, and one that is not named is taken for stride 1 and "SAME" without a warning.

    Returns:
      A rule that needs the word `activity` (`neuroml.activity`). Put it last in the chain: what is applied is
      projected. Updates of arrays that belong to no layer pass through. A batch whose inputs are not finite, or too
      large to be squared, is left out. Memory is inputs * (inputs + rank) for each layer.

    Raises:
      UsageError: no layer among the weights, an activity that does not fit, a rank below 1.

    Reference:
      Saha, Garg, Roy 2021, "Gradient projection memory for continual learning", ICLR, equations 5 to 9, and the
      authors' code (github.com/sahagobinda/GPM).

    How ours differs: the inputs are all those of the training steps, kept as their second moment, whose eigenvectors
    are the left singular vectors of R; the paper runs some hundred examples through the finished network. So it needs
    no data at the end of a task and works inside `neuroml.on_surprise`, but holds also what layers met on the way.
    The authors' code takes one direction fewer than equation 5 for the first task; ours does not. Biases are
    projected, where theirs has none; one threshold for all layers: give several by `optax.partition`.

    >>> params = {"kernel": jnp.zeros((2, 1))}
    >>> tx = gpm(threshold=0.9)
    >>> x = jnp.array([[3.0, 0.1], [-3.0, 0.1]])                               # the first axis has 99.9 % of the energy
    >>> _, state = tx.update(params, tx.init(params), params, activity=x)
    >>> state = core.consolidate(state, params)
    >>> step, _ = tx.update({"kernel": jnp.ones((2, 1))}, state, params, activity=x)
    >>> step["kernel"].round(3).ravel().tolist()
    [0.0, 1.0]
    """
    if rank is not None and rank < 1:
        raise UsageError(f"rank={rank} must be at least 1.")
    given = {"strength": strength, "threshold": threshold, "threshold_increment": threshold_increment}

    def init(params):
        blank = lambda sizes: {home: _blank(inputs, min(inputs, rank or inputs)) for home, inputs in sizes.items()}
        leaves = {name: core.leaf(value) for name, value in given.items()}
        return GPMState(projection.begin("gpm", params, blank), jnp.int32(0), **leaves)

    def gpm(updates, state, params, *, activity, **_):
        del params
        state = core.live(state, **given)
        rows = projection.inputs(updates, activity, windows)
        ok = projection.finite(rows)
        steps = {
            home: projection.project(matrix, state.layers[home].basis, state.strength)
            for home, matrix in projection.matrices(updates).items()
        }
        layers = {home: _gather(one, rows[home], ok) for home, one in state.layers.items()}
        return projection.replace(updates, steps), state._replace(layers=layers)

    return core.rule(init, gpm)


def _blank(inputs: int, rank: int) -> Memory:
    return Memory(jnp.zeros((inputs, inputs)), jnp.zeros(()), jnp.zeros((inputs, rank)), jnp.int32(0))


def _gather(one: Memory, rows: Array, ok: Array) -> Memory:
    moment, batches = projection.gathered(one.moment, one.batches, rows, ok)
    return one._replace(moment=moment, batches=batches)


def _remember(one: Memory, threshold: Array) -> Memory:
    """Returns the layer with the directions that its inputs lack in the basis, and no inputs."""
    total = jnp.trace(one.moment)
    known = one.basis @ one.basis.T
    left = one.moment - known @ one.moment
    left = left - left @ known
    # Moved far below zero, what the basis holds comes last, and eigenvectors of anything else are orthogonal to it.
    values, vectors = jnp.linalg.eigh(left - total * known)
    values, vectors = values[::-1], vectors[:, ::-1]
    energy = jnp.maximum(values, 0)
    short = total - energy.sum() + jnp.cumsum(energy) - energy < threshold * total
    new = jnp.sum(short & (energy > NOISE * total))
    return one._replace(
        moment=jnp.zeros_like(one.moment),
        batches=jnp.zeros_like(one.batches),
        basis=_appended(one.basis, one.held, vectors, new),
        held=jnp.minimum(one.held + new, one.basis.shape[1]).astype(one.held.dtype),
    )


def _appended(basis: Array, held: Array, vectors: Array, new: Array) -> Array:
    """Returns the first `held` columns of `basis`, then the first `new` of `vectors`, then zeros."""
    place = jnp.arange(basis.shape[1]) - held
    fresh = vectors[:, jnp.clip(place, 0, basis.shape[1] - 1)]
    return jnp.where(place < 0, basis, jnp.where(place < new, fresh, 0))
