"""ReGraMa: neurons that hardly learn any more beside the rest of their layer are replaced, now and then."""

from collections.abc import Callable
from typing import Any

import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from neuroml import core, recycling, units


def regrama(
    wiring: Any,
    fresh: Callable[[Array], Any],
    *,
    threshold: ArrayLike = 0.01,
    every: int = 1000,
    choose: str = "utility",
) -> optax.GradientTransformationExtraArgs:
    r"""ReGraMa: replaces the neurons whose incoming weights hardly learn, compared with the mean neuron of their layer.

        score_j = mean |gradient of w_in_j| / mean_i mean |gradient of w_in_i|   since the last check; i: over the layer
        every so many updates: replace the neurons with score_j < threshold

    A replaced neuron gets fresh incoming weights and bias, and outgoing weights of zero. Unlike an answer, a gradient
    tells a neuron that is saturated, or that nobody reads, from one that learns.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons.
      threshold: of the score, whose mean is 1, >= 0; 0 is inert.
      every: updates between two checks.
      choose: "utility", those below the threshold; or "random", the content-free control: as many, drawn by lot.

    Returns:
      A rule that needs the word `key`. Last in the chain, `optax.chain(optax.sgd(0.01), regrama(wiring, ...))`; with
      momentum or Adam, as `neuroml.renewal(optax.adam(1e-3), regrama(wiring, ...), wiring)`.

    Raises:
      UsageError: no population between two layers, a layer without names, `every` below 1, an unknown choice.

    Reference:
      Liu et al. 2025, "Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement learning"
      (GraMa, ReGraMa), with the score of github.com/LucMc/continual-learning.

    How ours differs: only `neuroml.renewal` hands on the gradients, as the word `gradients`. In a plain chain the rule
    sees the optimizer's updates in their place. With SGD they are proportional, and a relative score does not know the
    factor. Adam makes the steps of all weights alike, so that only neurons without any gradient fall below the
    threshold: there, take `neuroml.renewal`. The score is of all updates since the last check, not of the last one;
    neurons *at* the threshold are spared, so that 0 is inert. A new neuron's bias is drawn, as its weights are; that
    code sets it to 0.

    >>> import jax, jax.numpy as jnp
    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = regrama(names, lambda key: params, every=1)
    >>> moves = {"a": {"kernel": jnp.array([[0.2, 0.0, 0.3], [0.1, 0.0, 0.2]])}, "b": {"kernel": jnp.zeros((3, 1))}}
    >>> step, state = tx.update(moves, tx.init(params), params, key=jax.random.key(0))
    >>> step["b"]["kernel"].ravel().tolist(), int(state.births)                                 # the second stood still
    ([0.0, -1.0, 0.0], 1)
    """
    recycling.check_settings(every, choose)

    def init(params):
        return recycling.begin("regrama", wiring, params, threshold)

    def regrama(updates, state, params, *, key, gradients=None, **_):
        state = core.live(state, threshold=threshold)
        found = units.find(wiring, params)
        learnt = updates if gradients is None else gradients
        signal = units.incoming(found, learnt)  # all neurons of a layer have as many inputs: a sum does for a mean
        how = {"every": every, "choose": choose, "wiring": wiring}
        return recycling.step(found, updates, state, params, signal, fresh, key, **how)

    return core.rule(init, regrama)
