"""Experiments: one pure function of a key, over a whole stream, vmapped over seeds and hyperparameters.

`Experiment` holds the four pure functions that make up a run; `neuroml.running` says how they are driven.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from neuroml import losses
from neuroml.cost import flops, tree_bytes
from neuroml.errors import UsageError, unknown
from neuroml.learner import Learner, LearnerState, StepInfo, Task, make_learner
from neuroml.methods import Method, Situation
from neuroml.modules.network import Network
from neuroml.streams.dataset import Dataset
from neuroml.streams.scenarios import Maker, joint
from neuroml.streams.stream import Stream, steps_of

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


class Row(NamedTuple):
    """What a phase leaves behind."""

    accuracy: Array  # [tasks]
    loss: Array  # [steps]: training loss before each step, NaN where the phase had ended
    online: Array  # [steps]: accuracy on each batch before it was learnt
    steps: Array  # (): steps really taken
    finite: Array  # (), bool: whether every weight still is a number


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that is fixed while seeds and hyperparameters vary. Its methods are pure.

    Args:
      method: a recipe from `neuroml.methods`, or one of your own.
      network: `(image shape, outputs) -> Network`: `neuroml.mlp` with its hidden layers bound, say.
      maker: a scenario of `neuroml.streams.scenarios`.
      batch_size: examples a step.
      epochs: passes over each phase; or
      iterations: steps in each phase, with as many passes as that takes.
      optimizer: "adam" or "sgd".
      options: static options of the method that differ from its own.
      samples: training examples of a task that a consolidation may look at (for the Fisher information).
    """

    method: Method
    network: Callable[[tuple[int, ...], int], Network]
    maker: Maker
    batch_size: int
    epochs: int | None = None
    iterations: int | None = None
    optimizer: str = "adam"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    samples: int = 1000
    _task: Callable[..., Task] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        if (self.epochs is None) == (self.iterations is None):
            raise UsageError(f"give epochs or iterations, not epochs={self.epochs}, iterations={self.iterations}.")
        for name in ("batch_size", "epochs", "iterations", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value} must be at least 1.")
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        for name in self.options:
            if name not in self.method.options:
                raise unknown("option", name, self.method.options)
        object.__setattr__(self, "options", {**self.method.options, **self.options})
        # One network and one task an experiment: rules that hold on to them must find the same ones at every trace.
        # (Bound methods, such as `task.loss`, are equal only where their objects are the same.)
        object.__setattr__(self, "network", functools.cache(self.network))
        task = lambda shape, outputs, scale: Task(self.network(shape, outputs), scale)
        object.__setattr__(self, "_task", functools.cache(task))

    def stream(self, data: Dataset, key: Array) -> Stream:
        """Returns the stream of the seed that `key` stands for."""
        return (joint(self.maker) if self.method.joint else self.maker)(data, jax.random.fold_in(key, 0))

    def steps(self, stream: Stream) -> int:
        """Returns the number of steps of a phase, the same for all of them: shapes are static."""
        return self.iterations or steps_of(stream, self.batch_size, self.epochs or 1)

    def task(self, stream: Stream) -> Task:
        """Returns the network for the stream's images and outputs, with its loss."""
        return self._task(stream.example().x.shape, stream.outputs, stream.data.scale)

    def learner(self, stream: Stream, hyperparameters: Mapping[str, Array]) -> Learner:
        """Returns the learner for one setting of the hyperparameters."""
        task = self.task(stream)
        rate = hyperparameters["learning_rate"]
        base = OPTIMIZERS[self.optimizer](rate)
        at = Situation(task, base, rate, stream.example(), self.batch_size, stream.outputs)
        transform = self.method.transform(at, {**self.options, **hyperparameters})
        return make_learner(task, transform, self.method.importance)

    def begin(self, key: Array, hyperparameters: Mapping[str, Array], data: Dataset) -> tuple[Stream, LearnerState]:
        """Returns the stream and the learner's first state."""
        stream = self.stream(data, key)
        if self.consolidates and not stream.boundaries:
            raise UsageError(
                "this method consolidates where a task ends, and this stream does not tell. Take one that finds its "
                "own moments, such as si_every, si_on_surprise or ewc_every, or a stream with boundaries."
            )
        return stream, self.learner(stream, hyperparameters).init(jax.random.fold_in(key, 1))

    def order(self, key: Array, stream: Stream, phase: Array) -> tuple[Array, Array, Array]:
        """Returns, for each step of a phase, its number, its key and the positions of its batch."""
        key, steps = _phase_key(key, phase), self.steps(stream)
        positions = stream.order(jax.random.fold_in(key, 0), phase, steps, self.batch_size)
        return jnp.arange(steps), jax.random.split(jax.random.fold_in(key, 1), steps), positions

    def length(self, stream: Stream, phase: Array) -> Array:
        """Returns how many steps a phase really has: less than `steps` where its task is smaller than the largest."""
        if self.iterations:
            return jnp.int32(self.iterations)
        return -(-(self.epochs or 1) * stream.size[phase] // self.batch_size)

    def step(
        self, hyperparameters: Mapping[str, Array], stream: Stream, phase: Array, state: LearnerState, now: tuple
    ) -> tuple[LearnerState, StepInfo]:
        """Returns the state after one batch; beyond the end of a short phase nothing changes."""
        number, key, positions = now
        take = lambda s: self.learner(stream, hyperparameters).step(s, stream.train_batch(phase, positions), key)
        if self.iterations or not stream.ragged:
            return take(state)
        idle = lambda s: (s, StepInfo(jnp.float32(jnp.nan), jnp.float32(jnp.nan)))
        return jax.lax.cond(number < self.length(stream, phase), take, idle, state)

    def finish(
        self, key: Array, hyperparameters: Mapping[str, Array], stream: Stream, phase: Array, state: LearnerState
    ) -> tuple[LearnerState, Array, Array]:
        """Returns the consolidated state, the accuracy on every task, and whether all weights are finite."""
        agent = self.learner(stream, hyperparameters)
        if self.consolidates:
            key = jax.random.fold_in(_phase_key(key, phase), 2)
            state = agent.consolidate(state, self._examples(key, stream, phase), key)
        predict = lambda batch: self._answer(stream, state.params, batch)
        return state, stream.evaluate(predict, phase), losses.finite(state.params)

    @property
    def consolidates(self) -> bool:
        """Whether the method is told where a task ends."""
        return self.method.boundaries(self.options)

    def cost(self, key: Any, hyperparameters: Mapping[str, Any], data: Dataset) -> tuple[int, float]:
        """Returns bytes (weights, optimizer, rules, memories) and FLOPs of training one seed, without running it.

        Only the shapes of the arguments count: `jax.ShapeDtypeStruct` will do.
        """
        stream, state = jax.eval_shape(self.begin, key, hyperparameters, data)
        now = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self._orders(key, stream))
        phase = jax.ShapeDtypeStruct((), jnp.int32)
        a_step = flops(self.step, hyperparameters, stream, phase, state, now)
        per_pass = -(-stream.total // self.batch_size) * (self.epochs or 1)
        steps = self.iterations * stream.phases if self.iterations else per_pass
        work = a_step * steps
        if self.consolidates:
            examples = jax.eval_shape(self._examples, key, stream, phase)
            agent = lambda s, e, k, h, st: self.learner(st, h).consolidate(s, e, k)
            work += stream.phases * flops(agent, state, examples, key, hyperparameters, stream)
        return tree_bytes(state), work

    def _orders(self, key: Any, stream: Stream) -> Any:
        return jax.eval_shape(self.order, key, stream, jax.ShapeDtypeStruct((), jnp.int32))

    def _examples(self, key: Array, stream: Stream, phase: Array) -> Any:
        number = min(self.samples, stream.smallest)
        return stream.train_batch(phase, stream.order(key, phase, 1, number)[0])

    def _answer(self, stream: Stream, params: Any, batch: Any) -> Array:
        # At test time every output may speak; the stream switches off those that may not.
        everything = batch._replace(active=jnp.ones_like(batch.active))
        return self.task(stream).predict(params, everything)


def _phase_key(key: Array, phase: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(key, 2), phase)
