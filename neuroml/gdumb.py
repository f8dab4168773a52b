"""GDumb: store examples, and learn from nothing but them when an answer is needed."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from neuroml import losses, memory
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, StepInfo, Task, make_learner
from neuroml.streams.stream import Batch

LOWEST = 0.01  # where the cosine of the learning rate ends, as a share of where it begins


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Generator:
    """Which random numbers the data of a key stands for. A tree node without leaves."""

    name: Any  # as `jax.random.key_impl` has it


class GDumbState(NamedTuple):
    """Beside the weights: what is stored, and what the training draws from."""

    memory: memory.MemoryState
    key: jax.Array  # the data of a key, always the same: settling twice is settling once
    generator: Generator


def gdumb(
    task: Task,
    transform: optax.GradientTransformation,
    example: Batch,
    store: memory.Memory,
    *,
    steps: int,
    batch_size: int,
) -> Learner:
    r"""Makes the learner that only stores, and trains a fresh network on its memory when an answer is needed (GDumb).

        step:    memory <- memory and the new examples that it takes
        settle:  params <- fresh network after `steps` steps on batches drawn from the memory,
                 step number i at the learning rate times  0.01 + 0.99 (1 + cos(pi i / steps)) / 2

    What it knows is what fits into its memory. A method that rehearses the same memory while the stream goes by, and
    answers no better, has gained nothing from the stream.

    Args:
      task: the network.
      transform: the optimizer, at the learning rate of the first step.
      example: one example without its batch axis, for the shapes.
      store: what to keep: the paper's is `neuroml.memory.greedy_balanced`.
      steps: number of steps of each training; a pass over the memory is capacity / batch_size of them.
      batch_size: examples of each of these steps.

    Returns:
      A `Learner`; what its steps report is of the network as the last `settle` left it.

    Raises:
      UsageError: `steps` or `batch_size` below 1.

    Reference:
      Prabhu et al. 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV.

    How ours differs: batches are drawn with replacement; no CutMix, no warm restarts of the learning rate, and the
    optimizer is whatever is given.

    >>> import neuroml
    >>> network = neuroml.mlp((2, 1, 1), [], 2)
    >>> shown = Batch(jnp.eye(2).reshape(2, 2, 1, 1), jnp.arange(2), jnp.zeros(2, int), jnp.ones((2, 2), bool))
    >>> example = jax.tree.map(lambda leaf: leaf[0], shown)
    >>> learner = gdumb(Task(network, 1.0), optax.sgd(1.0), example, memory.ring(2), steps=20, batch_size=2)
    >>> state, _ = learner.step(learner.init(jax.random.key(0)), shown, jax.random.key(1))
    >>> learner.predict(learner.settle(state), shown).argmax(1).tolist()
    [0, 1]
    """
    for name, value in {"steps": steps, "batch_size": batch_size}.items():
        if value < 1:
            raise UsageError(f"{name}={value} must be at least 1.")
    falling = optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, steps, alpha=LOWEST))
    pupil = make_learner(task, optax.chain(transform, falling))

    def init(key):
        generator = Generator(jax.random.key_impl(key))
        own = GDumbState(store.init(example), jax.random.key_data(key), generator)
        return LearnerState(pupil.init(key).params, own)

    def step(state, batch, key):
        own, outputs = state.opt_state, task.predict(state.params, batch)
        found = StepInfo(losses.cross_entropy(outputs, batch.y), losses.correct(outputs, batch.y).mean())
        return state._replace(opt_state=own._replace(memory=store.add(own.memory, batch, key))), found

    def lesson(stored: memory.MemoryState, state: LearnerState, key: Any) -> tuple[LearnerState, None]:
        for_draw, for_step = jax.random.split(key)
        return pupil.step(state, memory.sample(stored, batch_size, for_draw), for_step)[0], None

    def settle(state):
        own, stored = state.opt_state, state.opt_state.memory
        key = jax.random.wrap_key_data(own.key, impl=own.generator.name)
        keys = jax.random.split(jax.random.fold_in(key, 1), steps)
        taught, _ = jax.lax.scan(lambda one, key: lesson(stored, one, key), pupil.init(key), keys)
        some = memory.stored(stored).any()
        choose = lambda new, old: jnp.where(some, new, old)
        return state._replace(params=jax.tree.map(choose, taught.params, state.params))

    predict = lambda state, batch: task.predict(state.params, batch)
    return Learner(
        init, step, lambda state, *_: state, predict, settle=settle, inspect=pupil.inspect, capture=pupil.capture
    )
