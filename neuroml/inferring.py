"""A learner whose network is told the context of each example: inferred from the input, by the nearest prototype."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from neuroml import slots
from neuroml.cost import one_in
from neuroml.errors import UsageError
from neuroml.learner import Learner, Task, apart, around, inner_state, inside, make_learner
from neuroml.slots import Slots
from neuroml.streams.stream import Batch

# (params, places, context, lot) -> after; see `inferring`.
Gates = Callable[[Any, Array, Array, Array], Callable[[int, Array], Array]]


class InferringState(NamedTuple):
    """Beside the weights: the optimizer's state, a prototype of each context, and a number drawn by lot."""

    inner: Any
    prototypes: Slots
    lot: jax.Array  # () uint32


def inferring(
    task: Task,
    transform: optax.GradientTransformation,
    example: Batch,
    gates: Gates,
    *,
    contexts: int,
    radius: ArrayLike,
    activity: bool = False,
    consolidates: bool = False,
    pool: int = 1,
) -> Learner:
    """Makes the learner of a network whose hidden answers are gated by a context that nobody names.

    A prototype nucleates where most of a batch lies farther than `radius` from all others, and moves to the mean of
    what it absorbs, in training only (`neuroml.slots`); contexts are numbered as they come. A batch is absorbed before
    it is answered, and its labels are not looked at; at test time each example finds its context alone.
    `Learner.context` says which, so that the accuracy of the inference stands beside the results.

    Args:
      task: the network, whose `apply` and `capture` take `after` as those of `neuroml.mlp` do, and the scale of inputs.
      transform: the optimizer, with rules in it or without, but for those that need the word `importance`, and those
        that ask the network themselves (`neuroml.lwf`, replay), which would ask it without its gates.
      example: one example, for its shape.
      gates: `(params, places [contexts, pixels / pool], context [n], lot) -> after`, and `after(number, answers)` is
        what hidden layer `number` hands on in the place of its answers [n, size]. `lot` is an integer, drawn for each
        run.
      contexts: how many prototypes there is room for, >= 1. 1 is the content-free control: a context that is always
        the same. Once all are used, what is new joins the nearest: `report` says how many are.
      radius: in root mean squares of a pixel in [0, 1]. Smaller than the images of one task lie from their mean, each
        batch makes a context of its own; larger than those of others do, none does. Padded images need a smaller one
        than bare ones, normalized inputs a larger one.
      activity: gives the rules the word `activity`: the inputs of the layers, as the gates leave them.
      consolidates: where a new context appears, before anything of it is learnt, the rules consolidate by themselves,
        so that nobody needs to say where a task ends. The examples that they are given are the first of the new one.
      pool: a prototype holds sums of so many pixels that follow each other, and so takes as many times fewer bytes.
        Squared distances stay the same on average where differences of neighbours are independent, as in permuted
        images; in smooth ones they grow, by up to `pool`.

    Raises:
      UsageError: a number out of range, or pixels that do not split into groups of `pool`; at `init`, a network that
        is no `neuroml.mlp` with hidden layers.

    >>> import jax, neuroml
    >>> one = Batch(jnp.zeros((2, 2, 1)), jnp.int32(0), jnp.int32(0), jnp.ones(3, bool))
    >>> silent = lambda params, places, context, lot: lambda number, answers: answers * (context == 0)[:, None]
    >>> task = Task(neuroml.mlp((2, 2, 1), [8], 3), 1.0)
    >>> agent = inferring(task, optax.sgd(0.1), one, silent, contexts=4, radius=0.3)  # they answer in the first context
    >>> five = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), one)
    >>> state = agent.init(jax.random.key(0))
    >>> for level in (0.1, 0.9):
    ...     state, _ = agent.step(state, five._replace(x=five.x + level), jax.random.key(1))
    >>> float(abs(agent.capture(state, five._replace(x=five.x + 0.9))["head"]).max())
    0.0
    """
    if contexts < 1:
        raise UsageError(f"contexts={contexts} must be at least 1.")
    slots.check(radius=radius)
    pixels = example.x.size
    if pool < 1 or pixels % pool:
        raise UsageError(f"pool={pool} must be at least 1 and divide the {pixels} pixels of an example.")
    plain = make_learner(task, transform, activity=activity)

    def pooled(x: Array) -> Float[Array, "n groups"]:
        return jnp.sum(jnp.reshape(x, (-1, pixels // pool, pool)), axis=-1)

    def keys(batch: Batch) -> Float[Array, "n groups"]:
        return pooled(batch.x / task.scale)

    def at(own: InferringState) -> Learner:
        return make_learner(_gated(task, gates, own, pooled), transform, activity=activity)

    def init(key):
        state = plain.init(key)
        hidden_layers(state.params)
        lot = jax.random.bits(apart(key))
        return state._replace(opt_state=InferringState(state.opt_state, slots.empty(contexts, pixels // pool, 1), lot))

    def step(state, batch, key):
        places = keys(batch)
        nothing, sound = jnp.zeros((places.shape[0], 1)), jnp.isfinite(places).all(1)
        own = {"radius": radius * pixels**0.5, "nucleus": places.shape[0], "sound": sound}
        before = state.opt_state.prototypes
        prototypes, _ = slots.absorb(before, places, nothing, **own)
        if consolidates:
            new = before.alive.any() & (prototypes.alive.sum() > before.alive.sum())
            with one_in(10):  # of the steps at most, where a context lasts
                state = jax.lax.cond(new, lambda one: consolidate(one, batch, key), lambda one: one, state)
        state = state._replace(opt_state=state.opt_state._replace(prototypes=prototypes))
        after, info = at(state.opt_state).step(inner_state(state), batch, key)
        return after._replace(opt_state=state.opt_state._replace(inner=after.opt_state)), info

    def asked(name: str) -> Any:
        def ask(state, batch):
            return getattr(at(state.opt_state), name)(inner_state(state), batch)

        return ask

    def consolidate(state, examples, key):
        return inside(at(state.opt_state).consolidate)(state, examples, key)

    def report(state):
        return plain.report(inner_state(state)) | {"contexts used": state.opt_state.prototypes.alive.sum()}

    def infer(state, batch) -> Int[Array, " n"]:
        return slots.nearest(state.opt_state.prototypes, keys(batch))

    asking = {name: asked(name) for name in ("predict", "inspect", "capture")}
    return around(plain, init, step, consolidate=consolidate, report=report, context=infer, contexts=contexts, **asking)


def hidden_layers(params: Any) -> dict[int, Any]:
    """Returns the hidden layers of a `neuroml.mlp` by number.

    Raises:
      UsageError: a network of another kind, or without hidden layers.
    """
    hidden = params.get("layers") if isinstance(params, dict) and "convolutions" not in params else None
    if not hidden:
        raise UsageError("only the hidden layers of a `neuroml.mlp` can be gated, and this network has none.")
    return dict(hidden)


def answers_of(params: Any) -> dict[int, int]:
    """Returns, for each hidden layer of a `neuroml.mlp`, how many answers of it the next layer reads."""
    hidden = hidden_layers(params)
    following = [*list(hidden.values())[1:], params["head"]]
    return {number: layer["kernel"].shape[-2] for number, layer in zip(hidden, following, strict=True)}


def _gated(task: Task, gates: Gates, own: InferringState, pooled: Callable[[Array], Array]) -> Task:
    """Returns the task whose network finds the context of each example among the prototypes, of `pooled` pixels."""

    def told(call: Any) -> Any:
        def ask(params, model_state, x):
            context = slots.nearest(own.prototypes, pooled(x))
            return call(params, model_state, x, after=gates(params, own.prototypes.place, context, own.lot))

        return ask

    network = task.network
    return task._replace(network=network._replace(apply=told(network.apply), capture=told(network.capture)))
