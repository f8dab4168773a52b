"""Learners that are told which task an example belongs to, at test time too: a network each, or a part of one each.

A batch is taken to be of one task, that of its first example, as the streams of tasks have it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PRNGKeyArray

from neuroml import surgery, units
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, Task, around, make_learner


def separate(inner: Learner, tasks: int) -> Learner:
    """Makes the learner that has one copy of `inner` for each task: no task can disturb another.

    Weights and optimizer states have a leading axis of tasks, and all of them are charged. The first examples prepare
    every copy, those of a task consolidate its own.

    Reference: "SepN" of van de Ven et al. 2022.
    """

    def init(key: PRNGKeyArray) -> LearnerState:
        return jax.vmap(inner.init)(jax.random.split(key, tasks))

    def put(state, task, after):
        return jax.tree.map(lambda whole, part: whole.at[task].set(part), state, after)

    def step(state, batch, key):
        after, info = inner.step(_at(state, batch.task[0]), batch, key)
        return put(state, batch.task[0], after), info

    def consolidate(state, examples, key):
        task = examples.task[0]
        return put(state, task, inner.consolidate(_at(state, task), examples, key))

    of = lambda ask: lambda state, batch: ask(_at(state, batch.task[0]), batch)
    return Learner(
        init,
        step,
        consolidate,
        of(inner.predict),
        prepare=jax.vmap(inner.prepare, in_axes=(0, None, None)),
        settle=jax.vmap(inner.settle),
        inspect=of(inner.inspect),
    )


class GatedState(NamedTuple):
    """Beside the weights: the optimizer's state, and who is silent."""

    inner: Any
    off: dict[str, Bool[Array, "tasks size"]]


def gated(task: Task, transform: optax.GradientTransformation, tasks: int, share: float) -> Learner:
    r"""Makes the learner of context-dependent gating (XdG): in each task another random part of the neurons is silent.

        silent_t = share of each population, rounded but never all of it, drawn at the start, for every task t

    A silent neuron has incoming weights and bias of zero while its task lasts, so it answers nothing (with ReLU) and
    learns nothing by gradient.

    Args:
      task: the network, whose wiring must name its neurons.
      transform: the optimizer, with rules in it or without.
      tasks: number of tasks.
      share: of the neurons that are silent in a task, in [0, 1); 0 is inert.

    Raises:
      UsageError: a share out of range; at `init`, a network without wiring, or whose wiring names a normalization of
        neurons (`layer_norm`): it comes after the gate, so that the silent would answer.

    Reference:
      Masse, Grant, Freedman 2018, "Alleviating catastrophic forgetting using context-dependent gating and synaptic
      stabilization", PNAS 115:E10467.

    How ours differs: the optimizer is not begun anew with a task, as it is not in van de Ven's code by default. Weights
    that enter a silent neuron have no gradient, but momentum goes on moving them for a while.
    """
    if not 0 <= share < 1:
        raise UsageError(f"share={share} of the neurons that are silent must be at least 0 and less than 1.")
    plain = make_learner(task, transform)

    def of(state: LearnerState, number: Array) -> tuple[Learner, LearnerState]:
        off = {name: rows[number] for name, rows in state.opt_state.off.items()}
        return make_learner(_silenced(task, off), transform), state._replace(opt_state=state.opt_state.inner)

    def init(key):
        state = plain.init(key)
        found = populations(task, state.params)
        _check_norms(task, state.params, found)
        off = _drawn(jax.random.fold_in(key, 1), found, tasks, share)
        return state._replace(opt_state=GatedState(state.opt_state, off))

    def step(state, batch, key):
        learner, inner = of(state, batch.task[0])
        after, info = learner.step(inner, batch, key)
        return after._replace(opt_state=state.opt_state._replace(inner=after.opt_state)), info

    def consolidate(state, examples, key):
        learner, inner = of(state, examples.task[0])
        after = learner.consolidate(inner, examples, key)
        return after._replace(opt_state=state.opt_state._replace(inner=after.opt_state))

    def asked(name: str) -> Any:
        def ask(state, batch):
            learner, inner = of(state, batch.task[0])
            return getattr(learner, name)(inner, batch)

        return ask

    asking = {name: asked(name) for name in ("predict", "inspect", "capture")}
    return around(plain, init, step, consolidate=consolidate, **asking)


def _at(state: LearnerState, task: Array) -> LearnerState:
    return jax.tree.map(lambda leaf: leaf[task], state)


def populations(task: Task, params: Any) -> dict[str, units.Units]:
    """Returns the neurons between layers that a task may gate."""
    return units.find(_names(task, params), params)


def _names(task: Task, params: Any) -> Any:
    if task.network.wiring is None:
        raise UsageError("gates belong to neurons, and the network has no wiring: give its `Network` one.")
    return task.network.wiring(params)


def _check_norms(task: Task, params: Any, found: dict[str, units.Units]) -> None:
    """Refuses neurons that own arrays of no layer: what a normalization adds is not among what a gate cuts."""
    for path in units.of_no_layer(_names(task, params), params, found):
        raise UsageError(
            f"{path} belongs to neurons and to no layer (a normalization?): it would make silent neurons answer. Use a "
            "network without `layer_norm`."
        )


def _drawn(key: PRNGKeyArray, found: dict[str, units.Units], tasks: int, share: float) -> dict[str, Array]:
    """Returns which neurons are silent: in each task as many, [tasks, size] for each population."""

    def one(number, size):
        lots = jax.random.uniform(jax.random.fold_in(key, number), (tasks, size))
        return jnp.argsort(jnp.argsort(lots, axis=1), axis=1) < min(round(share * size), size - 1)

    return {name: one(number, part.size) for number, (name, part) in enumerate(found.items())}


def _silenced(task: Task, off: dict[str, Array]) -> Task:
    """Returns the task with a network in which neurons are silent."""
    network = task.network

    def cut(params):
        gone = surgery.entering(populations(task, params), params, off)
        return jax.tree.map(lambda leaf, silent: jnp.where(silent, 0, leaf), params, gone)

    apply = lambda params, *rest: network.apply(cut(params), *rest)
    capture = lambda params, *rest: network.capture(cut(params), *rest)
    return task._replace(network=network._replace(apply=apply, capture=capture))
