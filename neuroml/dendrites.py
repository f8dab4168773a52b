"""A learner whose neurons have dendrites: they gate each answer by the context, which is inferred from the input."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from neuroml import slots
from neuroml.errors import UsageError
from neuroml.learner import Learner, Task, around, inner_state, make_learner
from neuroml.modules.gated import winning
from neuroml.modules.network import Network
from neuroml.slots import Slots
from neuroml.streams.stream import Batch


class DendriteState(NamedTuple):
    """Beside the weights: the optimizer's state, and a prototype of each context."""

    inner: Any
    prototypes: Slots


def dendritic(
    task: Task,
    transform: optax.GradientTransformation,
    example: Batch,
    *,
    contexts: int,
    segments: int = 1,
    radius: ArrayLike = 0.3,
    spread: ArrayLike = 1.0,
    winners: float = 1.0,
) -> Learner:
    r"""Makes the learner whose neurons are gated by dendrites that know contexts, which nobody names.

        answer  = the largest share `winners` of relu(x @ kernel + bias) * sigmoid(max_j u_j . c), the others 0
        c       = one-hot: the prototype of inputs that is nearest to the example
        u_j     ~ spread * N(0, 1) at the start, learnt by gradient: segment j of a neuron

    A prototype nucleates where most of a batch lies farther than `radius` from all others, and moves to the mean of
    what it absorbs, in training only (`neuroml.slots`). A batch is absorbed before it is answered, and its labels are
    not looked at; at test time each example finds its context alone. `Learner.context` says which, so that the accuracy
    of the inference stands beside the results.

    Args:
      task: the network, a `neuroml.mlp` with ReLU, and the scale of its inputs.
      transform: the optimizer, with rules in it or without. The weights are `{"network": ..., "dendrites": {layer:
        [segments, contexts, size]}}`.
      example: one example, for its shape.
      contexts: how many prototypes there is room for, >= 1. 1 is the content-free control: the same dendrites, and a
        context that is always the same.
      segments: dendrites of each neuron; 0 is inert: the network alone, if all may win.
      radius: in root mean squares of a pixel in [0, 1].
      spread: of the segments at the start; the larger, the more neurons are either open or shut.
      winners: share of each layer's neurons that may answer, in (0, 1].

    Raises:
      UsageError: a number out of range; at `init`, a network without hidden layers under "layers".

    Reference:
      Iyer et al. 2022, "Avoiding catastrophe: active dendrites enable multi-task learning in dynamic environments",
      Front. Neurorobot. 16:846219.

    How ours differs: the authors' training is told the tasks, and the context is the prototype itself, an image, by
    which their segments have 784 weights a context; half of their other weights are zero.

    >>> import neuroml
    >>> one = Batch(jnp.zeros((2, 2, 1)), jnp.int32(0), jnp.int32(0), jnp.ones(3, bool))
    >>> agent = dendritic(Task(neuroml.mlp((2, 2, 1), [8], 3), 1.0), optax.sgd(0.1), one, contexts=4, winners=0.5)
    >>> state = agent.init(jax.random.key(0))
    >>> five = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), one)
    >>> of = lambda level: five._replace(x=five.x + level)
    >>> for level in (0.1, 0.9):
    ...     state, _ = agent.step(state, of(level), jax.random.key(1))
    >>> agent.context(state, of(0.8)).tolist(), agent.context(state, of(0.2)).tolist()
    ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0])
    """
    if contexts < 1 or segments < 0:
        raise UsageError(f"contexts={contexts} must be at least 1 and segments={segments} at least 0.")
    if not 0 < winners <= 1:
        raise UsageError(f"winners={winners} is a share of the neurons: above 0 and at most 1.")
    slots.check(radius=radius)
    pixels = example.x.size
    grown = task._replace(network=_with_dendrites(task.network, contexts, segments, spread))
    plain = make_learner(grown, transform)
    far = radius * pixels**0.5

    def keys(batch: Batch) -> Float[Array, "n pixels"]:
        return jnp.reshape(batch.x / task.scale, (-1, pixels))

    def at(prototypes: Slots) -> Learner:
        return make_learner(_gated(grown, prototypes, winners), transform)

    def init(key):
        state = plain.init(key)
        return state._replace(opt_state=DendriteState(state.opt_state, slots.empty(contexts, pixels, 1)))

    def step(state, batch, key):
        places = keys(batch)
        nothing, sound = jnp.zeros((places.shape[0], 1)), jnp.isfinite(places).all(1)
        own = {"radius": far, "nucleus": places.shape[0], "sound": sound}
        prototypes, _ = slots.absorb(state.opt_state.prototypes, places, nothing, **own)
        after, info = at(prototypes).step(inner_state(state), batch, key)
        return after._replace(opt_state=DendriteState(after.opt_state, prototypes)), info

    def asked(name: str) -> Any:
        def ask(state, batch):
            learner = at(state.opt_state.prototypes)
            return getattr(learner, name)(inner_state(state), batch)

        return ask

    def consolidate(state, examples, key):
        after = at(state.opt_state.prototypes).consolidate(inner_state(state), examples, key)
        return after._replace(opt_state=state.opt_state._replace(inner=after.opt_state))

    def infer(state, batch) -> Int[Array, " n"]:
        return slots.nearest(state.opt_state.prototypes, keys(batch))

    asking = {name: asked(name) for name in ("predict", "inspect", "capture")}
    return around(plain, init, step, consolidate=consolidate, context=infer, contexts=contexts, **asking)


def _with_dendrites(network: Network, contexts: int, segments: int, spread: ArrayLike) -> Network:
    """Returns the network with dendrites among its weights; `apply` takes `context`, one a row of x, and `share`."""

    def init(key):
        params, model_state = network.init(key)
        if not (isinstance(params, dict) and params.get("layers")):
            raise UsageError("dendrites belong to the hidden layers of a `neuroml.mlp`, and this network has none.")
        sizes = {number: layer["kernel"].shape[-1] for number, layer in params["layers"].items()} if segments else {}
        draw = lambda number, size: jax.random.normal(jax.random.fold_in(key, number), (segments, contexts, size))
        dendrites = {number: spread * draw(number, size) for number, size in sizes.items()}
        return {"network": params, "dendrites": dendrites}, model_state

    def after(params, context, share):
        def gate(number: int, answers: Array) -> Array:
            if segments:
                answers = answers * jax.nn.sigmoid(params["dendrites"][number].max(0)[context])
            number_of = max(1, round(share * answers.shape[-1]))
            return jnp.where(winning(jax.lax.stop_gradient(answers), number_of), answers, 0) if share < 1 else answers

        return gate

    def apply(params, model_state, x, *, context, share):
        return network.apply(params["network"], model_state, x, after=after(params, context, share))

    def capture(params, model_state, x, *, context, share):
        gate = after(params, context, share)
        outputs, model_state, inputs = network.capture(params["network"], model_state, x, after=gate)
        return outputs, model_state, {"network": inputs}

    names = network.wiring
    if names is None:
        return Network(init, apply, capture)

    def wiring(params):
        unnamed = jax.tree.map(lambda leaf: (None,) * leaf.ndim, params["dendrites"])
        return {"network": names(params["network"]), "dendrites": unnamed}

    return Network(init, apply, capture, wiring)


def _gated(task: Task, prototypes: Slots, share: float) -> Task:
    """Returns the task whose network finds the context of each example among the prototypes."""
    network = task.network

    def told(call: Any) -> Any:
        def ask(params, model_state, x):
            context = slots.nearest(prototypes, jnp.reshape(x, (x.shape[0], -1)))
            return call(params, model_state, x, context=context, share=share)

        return ask

    return task._replace(network=network._replace(apply=told(network.apply), capture=told(network.capture)))
