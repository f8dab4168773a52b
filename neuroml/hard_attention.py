"""Hard attention to the task: each task learns which neurons it uses, and what those learnt is then held still."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from neuroml import losses, surgery, wiring
from neuroml.contexts import populations
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, StepInfo, Task, apart
from neuroml.streams.stream import Batch

LARGEST_EMBEDDING = 6.0  # keeps a gate from being shut for good
LARGEST_EXPONENT = 50.0  # keeps the hyperbolic cosine finite

Masks = dict[str, Float[Array, " size"]]


class AttentionState(NamedTuple):
    """Beside the weights: what gates them, and the state of the optimizer of both."""

    inner: Any
    embeddings: dict[str, Float[Array, "tasks size"]]
    used: Masks  # the largest mask of each neuron in the tasks that were learnt
    count: Int[Array, ""]  # steps in this task


def hard_attention(
    task: Task,
    transform: optax.GradientTransformation,
    tasks: int,
    *,
    ramp: int,
    sharpness: float = 400.0,
    thrift: ArrayLike = 0.75,
) -> Learner:
    r"""Makes the learner that gates each neuron by a mask learnt for each task (HAT).

        mask_t     = sigmoid(s embedding_t), of each neuron between layers; it multiplies what the neuron hands on
        s          rises from 1 / sharpness to sharpness over each `ramp` steps, and is `sharpness` when answering
        used       = max over the tasks learnt so far of mask at s = sharpness
        loss       = ce + thrift * sum mask (1 - used) / sum (1 - used)
        step of a weight that joins neurons i and j is multiplied by 1 - min(used_i, used_j)

    Inputs and outputs have no mask: a first-layer weight is held as its neuron is used. The head is not held: outputs
    belong to one task each, and their weights learn in that task only, as a task's embeddings do, whatever the
    optimizer (weight decay, say) makes of them. Arrays of no layer (a normalization's) never learn.

    Args:
      task: the network, whose wiring must name its neurons.
      transform: the optimizer of weights and embeddings; it starts anew in each task, so that moments of an earlier
        task move nothing.
      tasks: number of tasks.
      ramp: steps in which s rises, in the paper one pass; a task should be a multiple of it.
      sharpness: the largest s (the paper's s_max).
      thrift: weight of the share of free neurons that a task takes (the paper's c).

    Returns:
      A `Learner` that must be told the task at test time, and where one ends.

    Raises:
      UsageError: `ramp` below 1, a sharpness that is not above 1, or, at `init`, a network without wiring.

    Reference:
      Serra, Suris, Miron, Karatzoglou 2018, "Overcoming catastrophic forgetting with hard attention to the task", ICML.

    How ours differs: the optimizer's step is held, not the gradient, which is the same for plain SGD; biases are held
    like the weights that enter the neuron; the gradient's norm is not clipped.

    >>> import neuroml
    >>> task = Task(neuroml.mlp((2, 1, 1), [8], 2), 1.0)
    >>> learner = hard_attention(task, optax.adam(0.05), 2, ramp=10)
    >>> shown = Batch(jnp.eye(2).reshape(2, 2, 1, 1), jnp.arange(2), jnp.zeros(2, int), jnp.ones((2, 2), bool))
    >>> state, step = learner.init(jax.random.key(0)), jax.jit(learner.step)
    >>> for i in range(100):
    ...     state, _ = step(state, shown, jax.random.key(i))
    >>> state = learner.consolidate(state, shown, jax.random.key(0))
    >>> learner.predict(state, shown).argmax(1).tolist(), 0 < float(learner.report(state)["used hidden_0"]) < 1
    ([0, 1], True)
    """
    if ramp < 1 or sharpness <= 1:
        raise UsageError(f"ramp={ramp} must be at least 1, and sharpness={sharpness} above 1.")

    def init(key: PRNGKeyArray) -> LearnerState:
        params, _ = task.network.init(key)
        found = populations(task, params)
        draw = lambda number, size: jax.random.normal(jax.random.fold_in(apart(key), number), (tasks, size))
        embeddings = {name: draw(number, part.size) for number, (name, part) in enumerate(found.items())}
        used = {name: jnp.zeros(part.size) for name, part in found.items()}
        own = AttentionState(transform.init((params, embeddings)), embeddings, used, jnp.zeros((), jnp.int32))
        return LearnerState(params, own)

    def masks(embeddings: Any, number: Array, s: Array | float) -> Masks:
        return {name: jax.nn.sigmoid(s * rows[number]) for name, rows in embeddings.items()}

    def answer(params: Any, gates: Masks, batch: Batch) -> Array:
        return task.predict(surgery.dampen(populations(task, params), params, gates), batch)

    def step(state, batch, key):
        del key
        own, number = state.opt_state, batch.task[0]
        risen = own.count % ramp if ramp > 1 else jnp.ones(())  # a single step is already the last one
        s = 1 / sharpness + (sharpness - 1 / sharpness) * risen / max(ramp - 1, 1)

        def objective(learnt):
            gates = masks(learnt[1], number, s)
            logits = answer(learnt[0], gates, batch)
            loss = losses.cross_entropy(logits, batch.y)
            return loss + thrift * _taken(gates, own.used), (loss, logits)

        learnt = (state.params, own.embeddings)
        (_, (loss, logits)), (grads, slopes) = jax.value_and_grad(objective, has_aux=True)(learnt)
        free = surgery.between(populations(task, state.params), state.params, own.used)
        held = lambda tree: jax.tree.map(lambda leaf, used: (1 - used) * leaf, tree, free)
        slopes = jax.tree.map(lambda slope, at: slope * _steeper(at, s, sharpness), slopes, own.embeddings)
        updates: Any
        updates, inner = transform.update((grads, slopes), own.inner, learnt)
        moves = jax.tree.map(jnp.multiply, updates[0], _answering(task, state.params, batch))
        embeddings = optax.apply_updates(own.embeddings, _at(number, updates[1]))
        bounded = jax.tree.map(lambda rows: jnp.clip(rows, -LARGEST_EMBEDDING, LARGEST_EMBEDDING), embeddings)
        own = own._replace(inner=inner, embeddings=bounded, count=own.count + 1)
        right = losses.correct(logits, batch.y).mean()
        return LearnerState(optax.apply_updates(state.params, held(moves)), own), StepInfo(loss, right)

    def consolidate(state, examples, key):
        del key
        own = state.opt_state
        used = jax.tree.map(jnp.maximum, own.used, masks(own.embeddings, examples.task[0], sharpness))
        fresh = transform.init((state.params, own.embeddings))
        own = own._replace(inner=fresh, used=used, count=jnp.zeros_like(own.count))
        return state._replace(opt_state=own)

    def predict(state, batch):
        return answer(state.params, masks(state.opt_state.embeddings, batch.task[0], sharpness), batch)

    def report(state):
        return {f"used {name}": used.mean() for name, used in state.opt_state.used.items()}

    return Learner(init, step, consolidate, predict, report=report)


def _at(number: Array, shifts: Any) -> Any:
    """Returns steps of embeddings with those of other tasks at 0: an optimizer may move what has no slope."""
    return jax.tree.map(lambda rows: jnp.where(jnp.arange(len(rows))[:, None] == number, rows, 0), shifts)


def _answering(task: Task, params: Any, batch: Batch) -> Any:
    """Returns a tree like the weights: 0 where they make an output that is switched off, else 1."""
    wire: Any = task.network.wiring  # never None: `populations` has refused that
    names, active = wire(params), batch.active.any(0)
    axes = jax.tree.leaves(names, is_leaf=wiring.is_names)
    read = {one[-2] for one in axes if len(one) > 1}
    sizes = wiring.populations(names, params)
    outputs = [name for name, size in sizes.items() if name not in read and size == active.size]
    return wiring.spread({name: active for name in outputs}, names, params)


def _taken(gates: Masks, used: Masks) -> Float[Array, ""]:
    """Returns which share of the neurons that are free the gates open."""
    total = lambda parts: sum(jnp.sum(part) for part in parts)
    free = {name: 1 - part for name, part in used.items()}
    return total(gates[name] * free[name] for name in gates) / jnp.maximum(total(free.values()), 1e-6)


def _steeper(embedding: Array, s: Array, sharpness: float) -> Array:
    """Returns what makes the slope at a sharp gate that of a gate with s = 1, times `sharpness`."""
    sharp = jnp.cosh(jnp.clip(s * embedding, -LARGEST_EXPONENT, LARGEST_EXPONENT)) + 1
    return sharpness * sharp / (s * (jnp.cosh(embedding) + 1))
