"""A learner whose inputs are normalized as they come: sensory adaptation in front of any method."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from neuroml.adaptation import Adaptation, AdaptationState
from neuroml.learner import Learner, LearnerState
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

    def within(change: Callable[[LearnerState], LearnerState], state: LearnerState) -> LearnerState:
        changed = change(_inner(state))
        return LearnerState(changed.params, state.opt_state._replace(inner=changed.opt_state))

    def at(function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `function(state, batch, ...)` with the inner state and normalized inputs."""
        return lambda state, batch, *rest: function(_inner(state), seen(state.opt_state.inputs, batch), *rest)

    def init(key):
        state = inner.init(key)
        return LearnerState(state.params, ConditionedState(state.opt_state, norm.init(jnp.shape(example.x))))

    def step(state, batch, key):
        inputs = norm.update(state.opt_state.inputs, batch.x / scale)
        after, info = inner.step(_inner(state), seen(inputs, batch), key)
        return LearnerState(after.params, ConditionedState(after.opt_state, inputs)), info

    def prepare(state, examples, key):
        inputs = norm.update(state.opt_state.inputs, examples.x / scale)
        state = state._replace(opt_state=state.opt_state._replace(inputs=inputs))
        return within(lambda one: inner.prepare(one, seen(inputs, examples), key), state)

    def consolidate(state, examples, key):
        return within(lambda one: inner.consolidate(one, seen(state.opt_state.inputs, examples), key), state)

    return inner._replace(
        init=init,
        step=step,
        consolidate=consolidate,
        destroy=lambda state, gone: within(lambda one: inner.destroy(one, gone), state),
        predict=at(inner.predict),
        prepare=prepare,
        settle=lambda state: within(inner.settle, state),
        report=lambda state: inner.report(_inner(state)),
        weights=lambda state: inner.weights(_inner(state)),
        inspect=at(inner.inspect),
        context=None if inner.context is None else at(inner.context),
    )


def _inner(state: LearnerState) -> LearnerState:
    return LearnerState(state.params, state.opt_state.inner)
