"""Neurogenesis: each new context bears neurons, which are silent in every context that is older than they are."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from neuroml.errors import UsageError
from neuroml.inferring import hidden_layers, inferring
from neuroml.learner import Learner, Task
from neuroml.streams.stream import Batch


def neurogenic(
    task: Task,
    transform: optax.GradientTransformation,
    example: Batch,
    *,
    contexts: int,
    alive: ArrayLike = 0.5,
    radius: ArrayLike = 0.3,
    by_lot: bool = False,
    activity: bool = False,
    consolidates: bool = False,
    pool: int = 1,
) -> Learner:
    r"""Makes the learner whose neurons answer in the context in which they were born, and in later ones only.

        answer_j  = relu(x @ kernel + bias)_j  where j < number(c), else 0        c: the context of the example
        number(c) = max(1, round(size * (alive + (1 - alive) * c / max(1, contexts - 1))))      c = 0, ..., contexts - 1

    Contexts are inferred, not told (`neuroml.inferring`): one that is new bears an equal share of the neurons that are
    left. What a network said in older contexts is the same to the bit after a birth, whatever the newborn learn, so
    nothing needs to be known of what they would have answered there. Behind `neuroml.condensate_projector`, whose cores
    hold nothing of neurons that were silent, their outgoing weights are free to learn. Neurons in reserve are silent
    everywhere and learn nothing; they are allocated, and charged, from the start.

    Args:
      task: the network, a `neuroml.mlp`, and the scale of its inputs.
      transform: the optimizer, with rules in it or without, but for those that need the word `importance` or ask the
        network themselves (`neuroml.lwf`, replay).
      example: one example, for its shape.
      contexts: how many there is room for, >= 1; with 1, nothing is ever born. If fewer come, the rest of the neurons
        stay in reserve; if more, those that are too many join the nearest.
      alive: share of each hidden layer's neurons that live from the start, above 0; 1 is inert: the network alone.
      radius: how far from all prototypes a new context nucleates, in root mean squares of a pixel in [0, 1].
      by_lot: the content-free control: as many neurons answer in each context, but drawn by lot for each anew, and in
        every run otherwise, so that who is silent where has nothing to do with age.
      activity: gives the rules the word `activity`, which projectors need.
      consolidates: the rules consolidate by themselves where a new context appears (`neuroml.inferring`).
      pool: prototypes hold sums of so many pixels that follow each other, for fewer bytes (`neuroml.inferring`).

    Raises:
      UsageError: a number out of range; at `init`, a network that is no `mlp` with hidden layers, or one with layer
        norm, by which neurons in reserve would reach the others.

    Reference:
      Rusu et al. 2016, "Progressive neural networks", arXiv:1606.04671 (columns that hear older ones and are not heard
      by them); Masse, Grant and Freedman 2018, "Alleviating catastrophic forgetting using context-dependent gating and
      synaptic stabilization", PNAS 115:E10467 (gates by lot).

    How ours differs: nobody names the context; neurons share one head and later neurons hear all older ones, which go
    on learning as far as the rules in `transform` let them.

    >>> import neuroml
    >>> one = Batch(jnp.zeros((2, 2, 1)), jnp.int32(0), jnp.int32(0), jnp.ones(3, bool))
    >>> agent = neurogenic(Task(neuroml.mlp((2, 2, 1), [8], 3), 1.0), optax.sgd(0.1), one, contexts=3)
    >>> state = agent.init(jax.random.key(0))
    >>> five = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), one)
    >>> for level in (0.1, 0.9):  # two contexts
    ...     state, _ = agent.step(state, five._replace(x=five.x + level), jax.random.key(1))
    >>> float(agent.report(state)["alive hidden_0"])
    6.0
    """
    if isinstance(alive, float | int) and not 0 < alive <= 1:
        raise UsageError(f"alive={alive} is a share of the neurons: above 0 and at most 1.")
    share = lambda context: alive + (1 - alive) * context / max(contexts - 1, 1)
    living = lambda size, context: jnp.maximum(jnp.round(size * share(context)), 1)

    def gates(params, places, context, lot):
        def after(number: int, answers: Array) -> Array:
            size = _size(params, number)
            order = _lots(lot, number, len(places), size)[context] if by_lot else jnp.arange(size)
            lives = order < living(size, context)[:, None]
            return jnp.where(jnp.tile(lives, answers.shape[-1] // size), answers, 0)  # CReLU's neurons answer twice

        return after

    told = {"contexts": contexts, "radius": radius, "activity": activity, "consolidates": consolidates}
    learner = inferring(task, transform, example, gates, pool=pool, **told)

    def init(key):
        state = learner.init(key)
        if "norms" in state.params:
            raise UsageError(
                "a layer norm counts neurons in reserve among the others, which births would then change: take a "
                "network without layer_norm."
            )
        return state

    def report(state):
        newest = jnp.maximum(state.opt_state.prototypes.alive.sum() - 1, 0)
        alive = {n: living(_size(state.params, n), newest) for n in hidden_layers(state.params)}
        counts = {} if by_lot else {f"alive hidden_{number}": count for number, count in alive.items()}
        return learner.report(state) | counts

    return learner._replace(init=init, report=report)


def _size(params: Any, number: int) -> int:
    """Returns how many neurons hidden layer `number` has."""
    return hidden_layers(params)[number]["kernel"].shape[-1]


def _lots(lot: Array, number: int, contexts: int, size: int) -> Int[Array, "contexts size"]:
    """Returns for each context an order of the neurons of hidden layer `number`."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(lot), number), contexts)
    return jax.vmap(lambda key: jax.random.permutation(key, size))(keys)
