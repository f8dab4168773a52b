"""PackNet: each task is pruned to the weights that it needs, they are frozen, and the rest is free for the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from neuroml import losses, projection
from neuroml.errors import UsageError, unknown
from neuroml.learner import Learner, LearnerState, StepInfo, Task


class PackState(NamedTuple):
    """Beside the weights: the optimizer's state, and whose each weight is."""

    inner: Any
    owner: Any  # like the weights, int32: 0 free, t + 1 of task t
    count: Int[Array, ""]  # steps in this task
    current: Int[Array, ""]  # tasks consolidated so far


def packnet(
    task: Task,
    transform: optax.GradientTransformation,
    *,
    dense_steps: int,
    pruned: float = 0.5,
    head: str = "head",
) -> Learner:
    r"""Makes the learner that packs one task after the other into the weights that the earlier ones left free.

        for `dense_steps` steps:  every free weight learns, beside the frozen ones of earlier tasks
        then:  of the free weights of each kernel, the share `pruned` that is smallest in magnitude is set to zero and
               stays free; the others are the task's own, go on learning, and are frozen when the task ends
        answers of task t:  the weights that belong to tasks 0..t, the others zero

    Args:
      task: the network. Biases learn in the first task and are frozen then; the head, where each task has outputs of
        its own, is neither pruned nor frozen.
      transform: the optimizer; it starts anew in each task, so that moments of an earlier one move nothing.
      dense_steps: steps of a task before it is pruned; the rest of its steps retrain. A task that ends earlier is
        pruned then.
      pruned: in (0, 1).
      head: the layer that is left alone.

    Returns:
      A `Learner` that must be told the task at test time, and where one ends.

    Raises:
      UsageError: a share out of range, `dense_steps` below 1, or, at `init`, a `head` that is no layer, or a network
        without kernels beside it.

    Reference:
      Mallya and Lazebnik 2018, "PackNet: adding multiple tasks to a single network by iterative pruning", CVPR.

    How ours differs: learning and retraining are steps of one stream, with one optimizer, not passes of their own.

    >>> import neuroml
    >>> from neuroml.streams.stream import Batch
    >>> task = Task(neuroml.mlp((2, 1, 1), [8], 2), 1.0)
    >>> learner = packnet(task, optax.adam(0.05), dense_steps=30)
    >>> shown = Batch(jnp.eye(2).reshape(2, 2, 1, 1), jnp.arange(2), jnp.zeros(2, int), jnp.ones((2, 2), bool))
    >>> state, step = learner.init(jax.random.key(0)), jax.jit(learner.step)
    >>> for i in range(50):
    ...     state, _ = step(state, shown, jax.random.key(i))
    >>> learner.predict(state, shown).argmax(1).tolist(), float(learner.report(state)["free weights"])
    ([0, 1], 0.5)
    """
    if dense_steps < 1 or not 0 < pruned < 1:
        raise UsageError(f"dense_steps={dense_steps} must be at least 1, and pruned={pruned} between 0 and 1.")

    def split(params: Any) -> tuple[set[int], set[int]]:
        """Returns the places of kernels and of biases among the leaves, those of the head left out."""
        layers = projection.layers(params)
        if head not in layers:
            raise unknown("layer as `head`", head, layers)
        packed = {layer.kernel for home, layer in layers.items() if home != head}
        if not packed:
            raise UsageError(f"packnet prunes kernels, and the network has none beside its {head!r}.")
        return packed, set(range(len(jax.tree.leaves(params)))) - packed - set(layers[head][:2])

    def each(change: Any, params: Any, *trees: Any) -> Any:
        """Maps `change(kind, leaves...)` over all leaves, with "kernel", "bias" or "head" for its kind."""
        packed, biases = split(params)
        kind = lambda place: "kernel" if place in packed else "bias" if place in biases else "head"
        rows = zip(jax.tree.leaves(params), *(jax.tree.leaves(tree) for tree in trees), strict=True)
        return jax.tree.structure(params).unflatten([change(kind(i), *row) for i, row in enumerate(rows)])

    def init(key):
        params, _ = task.network.init(key)
        owner = each(lambda kind, leaf: jnp.zeros(leaf.shape if kind == "kernel" else (), jnp.int32), params)
        zero = jnp.zeros((), jnp.int32)
        return LearnerState(params, PackState(transform.init(params), owner, zero, jnp.copy(zero)))

    def prune(state: LearnerState) -> LearnerState:
        own = state.opt_state
        claim = lambda kind, w, o: jnp.where(_kept(w, o == 0, pruned), own.current + 1, o) if kind == "kernel" else o
        owner = each(claim, state.params, own.owner)
        cut = lambda kind, w, o: jnp.where(o == 0, 0, w).astype(w.dtype) if kind == "kernel" else w
        return LearnerState(each(cut, state.params, owner), own._replace(owner=owner))

    def learns(kind: str, owner: Array, own: PackState) -> Array:
        if kind == "kernel":
            dense = own.count < dense_steps
            return (owner == own.current + 1) | (dense & (owner == 0))
        return (own.current == 0) | (kind == "head")

    def step(state, batch, key):
        del key
        due = state.opt_state.count == dense_steps
        state = jax.lax.cond(due, prune, lambda same: same, state)
        own = state.opt_state

        def objective(params):
            logits = task.predict(params, batch)
            return losses.cross_entropy(logits, batch.y), logits

        (loss, logits), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        masked = lambda kind, _, leaf, owner: jnp.where(learns(kind, owner, own), leaf, 0)
        free = lambda tree: each(masked, state.params, tree, own.owner)
        updates, inner = transform.update(free(grads), own.inner, state.params)
        own = own._replace(inner=inner, count=own.count + 1)
        right = losses.correct(logits, batch.y).mean()
        return LearnerState(optax.apply_updates(state.params, free(updates)), own), StepInfo(loss, right)

    def consolidate(state, examples, key):
        del examples, key
        late = state.opt_state.count <= dense_steps
        state = jax.lax.cond(late, prune, lambda same: same, state)
        own = state.opt_state
        fresh = {"inner": transform.init(state.params), "count": jnp.zeros_like(own.count)}
        return state._replace(opt_state=own._replace(current=own.current + 1, **fresh))

    def predict(state, batch):
        own, number = state.opt_state, batch.task[0] + 1
        # A task that is still learning has weights that nobody owns yet.
        learning = (number == own.current + 1) & (own.count <= dense_steps)
        mine = lambda owner: jnp.where(owner == 0, learning, owner <= number)
        shown = lambda kind, w, o: jnp.where(mine(o), w, 0).astype(w.dtype) if kind == "kernel" else w
        return task.predict(each(shown, state.params, own.owner), batch)

    def report(state):
        owners = [owner for owner in jax.tree.leaves(state.opt_state.owner) if owner.ndim]
        return {"free weights": jnp.concatenate([(owner == 0).ravel() for owner in owners]).mean()}

    return Learner(init, step, consolidate, predict, report=report)


def _kept(weight: Array, free: Bool[Array, "..."], pruned: float) -> Bool[Array, "..."]:
    """Says which of the free weights a task keeps: all but the share `pruned` that is smallest in magnitude."""
    size = jnp.where(free, jnp.abs(weight), jnp.inf).ravel()  # free ones first, the smallest first
    cut = jnp.round(pruned * free.sum()).astype(int)
    # By rank, not by the size at the cut: free weights restart at zero, and those behind dead pixels stay there, so
    # that many may be as small as the last one that is pruned.
    large = jnp.zeros(size.shape, bool).at[jnp.argsort(size)].set(jnp.arange(size.size) >= cut)
    return free & large.reshape(weight.shape)
