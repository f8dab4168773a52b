"""A learner: one pure step of training, and what happens when something is worth keeping.

The same `step` runs inside a compiled experiment (`neuroml.run`) and in a plain Python loop over a host iterator.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from neuroml import core, losses
from neuroml.errors import UsageError
from neuroml.modules.network import Network
from neuroml.streams.stream import Batch
from neuroml.vitals import vitals


def apart(key: PRNGKeyArray) -> PRNGKeyArray:
    """Returns the key of what a learner draws at `init` beside the weights: networks fold small numbers into `key`."""
    return jax.random.fold_in(key, 2**31 - 1)


class LearnerState(NamedTuple):
    """All that a learner carries from step to step."""

    params: Any
    opt_state: Any


class StepInfo(NamedTuple):
    """What a step reports: both numbers are from before the weights moved (test, then train)."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]


class Task(NamedTuple):
    """How a network is asked and judged; compares by value, so that rules built on it alike are alike."""

    network: Network
    scale: float

    def predict(self, params: Any, batch: Batch) -> Float[Array, "batch outputs"]:
        """Returns the outputs, with those switched off that do not count for an example."""
        outputs, _ = self.network.apply(params, {}, batch.x / self.scale)
        return losses.mask_outputs(outputs, batch.active)

    def capture(self, params: Any, batch: Batch) -> tuple[Float[Array, "batch outputs"], Any]:
        """Returns the outputs as `predict` does, and the inputs of the layers."""
        outputs, _, activity = self.network.capture(params, {}, batch.x / self.scale)
        return losses.mask_outputs(outputs, batch.active), activity

    def loss(self, params: Any, batch: Batch) -> Float[Array, ""]:
        """Returns the mean cross-entropy over the batch."""
        return losses.cross_entropy(self.predict(params, batch), batch.y)


def _unchanged(state: LearnerState, *_: Any) -> LearnerState:
    return state


def _emptied(state: LearnerState, destroyed: Any) -> LearnerState:
    cut = lambda weight, gone: jnp.where(gone, 0, weight).astype(weight.dtype)
    return state._replace(params=jax.tree.map(cut, state.params, destroyed))


def _nothing(state: LearnerState) -> dict[str, Array]:
    del state
    return {}


def _nothing_to_see(state: LearnerState, batch: Batch) -> dict[str, Array]:
    del batch
    return _nothing(state)


class Learner(NamedTuple):
    """Pure functions over a `LearnerState`; what has a default does nothing in a network that learns by gradient.

    The default of `destroy` sets weights to zero and knows of no moments: `make_learner` clears those of its optimizer,
    and so does a learner around another that hands `destroy` on.
    """

    init: Callable[[Any], LearnerState]  # (key) -> state
    step: Callable[..., tuple[LearnerState, StepInfo]]  # (state, batch, key) -> (state, info)
    consolidate: Callable[..., LearnerState]  # (state, examples, key) -> state, where a task ends
    predict: Callable[[LearnerState, Batch], Array]  # (state, batch) -> outputs
    prepare: Callable[..., LearnerState] = _unchanged  # (state, first examples, key) -> state, before the first step
    settle: Callable[[LearnerState], LearnerState] = _unchanged  # does what an answer needs; tells the learner nothing
    report: Callable[[LearnerState], dict[str, Array]] = _nothing  # scalars for logs
    inspect: Callable[[LearnerState, Batch], dict[str, Array]] = _nothing_to_see  # vital signs, as scalars
    destroy: Callable[[LearnerState, Any], LearnerState] = _emptied  # (state, tree of bools): sets weights to zero
    capture: Callable[[LearnerState, Batch], Any] | None = None  # the inputs of the layers while it answers
    context: Callable[[LearnerState, Batch], Array] | None = None  # which of `contexts` contexts it infers
    contexts: int = 0


def make_learner(
    task: Task,
    transform: optax.GradientTransformation,
    importance: Callable[..., Any] | None = None,
    *,
    activity: bool = False,
) -> Learner:
    """Makes a learner of a network and an Optax transformation with or without rules in it.

    Args:
      task: the network and the scale of its inputs.
      transform: the optimizer; its rules get the words `batch`, `outputs`, `key`, `task` and `value`.
      importance: `(predict, params, examples, key) -> tree`, for rules whose `consolidate` needs it.
      activity: also gives the rules the word `activity`, the inputs of the layers.

    Returns:
      A `Learner`.

    Raises:
      UsageError: at `init`, when the network keeps running statistics (BatchNorm): they mix the tasks, and at test
        time they leak which task it is. Use LayerNorm or GroupNorm.

    >>> import jax.numpy as jnp, neuroml
    >>> net = neuroml.mlp((8, 8, 1), [16], 10)
    >>> agent = make_learner(Task(net, 16.0), optax.sgd(0.1))
    >>> state = agent.init(jax.random.key(0))
    >>> batch = Batch(jnp.ones((4, 8, 8, 1)), jnp.zeros(4, int), jnp.zeros(4, int), jnp.ones((4, 10), bool))
    >>> for step in range(3):  # any host iterator will do
    ...     state, info = jax.jit(agent.step)(state, batch, jax.random.key(step))
    >>> bool(info.loss < 2)
    True
    """
    tx = optax.with_extra_args_support(transform)

    def init(key):
        params, model_state = task.network.init(key)
        if jax.tree.leaves(model_state):
            raise UsageError(
                "the network keeps a state beside its weights (BatchNorm statistics or Dropout keys), which the "
                "benchmarks do not carry from task to task: use LayerNorm or GroupNorm. In a loop of your own, rules "
                "work with any network."
            )
        return LearnerState(params, tx.init(params))

    def step(state, batch, key):
        def objective(params):
            outputs, inputs = task.capture(params, batch) if activity else (task.predict(params, batch), None)
            return losses.cross_entropy(outputs, batch.y), (outputs, inputs)

        (loss, (outputs, inputs)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        words = {"batch": batch, "outputs": outputs, "key": key, "task": batch.task, "value": loss}
        words |= {"activity": inputs} if activity else {}
        updates, opt_state = tx.update(grads, state.opt_state, state.params, **words)
        accuracy = losses.correct(outputs, batch.y).mean()
        return LearnerState(optax.apply_updates(state.params, updates), opt_state), StepInfo(loss, accuracy)

    def consolidate(state, examples, key):
        words: dict[str, Any] = {"data": examples, "key": key}
        if importance is not None:
            words["importance"] = importance(task.predict, state.params, examples, key)
        return state._replace(opt_state=core.consolidate(state.opt_state, state.params, **words))

    def destroy(state, destroyed):
        def forget(moment, gone):  # what `optax.masked` hides from a part of the optimizer has no moment there
            return moment if core.is_hidden(moment) else jnp.where(gone, 0, moment).astype(moment.dtype)

        cleared = optax.tree.map_params(tx, forget, state.opt_state, destroyed, is_leaf=core.is_hidden)
        # What our rules remember stays: anchors and starting points are stored elsewhere.
        keep = lambda old, new: old if core.is_rule(old) else new
        opt_state = jax.tree.map(keep, state.opt_state, cleared, is_leaf=core.is_rule)
        return _emptied(state._replace(opt_state=opt_state), destroyed)

    def inspect(state, batch):
        wiring = task.network.wiring
        return {} if wiring is None else vitals(wiring(state.params), state.params, capture(state, batch))

    predict = lambda state, batch: task.predict(state.params, batch)
    capture = lambda state, batch: task.capture(state.params, batch)[1]
    report = lambda state: core.report(state.opt_state)
    return Learner(init, step, consolidate, predict, report=report, inspect=inspect, destroy=destroy, capture=capture)


def inside(change: Callable[..., LearnerState]) -> Callable[..., LearnerState]:
    """Returns what a change of an inner learner is to the learner around it, which keeps its `opt_state` as `inner`."""

    def changed(state: LearnerState, *given: Any) -> LearnerState:
        after = change(inner_state(state), *given)
        return LearnerState(after.params, state.opt_state._replace(inner=after.opt_state))

    return changed


def inner_state(state: LearnerState) -> LearnerState:
    """Returns the state of the inner learner."""
    return LearnerState(state.params, state.opt_state.inner)


def around(
    inner: Learner,
    init: Callable[[Any], LearnerState],
    step: Callable[..., tuple[LearnerState, StepInfo]],
    *,
    asked: Callable[[LearnerState], LearnerState] = inner_state,
    shown: Callable[[LearnerState, Batch], Batch] = lambda state, batch: batch,
    **own: Any,
) -> Learner:
    """Makes a learner around another: what is not given is what `inner` does.

    Its weights are those of `inner`, whose `opt_state` it keeps as the field `inner` of its own.

    Args:
      inner: any learner.
      init: of the new learner.
      step: of the new learner.
      asked: the state in which `inner` answers.
      shown: the batch that `inner` sees.
      **own: other functions of the new learner, by name.

    Returns:
      The `Learner`.
    """

    def ask(answer: Callable[..., Any]) -> Callable[..., Any]:
        return lambda state, *batch: answer(asked(state), *(shown(state, one) for one in batch))

    def learn(change: Callable[..., LearnerState]) -> Callable[..., LearnerState]:
        return lambda state, examples, key: inside(change)(state, shown(state, examples), key)

    names = ("predict", "report", "inspect", "capture", "context")
    asking = {name: ask(answer) for name in names if (answer := getattr(inner, name)) is not None}
    learning = {name: learn(getattr(inner, name)) for name in ("consolidate", "prepare")}
    changing = {name: inside(getattr(inner, name)) for name in ("settle", "destroy")}
    return inner._replace(init=init, step=step, **{**asking, **learning, **changing, **own})
