"""RWalk: hold each weight for how much the answers hang on it now, and for what its movement has earned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroml import averages, core, quadratic
from neuroml.errors import UsageError


class RWalkState(NamedTuple):
    """State of `rwalk`. Trees are like the weights; all but the first four are float32."""

    anchor: Any  # the weights at the last consolidation
    start: Any  # the weights where the present interval began
    last_params: Any
    last_grads: Any
    importance: Any  # as the last consolidation made it
    fisher: Any  # running mean of squared gradients
    score: Any  # of the tasks that are over, halved at each consolidation
    path: Any  # score of the present task
    credit: Any  # running sum of -gradient * step since the interval began
    count: jax.Array  # () int32: updates so far
    strength: jax.Array  # ()
    decay: jax.Array  # ()
    damping: jax.Array  # ()

    hyperparameters = ("strength", "decay", "damping")
    importances = ("importance",)
    anchors = ("anchor", "start", "last_params")

    def penalty(self, params: Any, **_: Any) -> jax.Array:
        """Returns `strength * sum_i importance_i * (params_i - anchor_i)**2`."""
        return quadratic.penalty(params, self.anchor, self.importance, self.strength)

    def walked(self, params: Any) -> "RWalkState":
        """Returns the state with the credit of the step from `last_params` to `params`."""
        return self._replace(credit=quadratic.credited(self.credit, self.last_grads, params, self.last_params))

    def scored(self, params: Any) -> "RWalkState":
        """Returns the state with the interval closed at `params`: its credit, where positive, became score."""

        def gain(path, credit, fisher, param, start):
            moved = (param - start).astype(path.dtype)
            return path + jnp.maximum(credit, 0) / (fisher * moved**2 / 2 + self.damping)

        path = jax.tree.map(gain, self.path, self.credit, self.fisher, params, self.start)
        return self._replace(path=path, credit=optax.tree.zeros_like(self.credit), start=params)

    def consolidate(self, params: Any, **_: Any) -> "RWalkState":
        """Turns what was measured since the last call into importance, and anchors the weights where they are."""
        here = core.remembered(params, self.anchor)
        state = self.walked(here).scored(here)
        score = jax.tree.map(lambda old, new: (old + new) / 2, state.score, state.path)
        total = jax.tree.map(jnp.add, _of_the_largest(state.fisher), _of_the_largest(score))
        copies = {name: core.remembered(here, here) for name in ("start", "last_params")}
        nothing = {name: optax.tree.zeros_like(getattr(state, name)) for name in ("path", "last_grads")}
        return state._replace(anchor=here, importance=total, score=score, **copies, **nothing)


def rwalk(
    strength: ArrayLike, *, decay: ArrayLike = 0.9, damping: ArrayLike = 1e-3, every: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Riemannian walk: importance is a running Fisher diagonal plus a score of the path that was walked.

    While learning, F_i is a running mean, and over intervals of `every` steps a weight earns score for the loss that
    its movement removed, in units of how far the answers moved with it:

        F_i     = decay * F_i + (1 - decay) * gradient_i^2
        path_i += max(\sum_steps -gradient_i * step_i, 0) / (F_i / 2 * (movement_i)^2 + damping)

    To consolidate averages scores and anchors the weights, each of both measures in units of its largest entry:

        score      = (score + path) / 2
        importance = F / max(F) + score / max(score)
        penalty    = strength * \sum_i importance_i (params_i - anchor_i)^2

    Args:
      strength: how hard the weights are held (the paper's lambda); >= 0. No importance exceeds 2, so the pull is stable
        under SGD while strength * learning rate is below 1/2.
      decay: share of the old Fisher diagonal that stays at each step, in [0, 1).
      damping: > 0, keeps the division finite where a weight hardly moved (the paper's epsilon).
      every: steps of an interval (the paper's Delta t).

    Returns:
      A rule. Put it first in the chain: the gradient that it sees is then that of the loss alone.
      `neuroml.consolidate(opt_state, params)` needs no other word. Inside `optax.masked` the largest entry is that of
      the weights that it sees. It holds nine numbers a weight.

    Raises:
      UsageError: `every` below 1.

    Reference:
      Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", ECCV, sections 4.1 (EWC++) and 4.2.

    How ours differs: gradients are those of the batch's mean loss. Credit that is negative over an interval counts
    nothing. The score begins at zero and is halved at the first consolidation, too. The method's memory of examples is
    left out: put `neuroml.er` beside it.

    >>> params = {"w": jnp.array([1.0, 1.0])}
    >>> tx = optax.chain(rwalk(strength=1.0, decay=0.0, damping=2.0), optax.sgd(0.5))
    >>> steps, opt_state = tx.update({"w": jnp.array([2.0, 0.0])}, tx.init(params), params)
    >>> opt_state = core.consolidate(opt_state, optax.apply_updates(params, steps))
    >>> opt_state[0].fisher["w"].tolist(), opt_state[0].score["w"].tolist()       # half of 2 / (4 / 2 * 1 + 2)
    ([4.0, 0.0], [0.25, 0.0])
    >>> opt_state[0].importance["w"].tolist()
    [2.0, 0.0]
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    given = {"strength": strength, "decay": decay, "damping": damping}

    def init(params):
        copies = {name: core.remembered(params, params) for name in ("anchor", "start", "last_params")}
        sums = ("importance", "fisher", "score", "path", "credit")
        return RWalkState(
            **copies,
            last_grads=optax.tree.zeros_like(params),
            **{name: quadratic.like_params(params) for name in sums},
            count=jnp.int32(0),
            **{name: core.leaf(value) for name, value in given.items()},
        )

    def rwalk(updates, state, params, **_):
        state = core.live(state, **given).walked(params)
        over = state.count % every == 0
        state = jax.tree.map(lambda yes, no: jnp.where(over, yes, no), state.scored(params), state)
        mean = lambda f, u: state.decay * f + (1 - state.decay) * u.astype(f.dtype) ** 2
        kept = jax.tree.map(lambda u, old: u.astype(old.dtype), updates, state.last_grads)
        pulled = quadratic.pull(updates, params, state.anchor, state.importance, state.strength)
        fisher = averages.where_finite(jax.tree.map(mean, state.fisher, updates), state.fisher)
        seen = state._replace(fisher=fisher, last_params=params, last_grads=kept)
        return pulled, seen._replace(count=state.count + 1)

    return core.rule(init, rwalk)


def _of_the_largest(tree: Any) -> Any:
    """Returns the tree in units of its largest entry; zeros stay what they are."""
    largest = jnp.max(jnp.array([jnp.max(leaf) for leaf in jax.tree.leaves(tree)]))
    return jax.tree.map(lambda leaf: leaf / jnp.where(largest > 0, largest, 1), tree)
