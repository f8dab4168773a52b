"""A learner whose inputs are normalized as they come: sensory adaptation in front of any method."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from neuroml.adaptation import Adaptation, AdaptationState
from neuroml.learner import Learner, LearnerState, around, inner_state, inside
from neuroml.streams.stream import Batch


class ConditionedState(NamedTuple):
    """Beside the weights: the state of what trains them, and what is known of each input."""

    inner: Any
    inputs: AdaptationState


def conditioned(inner: Learner, norm: Adaptation, example: Batch, scale: float) -> Learner:
    """Makes a learner that normalizes its inputs by their running statistics, and hands them to another.

    The statistics learn of a batch before it is answered, in training only; nothing at test time changes them.

    Args:
      inner: any learner; it takes its inputs as they come (its task has scale 1).
      norm: from `neuroml.adaptation.make`.
      example: one example, for its shape.
      scale: by which inputs are divided first: the largest value of a pixel.

    Returns:
      A `Learner` that does all that `inner` does.
    """

    def seen(inputs: AdaptationState, batch: Batch) -> Batch:
        return batch._replace(x=norm.apply(inputs, batch.x / scale))

    def init(key):
        state = inner.init(key)
        return LearnerState(state.params, ConditionedState(state.opt_state, norm.init(jnp.shape(example.x))))

    def step(state, batch, key):
        inputs = norm.update(state.opt_state.inputs, batch.x / scale)
        after, info = inner.step(inner_state(state), seen(inputs, batch), key)
        return LearnerState(after.params, ConditionedState(after.opt_state, inputs)), info

    def prepare(state, examples, key):
        inputs = norm.update(state.opt_state.inputs, examples.x / scale)
        state = state._replace(opt_state=state.opt_state._replace(inputs=inputs))
        return inside(inner.prepare)(state, seen(inputs, examples), key)

    return around(inner, init, step, shown=lambda state, batch: seen(state.opt_state.inputs, batch), prepare=prepare)
