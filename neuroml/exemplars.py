"""Answers by the nearest mean of stored examples, for any learner that stores some; and iCaRL, which does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from neuroml import losses, memory, recall
from neuroml.learner import Learner, LearnerState, StepInfo, Task, around, inner_state, inside, make_learner
from neuroml.streams.stream import Batch


class NearestState(NamedTuple):
    """Beside the weights: the state of whatever trains them, and what answers are measured against."""

    inner: Any
    means: Float[Array, "outputs width"]  # of the stored examples' features, by class
    met: Bool[Array, " outputs"]  # classes of which there are any


def nearest_mean(
    inner: Learner,
    represent: Callable[[Any, Batch], Array],
    exemplars: Callable[[Any], memory.MemoryState],
    example: Batch,
    outputs: int,
) -> Learner:
    r"""Makes a learner that trains `inner`, and answers with the class whose stored examples are nearest on average.

        mean_c   = mean of represent(params, x) over the stored examples x of class c, taken by `settle`
        answer_c = -|represent(params, x) - mean_c|^2;  classes of which nothing is stored are switched off

    Args:
      inner: what trains the weights, and stores examples.
      represent: `(params, batch) -> [n, features]`: `neuroml.recall.of_trunk(task, "head")`, or `recall.directions`
        of it, which is iCaRL's.
      exemplars: finds the memory in the state of `inner`'s optimizer: `lambda opt_state: opt_state[0].memory` where
        `neuroml.er` is first in a chain. (With a strength of 0 it stores examples and changes nothing.) Its items are
        like `example`.
      example: one example without its batch axis.
      outputs: number of classes.

    Returns:
      A `Learner`; the loss and accuracy that its steps report are those of `inner`.

    Reference:
      Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning", CVPR, algorithm 1.

    How ours differs: which examples are stored is the memory's choice, not herding; the mean of directions is not
    scaled to length 1 again.
    """

    def init(key):
        state = inner.init(key)
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], example)
        width = jax.eval_shape(represent, state.params, one).shape[1]
        means, met = jnp.zeros((outputs, width)), jnp.zeros(outputs, bool)
        return LearnerState(state.params, NearestState(state.opt_state, means, met))

    def settle(state):
        state = inside(inner.settle)(state)
        kept = exemplars(state.opt_state.inner)
        member = jax.nn.one_hot(kept.items.y, outputs) * memory.stored(kept)[:, None]
        number = member.sum(0)
        means = member.T @ represent(state.params, kept.items) / jnp.maximum(number, 1)[:, None]
        return state._replace(opt_state=state.opt_state._replace(means=means, met=number > 0))

    def predict(state, batch):
        distance = jnp.sum((represent(state.params, batch)[:, None] - state.opt_state.means) ** 2, axis=-1)
        return losses.mask_outputs(-distance, batch.active & state.opt_state.met)

    def step(state, batch, key):
        after, info = inner.step(inner_state(state), batch, key)
        return LearnerState(after.params, state.opt_state._replace(inner=after.opt_state)), info

    return around(inner, init, step, predict=predict, settle=settle)


class ExemplarState(NamedTuple):
    """Beside the weights: the optimizer's state, the network that went before, and what is stored."""

    inner: Any
    teacher: Any  # like the weights
    memory: memory.MemoryState
    known: Bool[Array, " outputs"]  # classes that the teacher has learnt
    seen: Bool[Array, " outputs"]  # classes that have been learnt so far


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
    herding: bool = True,
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
      herding: where a task ends, exemplars are chosen among the examples that `consolidate` is given (`herd`); until
        then, and without it, they are a random sample of their class.
      layer: whose inputs are the features, by its path, such as "layers/1".

    Returns:
      A `Learner` that must be told where a task ends.

    Raises:
      UsageError: a capacity that is no multiple of `outputs`; at `init`, the network has no such layer.

    Reference:
      Rebuffi, Kolesnikov, Sperl, Lampert 2017, "iCaRL: incremental classifier and representation learning", CVPR.

    How ours differs: herding chooses among the examples that it is given, which need not be all; a class has its final
    share from the start; stored examples are replayed in batches of their own.
    """
    store = memory.class_balanced(capacity, outputs, lambda batch: batch.y)
    trunk = recall.of_trunk(task, layer)
    represent = recall.directions(trunk) if normalized else trunk

    pupil = make_learner(task, transform)
    copied = lambda tree: jax.tree.map(jnp.copy, tree)  # a loop may donate both

    def init(key):
        params, inner = pupil.init(key)
        none = jnp.zeros(outputs, bool)
        own = ExemplarState(inner, copied(params), store.init(example), none, jnp.copy(none))
        return LearnerState(params, own)

    def loss(params, batch, state, seen):
        # Heads of earlier tasks are asked, too, although they are switched off for the examples of this one.
        every = batch._replace(active=jnp.ones_like(batch.active))
        old = jax.nn.sigmoid(task.predict(state.teacher, every))
        targets = jnp.where(state.known, old, jax.nn.one_hot(batch.y, outputs))
        logits = task.predict(params, every)
        each = jnp.where(seen, optax.sigmoid_binary_cross_entropy(logits, targets), 0)
        return each.sum(-1).mean() / jnp.maximum(seen.sum(), 1), logits

    def step(state, batch, key):
        own, (for_replay, for_store) = state.opt_state, jax.random.split(key)
        seen = own.seen | losses.classes_in(batch.y, outputs)
        past = memory.older(own.memory)
        replayed = memory.sample(own.memory, replay_batch, for_replay, past)

        def objective(params):
            new, logits = loss(params, batch, own, seen)
            return new + jnp.where(past.any(), strength * loss(params, replayed, own, seen)[0], 0), logits

        (value, logits), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, inner = transform.update(grads, own.inner, state.params)
        kept = store.add(own.memory, batch, for_store)
        after = own._replace(inner=inner, memory=kept, seen=seen)
        right = losses.correct(losses.mask_outputs(logits, seen & batch.active), batch.y).mean()
        return LearnerState(optax.apply_updates(state.params, updates), after), StepInfo(value, right)

    def chosen(state, examples):
        """Returns the memory with the examples of each class whose mean feature is nearest that of all its examples."""
        features, kept = represent(state.params, examples), state.opt_state.memory
        quota = capacity // outputs
        fine = memory.finite(examples)
        pick = lambda label: herd(features, fine & (examples.y == label), quota)
        which = jax.lax.map(pick, jnp.arange(outputs))  # [outputs, quota]
        slots = jnp.arange(capacity).reshape(outputs, quota)
        slots = jnp.where(which < examples.y.size, slots, capacity)
        return memory.write(kept, slots.ravel(), jax.tree.map(lambda leaf: leaf[which.ravel()], examples))

    def consolidate(state, examples, key):
        del key
        own = state.opt_state
        kept = {"memory": memory.tick(chosen(state, examples) if herding else own.memory), "known": jnp.copy(own.seen)}
        return state._replace(opt_state=own._replace(teacher=copied(state.params), **kept))

    # These answers are the head's; `nearest_mean` gives others.
    predict = lambda state, batch: losses.mask_outputs(task.predict(state.params, batch), state.opt_state.seen)
    exemplars = around(pupil, init, step, consolidate=consolidate, predict=predict)
    return nearest_mean(exemplars, represent, lambda own: own.memory, example, outputs)


def herd(features: Float[Array, "n width"], member: Bool[Array, " n"], count: int) -> Int[Array, " count"]:
    r"""Returns which examples to keep so that their mean feature is that of all, the most telling ones first.

        chosen_k = argmin_i | mean - (sum of the features of those chosen before + features_i) / k |

    Args:
      features: of all examples.
      member: which of them may be chosen; their mean counts.
      count: how many to choose.

    Returns:
      Indices; n where no member is left.

    Reference: Rebuffi et al. 2017, algorithm 4.

    >>> rows = jnp.array([[0.0], [1.0], [5.0], [2.2]])
    >>> herd(rows, jnp.array([True, True, False, True]), 4).tolist()     # mean 1.07
    [1, 3, 0, 4]
    """
    mean = jnp.where(member[:, None], features, 0).sum(0) / jnp.maximum(member.sum(), 1)

    def choose(carry, k):
        left, total = carry
        apart = jnp.where(left, jnp.linalg.norm(mean - (total + features) / k, axis=1), jnp.inf)
        best = jnp.argmin(apart)
        index = jnp.where(left.any(), best, left.size)
        return (left.at[best].set(False), total + features[best]), index

    return jax.lax.scan(choose, (member, jnp.zeros_like(mean)), 1.0 + jnp.arange(count))[1]
