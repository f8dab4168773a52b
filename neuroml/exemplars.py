"""iCaRL: answers by the nearest mean of stored examples, in features that are learnt with the old answers in mind."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import losses, memory
from neuroml.learner import Learner, LearnerState, StepInfo, Task
from neuroml.streams.stream import Batch

TINY = 1e-12


class ExemplarState(NamedTuple):
    """Beside the weights: the optimizer's state, the network that went before, and what is stored."""

    inner: Any
    teacher: Any  # like the weights
    memory: memory.MemoryState
    known: Bool[Array, " outputs"]  # classes that the teacher has learnt
    seen: Bool[Array, " outputs"]  # classes that have been learnt so far
    means: Float[Array, "outputs width"]  # of the stored examples' features, by class


def icarl(
    task: Task,
    transform: optax.GradientTransformation,
    example: Batch,
    outputs: int,
    *,
    capacity: int,
    replay_batch: int,
    strength: ArrayLike = 1.0,
    normalized: bool = True,
    layer: str = "head",
) -> Learner:
    r"""Makes the learner that classifies by the nearest mean of exemplars (iCaRL).

        loss    = bce(new examples) + strength * bce(stored examples of earlier tasks)
        bce     = mean over x and the classes o seen so far of the binary cross-entropy of logit_o with target_o
        target  = sigmoid(logit_o of the network before this task) for classes known by then, else 1[y = o]
        answer  = the class o whose mean feature is nearest;   feature = phi(x) / |phi(x)|,  phi: inputs of `layer`
                  (not `normalized`: phi(x))

    Args:
      task: the network.
      transform: the optimizer.
      example: one example, for shapes.
      outputs: number of classes.
      capacity: examples stored, an equal share for each class from the start.
      replay_batch: stored examples that are replayed at each step.
      strength: weight of the loss on stored examples: n_stored / n_new makes it that of one pass over both.
      normalized: scales features to length 1, as in the paper; Mammoth's code does not.
      layer: whose inputs are the features.

    Returns:
      A `Learner` that must be told where a task ends.

    Reference:
      Rebuffi, Kolesnikov, Sperl, Lampert 2017, "iCaRL: incremental classifier and representation learning", CVPR.

    How ours differs: exemplars are a random sample of each class, where the paper chooses them by herding; a class has
    its final share from the start; stored examples are replayed in batches of their own.
    """
    store = memory.class_balanced(capacity, outputs, lambda batch: batch.y)

    def features(params, batch):
        x = task.capture(params, batch)[1][layer]
        if not normalized:
            return x
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), TINY)

    def init(key):
        params, _ = task.network.init(key)
        none = jnp.zeros(outputs, bool)
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], example)
        width = jax.eval_shape(features, params, one).shape[1]
        stored = store.init(example)
        means = jnp.zeros((outputs, width))
        return LearnerState(params, ExemplarState(transform.init(params), params, stored, none, none, means))

    def loss(params, batch, state, seen):
        old = jax.nn.sigmoid(task.predict(state.teacher, batch))
        targets = jnp.where(state.known, old, jax.nn.one_hot(batch.y, outputs))
        logits = task.predict(params, batch)
        each = jnp.where(seen, optax.sigmoid_binary_cross_entropy(logits, targets), 0)
        return each.sum(-1).mean() / jnp.maximum(seen.sum(), 1), logits

    def step(state, batch, key):
        own, (for_replay, for_store) = state.opt_state, jax.random.split(key)
        seen = own.seen.at[batch.y].set(True)
        past = memory.older(own.memory)
        replayed = memory.sample(own.memory, replay_batch, for_replay, past)

        def objective(params):
            new, logits = loss(params, batch, own, seen)
            return new + jnp.where(past.any(), strength * loss(params, replayed, own, seen)[0], 0), logits

        (value, logits), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, inner = transform.update(grads, own.inner, state.params)
        kept = store.add(own.memory, batch, for_store)
        after = own._replace(inner=inner, memory=kept, seen=seen)
        right = losses.correct(losses.mask_outputs(logits, seen), batch.y).mean()
        return LearnerState(optax.apply_updates(state.params, updates), after), StepInfo(value, right)

    def consolidate(state, examples, key):
        del examples, key
        own = state.opt_state
        return state._replace(
            opt_state=own._replace(teacher=state.params, memory=memory.tick(own.memory), known=own.seen)
        )

    def settle(state):
        own = state.opt_state
        member = jax.nn.one_hot(own.memory.items.y, outputs) * memory.stored(own.memory)[:, None]
        total = member.T @ features(state.params, own.memory.items)
        return state._replace(opt_state=own._replace(means=total / jnp.maximum(member.sum(0), 1)[:, None]))

    def predict(state, batch):
        own = state.opt_state
        distance = jnp.sum((features(state.params, batch)[:, None] - own.means) ** 2, axis=-1)
        return losses.mask_outputs(-distance, batch.active & own.seen)

    return Learner(init, step, consolidate, predict, settle=settle)
