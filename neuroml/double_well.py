"""A double well: occupancy that switches on above a threshold, and stays on when the cause is gone.

    energy(occupancy) = barrier * occupancy**2 * (1 - occupancy)**2 - drive * occupancy

With drive 0 both 0 (dissolved) and 1 (condensed) are stable. The drive tilts the wells; beyond `spinodal` one of them
vanishes. So what a strong drive has condensed needs no drive to last, and a strong opposite drive to dissolve.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array


def spinodal(barrier: ArrayLike) -> Any:
    r"""Returns the drive beyond which a well vanishes: `barrier * \sqrt{3} / 9`; a plain number for a plain number.

    It is the largest slope of the energy between its wells, at occupancy (3 - sqrt(3)) / 6.

    >>> round(float(spinodal(1.0)), 4)
    0.1925
    """
    return barrier * (3**0.5 / 9)  # no array: a rule that checks its arguments may be made inside `jit`


def relax(
    occupancy: ArrayLike, drive: ArrayLike, barrier: ArrayLike, *, steps: int = 100, step_size: ArrayLike = 0.25
) -> Array:
    """Lets occupancies slide down the energy, by Euler steps clipped to [0, 1].

        occupancy = occupancy + step_size * (drive - 2 * barrier * occupancy * (1 - occupancy) * (1 - 2 * occupancy))

    Args:
      occupancy: in [0, 1], any shape.
      drive: supersaturation (above 0 condenses, below 0 dissolves), of the same shape or one number.
      barrier: height of the barrier, >= 0; with 0 nothing holds against the drive.
      steps: number of Euler steps; static. The defaults let a drive 10 % beyond `spinodal(1.0)` do its work; nearer
        the spinodal, or with a lower barrier, the slide is slower.
      step_size: below 1 / barrier, or the steps overshoot the wells.

    Returns:
      The occupancies after `steps` steps, of the drive's and the occupancy's common shape.

    Reference:
      The bistable (Landau) free energy of a first-order transition; the spinodal is where its metastable well ends.

    >>> occupancy = relax(0.0, 1.1 * spinodal(1.0), barrier=1.0)               # beyond the threshold: condenses
    >>> still = relax(occupancy, 0.0, barrier=1.0)                             # the cause is gone: it stays
    >>> gone = relax(still, -1.1 * spinodal(1.0), barrier=1.0)                 # dissolved by as much the other way
    >>> float(occupancy), float(still), float(gone)
    (1.0, 1.0, 0.0)
    """

    def step(_, occupancy):
        slope = 2 * barrier * occupancy * (1 - occupancy) * (1 - 2 * occupancy)
        return jnp.clip(occupancy + step_size * (drive - slope), 0, 1)

    shape = jnp.broadcast_shapes(jnp.shape(occupancy), jnp.shape(drive), jnp.shape(barrier), jnp.shape(step_size))
    kind = jnp.result_type(occupancy, drive, barrier, step_size, jnp.float32)
    return jax.lax.fori_loop(0, steps, step, jnp.broadcast_to(jnp.asarray(occupancy, kind), shape))
