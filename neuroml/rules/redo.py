"""ReDo: neurons that have fallen silent beside the rest of their layer are recycled, now and then."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from neuroml import core, recycling, units


def redo(
    wiring: Any,
    fresh: Callable[[Array], Any],
    *,
    threshold: ArrayLike = 0.1,
    every: int = 1000,
    choose: str = "utility",
    heals: str = "silent",
) -> optax.GradientTransformationExtraArgs:
    r"""ReDo: replaces the neurons that hardly answer, compared with the mean neuron of their layer.

        score_j = mean |h_j| / mean_i mean |h_i|         over the examples since the last check; i: the layer's neurons
        every so many updates: replace the neurons with score_j < threshold

    A replaced neuron gets fresh incoming weights and bias, and outgoing weights of zero; where a normalization over
    neurons has names in the wiring, its vectors are fresh there, too.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons.
      threshold: of the score, whose mean is 1, >= 0; 0 is inert.
      every: updates between two checks.
      choose: "utility", those below the threshold; or "random", the content-free control: as many, drawn by lot.
      heals: "silent", all below the threshold; or "destroyed", those of them whose incoming or outgoing weights are
        all zero.

    Returns:
      A rule that needs the words `activity` and `key`. Last in the chain; with momentum or Adam, as
      `neuroml.renewal(optax.adam(1e-3), redo(wiring, ...), wiring)`.

    Raises:
      UsageError: no population between two layers, a layer without names, an activity that lacks one, `every` below 1,
        an unknown choice, unknown neurons to heal.

    Reference:
      Sokar et al. 2023, ICML, "The dormant neuron phenomenon in deep reinforcement learning", algorithm 1.

    How ours differs: the score is of all examples since the last check, not of one batch; neurons *at* the threshold
    are spared, so that 0 is inert (a tiny threshold replaces what the paper's 0 does, the neurons that never answer).

    >>> import jax, jax.numpy as jnp
    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = redo(names, lambda key: params, every=1)
    >>> words = {"activity": {"a": jnp.ones((1, 2)), "b": jnp.array([[5.0, 0.1, 4.0]])}, "key": jax.random.key(0)}
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    >>> step["b"]["kernel"].ravel().tolist(), int(state.births)                            # the second loses its voice
    ([0.0, -1.0, 0.0], 1)
    """
    recycling.check_settings(every, choose, heals)

    def init(params):
        return recycling.begin("redo", wiring, params, threshold)

    def redo(updates, state, params, *, activity, key, **_):
        state = core.live(state, threshold=threshold)
        found = units.find(wiring, params)
        signal = {name: jnp.abs(rows).mean(0) for name, rows in units.outputs(found, activity).items()}
        how = {"every": every, "choose": choose, "heals": heals, "wiring": wiring}
        return recycling.step(found, updates, state, params, signal, fresh, key, **how)

    return core.rule(init, redo)
