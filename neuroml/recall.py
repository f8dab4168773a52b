"""Learners with a condensate memory: on fixed features, or on what the trunk of a network makes of its inputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuroml import losses, projection
from neuroml.condensate import Condensate, CondensateState
from neuroml.errors import unknown
from neuroml.features import FeatureMap
from neuroml.learner import Learner, LearnerState, StepInfo, Task, around, inner_state, inside
from neuroml.streams.stream import Batch


class RecallState(NamedTuple):
    """Beside the weights: the state of whatever trains them, and the memory."""

    inner: Any
    memory: CondensateState


def recall(
    inner: Learner,
    represent: Callable[[Any, Batch], Array],
    memory: Condensate,
    outputs: int,
    *,
    keys: Callable[[Any, Batch], Array] | None = None,
    contexts: int = 0,
    tension: float | int = 0,
) -> Learner:
    """Makes a learner that trains `inner` and answers from a memory.

    Each batch is first answered, then absorbed as `inner` represents it at that moment, then learnt by `inner`.

    Args:
      inner: what trains the weights: a network under a projector, or `fixed` features.
      represent: `(params, batch) -> [n, features]`, what the memory is told.
      memory: from `neuroml.condensate.make`.
      outputs: number of classes.
      keys: `(params, batch) -> [n, keys]`, where slots look; default: the representation.
      contexts: number of slots, if each is a context whose inference is to be measured.
      tension: the pressure, in examples, with which slots merge whenever the memory consolidates; 0 merges none.

    Returns:
      A `Learner`; the loss it reports is the mean squared error of the memory's answer.
    """
    keys = represent if keys is None else keys

    def seen(params, batch):
        x = represent(params, batch)
        return x, x if keys is represent else keys(params, batch)

    def predict(state, batch):
        return losses.mask_outputs(memory.read(state.opt_state.memory, *seen(state.params, batch)), batch.active)

    def init(key):
        state = inner.init(key)
        return LearnerState(state.params, RecallState(state.opt_state, memory.init()))

    def step(state, batch, key):
        targets, (x, places) = jax.nn.one_hot(batch.y, outputs), seen(state.params, batch)
        answer = memory.read(state.opt_state.memory, x, places)
        kept = memory.absorb(state.opt_state.memory, x, targets, places)
        state = inside(lambda one: inner.step(one, batch, key)[0])(state)
        error = jnp.where(batch.active, answer - targets, 0)
        right = losses.correct(losses.mask_outputs(answer, batch.active), batch.y)
        return state._replace(opt_state=state.opt_state._replace(memory=kept)), StepInfo(
            (error**2).mean(), right.mean()
        )

    def settle(state):
        kept = state.opt_state.memory
        kept = memory.coarsen(kept, tension) if tension else memory.consolidate(kept)
        return state._replace(opt_state=state.opt_state._replace(memory=kept))

    def infer(state, batch):
        return memory.context(state.opt_state.memory, keys(state.params, batch))

    return around(
        inner,
        init,
        step,
        predict=predict,
        settle=settle,
        report=lambda state: {**inner.report(inner_state(state)), **_report(state.opt_state.memory)},
        context=infer if contexts else None,
        contexts=contexts,
    )


def fixed(features: FeatureMap, example: Batch, scale: float) -> Learner:
    """Makes the learner that fits features to its first examples and never changes them again."""

    def images(x: Array) -> Float[Array, "n height width channels"]:
        return x / scale

    def init(key):
        shape = jax.ShapeDtypeStruct((2, *example.x.shape), jnp.float32)
        blank = jax.eval_shape(lambda x: features.fit(jax.random.key(0), x), shape)
        del key
        return LearnerState(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank), ())

    def prepare(state, examples, key):
        return state._replace(params=features.fit(key, images(examples.x)))

    def step(state, batch, key):
        del batch, key
        return state, StepInfo(jnp.float32(0), jnp.float32(0))

    silent = lambda state, batch: jnp.zeros(batch.active.shape)
    return Learner(init, step, consolidate=lambda state, *_: state, predict=silent, prepare=prepare)


def of_features(features: FeatureMap, scale: float) -> Callable[[Any, Batch], Array]:
    """Returns `represent` for fixed features."""
    return lambda params, batch: features.apply(params, batch.x / scale)


def of_trunk(task: Task, layer: str) -> Callable[[Any, Batch], Array]:
    """Returns `represent` for what enters a layer of the network, by its path, such as "head" or "layers/1".

    Raises:
      UsageError: when asked, the network has no such layer.
    """

    def represent(params, batch):
        inputs = projection.by_home(task.capture(params, batch)[1])
        if layer not in inputs:
            raise unknown("layer", layer, inputs)
        return inputs[layer]

    return represent


def directions(represent: Callable[[Any, Batch], Array]) -> Callable[[Any, Batch], Array]:
    """Returns the keys that are the representation scaled to length 1: distances then need no unit."""

    def keys(params, batch):
        x = represent(params, batch)
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    return keys


def _report(memory: CondensateState) -> dict[str, Array]:
    """Returns the number of slots, the mass of the largest, and how much of all mass is of its slot's main class."""
    slots = memory.slots
    purity = slots.values.max(1).sum() / jnp.maximum(slots.mass.sum(), 1)
    return {"refused": memory.refused, "slots": slots.alive.sum(), "largest slot": slots.mass.max(), "purity": purity}
