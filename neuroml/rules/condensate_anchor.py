"""Condensate anchor: a weight that mattered condenses, and is then held where a slow anchor stands."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from neuroml import core, double_well, quadratic
from neuroml.errors import UsageError

CONDENSED = 0.5  # the top of the barrier between the two wells


class CondensateAnchorState(NamedTuple):
    """State of `condensate_anchor`. All trees are like params, float32."""

    shell: Any  # running mean of the weights
    core: Any  # where condensed weights are held
    occupancy: Any  # in [0, 1]: 0 is dissolved, 1 is condensed
    valence: Any  # how many consolidations in a row have held the weight
    strength: jax.Array  # ()
    budget: jax.Array  # ()
    barrier: jax.Array  # ()
    drive: jax.Array  # ()
    shell_time: jax.Array  # ()

    hyperparameters = ("strength", "budget", "barrier", "drive", "shell_time")
    anchors = ("shell", "core")

    def held(self) -> Any:
        """Returns the occupancy of condensed weights, and 0 for the others: a tree like the weights."""
        return jax.tree.map(_held, self.occupancy)

    def consolidate(self, params: Any, *, importance: Any, **_: Any) -> "CondensateAnchorState":
        """Lets weights condense or dissolve, as their `importance` ranks in their array; then the cores follow."""
        del params
        credit = core.visible(importance, self.occupancy, "importance")

        def condense(occupancy, credit):
            supersaturation = self.drive * (_rank(credit) - (1 - self.budget))
            return double_well.relax(occupancy, supersaturation, self.barrier)

        def follow(anchor, shell, held, valence):
            return anchor + held * jnp.exp(-valence) * (shell - anchor)

        state = self._replace(occupancy=jax.tree.map(condense, self.occupancy, credit))
        held = state.held()
        moved = jax.tree.map(follow, self.core, self.shell, held, self.valence)
        return state._replace(core=moved, valence=jax.tree.map(lambda h, v: h * (v + 1), held, self.valence))


def condensate_anchor(
    strength: ArrayLike,
    *,
    budget: ArrayLike = 0.2,
    barrier: ArrayLike = 1.0,
    drive: ArrayLike = 2.0,
    shell_time: ArrayLike = 100.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Condensate anchor: weights that mattered condense; they learn no more and are held. An ablation.

    Each weight has two anchors and an occupancy with hysteresis. At every step, with step_i the finished step and
    held = occupancy where occupancy > 1/2, and 0 elsewhere,

        shell_i += (params_i - shell_i) / shell_time
        c_i      = strength * held_i
        params_i = (params_i + (1 - min(strength, 1) * held_i) * step_i + c_i * core_i) / (1 + c_i)

    and at every consolidation, with rank_i in (0, 1) the place of importance_i among those of its array,

        supersaturation_i = drive * (rank_i - (1 - budget))
        occupancy_i       = `neuroml.double_well.relax(occupancy_i, supersaturation_i, barrier)`
        core_i           += held_i * exp(-valence_i) * (shell_i - core_i)
        valence_i         = held_i * (valence_i + 1)

    A weight condenses once its supersaturation passes the spinodal, sqrt(3) / 9 * barrier; it stays condensed without
    any, and dissolves below minus the spinodal. By default those of the top 10 % of an array condense, and stay while
    they rank in the top 30 %. The more often it was held, the slower its core moves.

    Like all consolidation weight by weight it does not solve class-incremental learning: on split MNIST 20 to 30 % is
    to be expected, as for `neuroml.ewc`. It is here for completeness and as an ablation of protecting directions
    instead of weights.

    Args:
      strength: how hard condensed weights are held; >= 0. 0 is inert, 1 stops their learning and halves the distance
        to the core at each step.
      budget: at most this share of an array's weights is supersaturated at one consolidation (to the nearest whole
        weight); in (0, 1). Hysteresis may hold more.
      barrier: height of the double well's barrier, >= 0: the width of the hysteresis.
      drive: supersaturation for each unit of rank. Nothing condenses unless drive * budget passes the spinodal.
      shell_time: steps over which the shell averages the weights; >= 1.

    Returns:
      A rule. Put it last in the chain: it sees the finished step. `neuroml.consolidate(opt_state, params,
      importance=...)` takes any importance (`neuroml.fisher`, `neuroml.sensitivity`): only its ranks count. It has no
      penalty: to gate a step is no gradient.

    Raises:
      UsageError: a budget outside (0, 1), or a drive so small that nothing can condense.

    Reference:
      None. The names are those of CaMKII condensates, which outlast the calcium that formed them: Hosokawa et al. 2021,
      Cell Reports 35:109275. Its parts: synaptic cascades (Fusi et al. 2005), implicit quadratic pulls.

    >>> import neuroml
    >>> params, importance = {"w": jnp.ones(4)}, {"w": jnp.array([0.0, 9.0, 1.0, 2.0])}
    >>> tx = neuroml.condensate_anchor(strength=1.0, budget=0.25)
    >>> state = neuroml.consolidate(tx.init(params), params, importance=importance)
    >>> step, _ = tx.update({"w": jnp.ones(4)}, state, params)
    >>> step["w"].tolist()                                      # the weight that mattered most moves no more
    [1.0, 0.0, 1.0, 1.0]
    """
    given = {"strength": strength, "budget": budget, "barrier": barrier, "drive": drive, "shell_time": shell_time}
    _check(budget, barrier, drive)

    def init(params):
        here = lambda: jax.tree.map(jnp.add, quadratic.like_params(params), params)
        occupancy, valence = quadratic.like_params(params), quadratic.like_params(params)
        leaves = {name: core.leaf(value) for name, value in given.items()}
        return CondensateAnchorState(here(), here(), occupancy, valence, **leaves)

    def condensate_anchor(updates, state, params, **_):
        state = core.live(state, **given)
        held, gate = state.held(), jnp.minimum(state.strength, 1)
        gated = jax.tree.map(lambda step, h: ((1 - gate * h) * step).astype(step.dtype), updates, held)
        # A step size of one half makes the pull's c = 2 * step_size * strength * held that of the docstring.
        steps = quadratic.pull_implicitly(gated, params, state.core, held, state.strength, jnp.float32(0.5))
        shell = jax.tree.map(lambda s, p: s + (p - s) / state.shell_time, state.shell, params)
        return steps, state._replace(shell=shell)

    return core.rule(init, condensate_anchor)


def _check(budget: Any, barrier: Any, drive: Any) -> None:
    """Refuses numbers with which nothing can happen; arrays may be tracers and are taken as they are."""
    if any(isinstance(value, jax.Array) for value in (budget, barrier, drive)):
        return
    if not 0 < budget < 1:
        raise UsageError(f"budget={budget} must lie between 0 and 1.")
    most, threshold = drive * budget, float(double_well.spinodal(barrier))
    if most <= threshold:
        raise UsageError(f"drive * budget = {most:.3g} must pass the spinodal, {threshold:.3g}: nothing can condense.")


def _held(occupancy: Array) -> Array:
    return jnp.where(occupancy > CONDENSED, occupancy, 0)


def _rank(credit: Array) -> Array:
    """Returns the share of the array below each weight, in (0, 1). Equals share the lowest place, within the budget."""
    flat = credit.ravel()
    below = jnp.searchsorted(jnp.sort(flat), flat)
    return ((below + 0.5) / flat.size).reshape(credit.shape)
