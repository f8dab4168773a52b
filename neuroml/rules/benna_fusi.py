"""Benna-Fusi cascade: every synapse is a row of beakers, each larger and slower than the one before."""

from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

from neuroml import core
from neuroml.errors import UsageError


class BennaFusiState(NamedTuple):
    """State of `benna_fusi`."""

    beakers: tuple[Any, ...]  # trees like params: u_2 to u_depth; u_1 is the weight itself
    strength: jax.Array  # ()

    hyperparameters = ("strength",)
    anchors = ("beakers",)


def benna_fusi(strength: ArrayLike = 1.0, *, depth: int = 4) -> optax.GradientTransformationExtraArgs:
    r"""Benna-Fusi cascade: what a weight learns sinks into ever slower variables, and these pull it back.

        u_1 <- u_1 + step + strength * flow_1        u_k <- u_k + strength * flow_k
        flow_k = 2^(1-k) * (2^-(k+1) * (u_(k-1) - u_k) + 2^-(k+2) * (u_(k+1) - u_k))

    for k = 1 .. depth, with u_1 the weight, no beaker before it and none behind the last: beaker k holds 2^(k-1) times
    as much as the first, and the tube to the next is half as wide as the one before. All begin where the weight is.

    Args:
      strength: how much flows at an update; 0 is inert; up to 4 the first beaker does not overshoot.
      depth: number of beakers, >= 2; one more remembers four times as long.

    Returns:
      A rule that needs no words and no boundaries. Put it last in the chain: what is applied flows.

    Raises:
      UsageError: a depth below 2.

    Reference:
      Benna and Fusi 2016, "Computational principles of synaptic memory consolidation", Nature Neuroscience 19:1697; in
      networks: Kaplanis, Shanahan, Clopath 2018, "Continual reinforcement learning with complex synapses", ICML.

    How ours differs: the last beaker does not leak; Kaplanis et al. scale flows by a time step of their own and
    begin with empty beakers that fill.

    >>> import jax.numpy as jnp
    >>> tx = benna_fusi(strength=1.0, depth=2)
    >>> w = jnp.float32(0.0)
    >>> step, state = tx.update(jnp.float32(1.0), tx.init(w), w)     # the first step is taken whole
    >>> back, _ = tx.update(jnp.float32(0.0), state, w + step)       # then an eighth of it flows on
    >>> float(step), float(back)
    (1.0, -0.125)
    """
    if depth < 2:
        raise UsageError(f"depth={depth}: a cascade needs at least 2 beakers.")

    def init(params):
        return BennaFusiState(tuple(core.remembered(params, params) for _ in range(depth - 1)), core.leaf(strength))

    def benna_fusi(updates, state, params, **_):
        state = core.live(state, strength=strength)
        row = (core.visible(params, updates), *state.beakers)
        flows = [jax.tree.map(lambda *at, k=k: _flow(k, at, state.strength), *row) for k in range(depth)]
        add = lambda tree, flow: jax.tree.map(lambda u, f: (u + f).astype(u.dtype), tree, flow)
        beakers = tuple(add(tree, flow) for tree, flow in zip(state.beakers, flows[1:], strict=True))
        return add(updates, flows[0]), state._replace(beakers=beakers)

    return core.rule(init, benna_fusi)


def _flow(k: int, row: tuple[jax.Array, ...], strength: jax.Array) -> jax.Array:
    """Returns what beaker k, counted from 0, gains."""
    before = 2.0 ** -(k + 2) * (row[k - 1] - row[k]) if k else 0.0
    behind = 2.0 ** -(k + 3) * (row[k + 1] - row[k]) if k + 1 < len(row) else 0.0
    return strength * 2.0**-k * (before + behind)
