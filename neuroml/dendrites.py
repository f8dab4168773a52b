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

DENDRITES = "dendrites"  # where the segments stand among the weights


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

        answer  = the largest share `winners` of relu(x @ kernel + bias) * sigmoid(u_j . c), the others 0
        c       = (p - mean(p)) / std(p), over pixels: the prototype p of inputs that is nearest to the example
        u_j     ~ spread * N(0, 1) / sqrt(pixels) at the start, learnt by gradient: of a neuron's segments the one with
                  the largest |u_j . c|

    A prototype nucleates where most of a batch lies farther than `radius` from all others, and moves to the mean of
    what it absorbs, in training only (`neuroml.slots`). A batch is absorbed before it is answered, and its labels are
    not looked at; at test time each example finds its context alone. `Learner.context` says which, so that the accuracy
    of the inference stands beside the results.

    Args:
      task: the network, a `neuroml.mlp` with ReLU, and the scale of its inputs.
      transform: the optimizer, with rules in it or without, but for those that need the words `activity` or
        `importance`. The weights are the network's, and "dendrites": {layer: [segments, pixels, size]}.
      example: one example, for its shape.
      contexts: how many prototypes there is room for, >= 1. 1 is the content-free control: the same dendrites, and a
        context that is always the same. Once all are used, what is new joins the nearest: `report` says how many are.
      segments: dendrites of each neuron; 0 is inert: the network alone, if all may win.
      radius: in root mean squares of a pixel in [0, 1]. Smaller than the images of one task lie from their mean, each
        batch makes a context of its own; larger than those of others do, none does. Padded images need a smaller one
        than bare ones, normalized inputs a larger one.
      spread: deviation of u_j . c at the start; the larger, the more neurons are either open or shut.
      winners: share of each layer's neurons that may answer, in (0, 1]. Kernels that read them start 1 / sqrt(winners)
        times as large.

    Raises:
      UsageError: a number out of range; at `init`, a network that is no `mlp` with hidden layers.

    Reference:
      Iyer et al. 2022, "Avoiding catastrophe: active dendrites enable multi-task learning in dynamic environments",
      Front. Neurorobot. 16:846219.

    How ours differs: the authors' training is told the tasks. Their images are standardized, and prototypes so with
    them, by the mean and deviation of the data; here each prototype by its own. Their winners are chosen without a ReLU
    before it; half of their other weights are zero, and the rest start larger for that; their segments start uniform.

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
    grown = task._replace(network=_with_dendrites(task.network, pixels, segments, spread, winners))
    plain = make_learner(grown, transform)
    far = radius * pixels**0.5

    def keys(batch: Batch) -> Float[Array, "n pixels"]:
        return jnp.reshape(batch.x / task.scale, (-1, pixels))

    def at(prototypes: Slots) -> Learner:
        return make_learner(_gated(grown, prototypes), transform)

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

    def report(state):
        return plain.report(inner_state(state)) | {"contexts used": state.opt_state.prototypes.alive.sum()}

    def infer(state, batch) -> Int[Array, " n"]:
        return slots.nearest(state.opt_state.prototypes, keys(batch))

    asking = {name: asked(name) for name in ("predict", "inspect", "capture")}
    return around(plain, init, step, consolidate=consolidate, report=report, context=infer, contexts=contexts, **asking)


def _with_dendrites(network: Network, pixels: int, segments: int, spread: ArrayLike, share: float) -> Network:
    """Returns the network with dendrites among its weights; `apply` takes `prototypes`, too."""

    def init(key):
        params, model_state = network.init(key)
        sizes = _readers(params) if segments else {}
        own = jax.random.split(key)[1]  # the network folds small numbers into `key`
        draw = lambda number, size: jax.random.normal(jax.random.fold_in(own, number), (segments, pixels, size))
        dendrites = {number: spread / pixels**0.5 * draw(number, size) for number, size in sizes.items()}
        return {**_louder(params, share**-0.5), DENDRITES: dendrites}, model_state

    def told(call: Any) -> Any:
        def ask(params, model_state, x, *, prototypes):
            context = slots.nearest(prototypes, jnp.reshape(x, (x.shape[0], -1)))
            bare = {name: part for name, part in params.items() if name != DENDRITES}
            return call(bare, model_state, x, after=_gates(params[DENDRITES], _level(prototypes.place), context, share))

        return ask

    return network._replace(init=init, apply=told(network.apply), capture=told(network.capture))


def _readers(params: Any) -> dict[int, int]:
    """Returns, for each hidden layer, how many answers of it the next layer reads."""
    hidden = params.get("layers") if isinstance(params, dict) and "convolutions" not in params else None
    if not hidden:
        raise UsageError("dendrites belong to the hidden layers of a `neuroml.mlp`, and this network has none.")
    following = [*list(hidden.values())[1:], params["head"]]
    return {number: layer["kernel"].shape[-2] for number, layer in zip(hidden, following, strict=True)}


def _louder(params: Any, gain: float) -> Any:
    """Returns the weights with all kernels but the first larger: what few winners hand on then counts as all would."""
    first, *rest = params["layers"]
    loud = lambda layer: {**layer, "kernel": gain * layer["kernel"]}
    layers = {first: params["layers"][first], **{number: loud(params["layers"][number]) for number in rest}}
    return {**params, "layers": layers, "head": loud(params["head"])}


def _gates(dendrites: Any, places: Float[Array, "contexts pixels"], context: Int[Array, " n"], share: float) -> Any:
    """Returns what hidden layer `number` hands on in the place of its answers [n, size]."""

    def after(number: int, answers: Array) -> Array:
        if dendrites:
            answers = answers * jax.nn.sigmoid(_strongest(places @ dendrites[number])[context])
        if share == 1:
            return answers
        few = max(1, round(share * answers.shape[-1]))
        return jnp.where(winning(jax.lax.stop_gradient(answers), few), answers, 0)

    return after


def _level(places: Float[Array, "contexts pixels"]) -> Float[Array, "contexts pixels"]:
    """Returns places of mean 0 and deviation 1, and 0 for one without any."""
    away = places - places.mean(1, keepdims=True)
    deviation = away.std(1, keepdims=True)
    return jnp.where(deviation > 0, away / jnp.where(deviation > 0, deviation, 1), 0)


def _strongest(excitation: Float[Array, "segments contexts size"]) -> Float[Array, "contexts size"]:
    """Returns what the segment of largest magnitude says of each context."""
    which = jnp.abs(excitation).argmax(0, keepdims=True)
    return jnp.take_along_axis(excitation, which, axis=0)[0]


def _gated(task: Task, prototypes: Slots) -> Task:
    """Returns the task whose network finds the context of each example among the prototypes."""
    network = task.network

    def told(call: Any) -> Any:
        return lambda params, model_state, x: call(params, model_state, x, prototypes=prototypes)

    return task._replace(network=network._replace(apply=told(network.apply), capture=told(network.capture)))
