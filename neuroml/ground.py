"""Ground: which directions of a layer's input space earlier inputs occupy, as a projector onto what is left free."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import projection

TINY = 1e-30


class Ground(NamedTuple):
    """What of the input space of one layer is occupied."""

    shell: jax.Array  # [inputs, inputs]: mean of x xᵀ since the last consolidation
    batches: jax.Array  # (): how many batches that is
    core: jax.Array  # [inputs, inputs]: sum of the shells consolidated
    free: jax.Array  # [inputs, inputs]: projector onto what the core leaves free
    unit: jax.Array  # (): mean eigenvalue of the first shell consolidated; 0 before


def bare(inputs: int) -> Ground:
    """Returns the ground on which nothing stands.

    >>> bare(2).free.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    shell, core = (jnp.zeros((inputs, inputs)) for _ in range(2))
    return Ground(shell, jnp.zeros(()), core, jnp.eye(inputs), jnp.zeros(()))


def felt(ground: Ground, rows: Float[Array, "n inputs"], ok: Bool[Array, ""]) -> Ground:
    """Returns the ground after one more batch of inputs, which counts if `ok`."""
    shell, batches = projection.gathered(ground.shell, ground.batches, rows, ok)
    return ground._replace(shell=shell, batches=batches)


def settled(ground: Ground, scale: ArrayLike) -> Ground:
    r"""Returns the ground with its shell in its core, so that the shell's inputs are occupied from now on.

        free = (I + core / (scale * unit))^-1

    Args:
      ground: of one layer. Without a batch in its shell nothing changes.
      scale: the ridge, > 0, in units of the mean eigenvalue of the first shell that was consolidated.

    >>> ground = felt(bare(2), jnp.array([[1.0, 0.0]]), jnp.array(True))
    >>> settled(ground, 1e-6).free.round(3).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    size = ground.shell.shape[0]
    unit = jnp.where(ground.unit > 0, ground.unit, jnp.trace(ground.shell) / size)
    core = ground.core + ground.shell
    ridge = jnp.maximum(jnp.asarray(scale, jnp.float32) * unit, TINY)
    free = ridge * jnp.linalg.inv(core + ridge * jnp.eye(size))  # as well conditioned as the ridge makes it
    after = Ground(jnp.zeros_like(core), jnp.zeros(()), core, (free + free.T) / 2, unit)
    return jax.tree.map(lambda new, old: jnp.where(ground.batches > 0, new, old), after, ground)


def without(ground: Ground, gone: Bool[Array, " inputs"]) -> Ground:
    """Returns the ground without some inputs: they occupy nothing, and the others what they did until it is settled.

    >>> ground = settled(felt(bare(2), jnp.array([[1.0, 1.0], [1.0, -1.0]]), jnp.array(True)), 1.0)
    >>> without(ground, jnp.array([True, False])).free.round(3).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    off = gone[:, None] | gone
    shell, core = (jnp.where(off, 0, moment) for moment in (ground.shell, ground.core))
    return ground._replace(shell=shell, core=core, free=jnp.where(off, jnp.eye(gone.size), ground.free))


def free_share(ground: Ground, dead: ArrayLike) -> Float[Array, ""]:
    """Returns the free rank as a share of the living inputs, of which `dead` are none: 1 is all free.

    Inputs that have never been other than zero are free without being of use, and do not count.
    """
    size = ground.free.shape[0]
    return (jnp.trace(ground.free) - dead) / jnp.maximum(size - jnp.asarray(dead), 1)
