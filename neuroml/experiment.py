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
from neuroml.adaptation import Adaptation
from neuroml.conditioned import conditioned
from neuroml.cost import flops, tree_bytes
from neuroml.errors import UsageError, unknown
from neuroml.learner import Learner, LearnerState, StepInfo, Task
from neuroml.method import Method, Situation
from neuroml.modules.network import Network
from neuroml.streams.dataset import Dataset
from neuroml.streams.scenarios import Maker, joint
from neuroml.streams.stream import Stream, steps_of

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}
EVALUATIONS = ("all", "ends")


class Findings(NamedTuple):
    """What a learner is found to know and to be at the end of a phase."""

    accuracy: Array  # [tasks]; NaN where it was not tested
    finite: Array  # (), bool: whether every weight still is a number
    report: dict[str, Array]  # scalars that the learner says of itself
    contexts: Array  # [tasks, contexts]: how many test images of a task were taken for each context; NaN if not tested


class Row(NamedTuple):
    """What a phase leaves behind."""

    findings: Findings
    loss: Array  # [steps]: training loss before each step, NaN where the phase had ended
    online: Array  # [steps]: accuracy on each batch before it was learnt
    steps: Array  # (): steps really taken


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
      evaluation: "all" tests on every task after each phase; "ends" on the task just trained, and on all at the end.
      conditioning: normalizes the inputs of every method that does not do so by itself; None leaves them as they are.
      intervene: `(learner, task) -> learner`: what is done to the learner of any method (`neuroml.interventions`).
      inspected: training examples of a phase on which the network's vital signs are taken at its end; 0 takes none.
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
    evaluation: str = "all"
    conditioning: Adaptation | None = None
    intervene: Callable[[Learner, Task], Learner] | None = None
    inspected: int = 0
    _task: Callable[..., Task] = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        if (self.epochs is None) == (self.iterations is None):
            raise UsageError(f"give epochs or iterations, not epochs={self.epochs}, iterations={self.iterations}.")
        for name in ("batch_size", "epochs", "iterations", "samples", "inspected"):
            value, least = getattr(self, name), 0 if name == "inspected" else 1
            if value is not None and value < least:
                raise UsageError(f"{name}={value} must be at least {least}.")
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS)
        if self.evaluation not in EVALUATIONS:
            raise unknown("evaluation", self.evaluation, EVALUATIONS)
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
        """Returns the learner for one setting of the hyperparameters, with whatever is done to it."""
        agent = self._untouched(stream, hyperparameters)
        return agent if self.intervene is None else self.intervene(agent, self.task(stream))

    def _untouched(self, stream: Stream, hyperparameters: Mapping[str, Array]) -> Learner:
        task, example = self.task(stream), stream.example()
        rate = hyperparameters["learning_rate"]
        base = OPTIMIZERS[self.optimizer](rate)
        settings = {**self.options, **hyperparameters}
        at = Situation(task, base, rate, example, self.batch_size, stream.outputs, stream.tasks, stream.scenario)
        if self.conditioning is None or self.method.conditions(self.options):
            return self.method.make(at, settings)
        seen = example._replace(x=jnp.asarray(example.x, jnp.float32))
        inner = self.method.make(at._replace(task=task._replace(scale=1.0), example=seen), settings)
        return conditioned(inner, self.conditioning, example, task.scale)

    def begin(self, key: Array, hyperparameters: Mapping[str, Array], data: Dataset) -> tuple[Stream, LearnerState]:
        """Returns the stream and the learner's first state."""
        stream = self.stream(data, key)
        if self.consolidates and not stream.boundaries:
            raise UsageError(
                "this method consolidates where a task ends, and this stream does not tell. Take one that finds its "
                "own moments, such as si_every, si_on_surprise or ewc_every, or a stream with boundaries."
            )
        if self.method.scenarios == ("task",) and not stream.boundaries:
            raise UsageError(
                f"this method ({self.method.summary}) takes a batch to be of one task, and those of this stream mix "
                "tasks: run it on one with boundaries."
            )
        if stream.scenario not in self.method.scenarios:
            raise UsageError(
                f"this method ({self.method.summary}) means nothing in a {stream.scenario}-incremental stream: run it "
                f"with the scenario {' or '.join(self.method.scenarios)}."
            )
        agent = self.learner(stream, hyperparameters)
        state = agent.init(jax.random.fold_in(key, 1))
        if self._held:
            state = agent.prepare(state, self._first_examples(key, stream), jax.random.fold_in(key, 3))
        return stream, state

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
    ) -> tuple[LearnerState, Findings]:
        """Returns the consolidated state, and what it is found to know and to be."""
        agent = self.learner(stream, hyperparameters)
        if self.consolidates:
            draw = jax.random.fold_in(_phase_key(key, phase), 2)
            state = agent.consolidate(state, self._examples(draw, stream, phase), draw)
        state = agent.settle(state)
        # At test time every output may speak; the stream switches off those that may not.
        answer = lambda batch: agent.predict(state, batch._replace(active=jnp.ones_like(batch.active)))
        wanted = self._tested(stream, phase)
        accuracy, contexts = stream.evaluate(answer, phase, wanted), self._contexts(agent, state, stream, wanted)
        report = agent.report(state)
        if self.inspected:
            report |= agent.inspect(state, self._probe(key, stream, phase))
        return state, Findings(accuracy, losses.finite(state.params), report, contexts)

    def whole(self, key: Array, hyperparameters: Mapping[str, Array], data: Dataset) -> tuple[LearnerState, Row]:
        """Returns the state at the end of the stream, and what each phase leaves behind, [phases, ...]."""
        stream, state = self.begin(key, hyperparameters, data)

        def phase(state, number):
            take = lambda state, now: self.step(hyperparameters, stream, number, state, now)
            state, info = jax.lax.scan(take, state, self.order(key, stream, number))
            state, found = self.finish(key, hyperparameters, stream, number, state)
            return state, Row(found, info.loss, info.accuracy, self.length(stream, number))

        return jax.lax.scan(phase, state, jnp.arange(stream.phases))

    @property
    def consolidates(self) -> bool:
        """Whether the method is told where a task ends."""
        return self.method.boundaries(self.options)

    def cost(self, key: Any, hyperparameters: Mapping[str, Any], data: Dataset) -> tuple[int, float]:
        """Returns bytes (weights, optimizer, rules, memories) and FLOPs of training one seed, without running it.

        Bytes are those of the peak: the first examples, which some methods hold back until they have looked at them,
        stand beside the state. Only the shapes of the arguments count: `jax.ShapeDtypeStruct` will do.
        """
        stream, state = jax.eval_shape(self.begin, key, hyperparameters, data)
        now = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self._orders(key, stream))
        phase = jax.ShapeDtypeStruct((), jnp.int32)
        a_step = flops(self.step, hyperparameters, stream, phase, state, now)
        steps = stream.phases * self.steps(stream)
        if stream.ragged and not self.iterations:  # sizes are drawn: up to a step a phase is left out
            steps = -(-(self.epochs or 1) * stream.total // self.batch_size)
        work = a_step * steps + flops(self.begin, key, hyperparameters, data) * bool(self._held)
        if self.consolidates:
            examples = jax.eval_shape(self._examples, key, stream, phase)
            agent = lambda s, e, k, h, st: self.learner(st, h).consolidate(s, e, k)
            work += stream.phases * flops(agent, state, examples, key, hyperparameters, stream)
        settle = lambda state, h, st: self.learner(st, h).settle(state)
        work += stream.phases * flops(settle, state, hyperparameters, stream)
        held = jax.eval_shape(self._first_examples, key, stream) if self._held else ()
        return tree_bytes(state) + tree_bytes(held), work

    def _orders(self, key: Any, stream: Stream) -> Any:
        return jax.eval_shape(self.order, key, stream, jax.ShapeDtypeStruct((), jnp.int32))

    def _examples(self, key: Array, stream: Stream, phase: Array) -> Any:
        number = min(self.samples, stream.smallest)
        return stream.train_batch(phase, stream.order(key, phase, 1, number)[0])

    def _probe(self, key: Array, stream: Stream, phase: Array) -> Any:
        """Returns examples that stand for a phase: the first of a row of one task, which is in no order; else drawn."""
        number = min(self.inspected, stream.smallest)
        if stream.boundaries and stream.phases == stream.tasks:
            return stream.train_batch(phase, jnp.arange(number))
        drawn = dataclasses.replace(stream, boundaries=True)  # one without them would be read in the order of time
        key = jax.random.fold_in(_phase_key(key, phase), 3)
        return stream.train_batch(phase, drawn.order(key, phase, 1, number)[0])

    @property
    def _held(self) -> int:
        return self.method.prepares(self.options)

    def _first_examples(self, key: Array, stream: Stream) -> Any:
        """Returns the examples of the first steps, which the learner may look at before it takes them."""
        phase = jnp.int32(0)
        first = self.order(key, stream, phase)[2].reshape(-1)[: self._held]
        return stream.train_batch(phase, first)

    def _contexts(self, agent: Learner, state: LearnerState, stream: Stream, wanted: Array | None) -> Array:
        if agent.context is None:
            return jnp.zeros((stream.tasks, 0))
        infer, number = agent.context, agent.contexts
        count = lambda task, batch, real: jax.nn.one_hot(infer(state, batch), number).T @ real.astype(jnp.float32)
        return stream.survey(count, wanted)

    def _tested(self, stream: Stream, phase: Array) -> Array | None:
        """Says on which tasks to test after a phase; [tasks] bool, None for all."""
        if self.evaluation == "all":
            return None
        return (jnp.arange(stream.tasks) == phase) | (phase == stream.phases - 1)


def _phase_key(key: Array, phase: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(key, 2), phase)
