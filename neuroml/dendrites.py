"""A learner whose neurons have dendrites: they gate each answer by the context, which is inferred from the input."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from neuroml.errors import UsageError
from neuroml.inferring import answers_of, inferring
from neuroml.learner import Learner, Task, apart
from neuroml.modules.gated import only, winning
from neuroml.modules.network import Network
from neuroml.streams.stream import Batch

DENDRITES = "dendrites"  # where the segments stand among the weights


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

    Contexts are inferred as `neuroml.inferring` says: a prototype nucleates where most of a batch is far from all.

    Args:
      task: the network, a `neuroml.mlp` with ReLU, and the scale of its inputs.
      transform: the optimizer, with rules in it or without, but for those that need the words `activity` or
        `importance` or ask the network themselves (`neuroml.lwf`, replay). The weights are the network's, and
        "dendrites": {layer: [segments, pixels, size]}.
      example: one example, for its shape.
      contexts: how many prototypes there is room for, >= 1. 1 is the content-free control: the same dendrites, and a
        context that is always the same.
      segments: dendrites of each neuron; 0 is inert: the network alone, if all may win.
      radius: how far from all prototypes a new one nucleates, in root mean squares of a pixel in [0, 1].
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
    if segments < 0:
        raise UsageError(f"segments={segments} must be at least 0.")
    if not 0 < winners <= 1:
        raise UsageError(f"winners={winners} is a share of the neurons: above 0 and at most 1.")
    network = _with_dendrites(task.network, example.x.size, segments, spread, winners)

    def gates(params, places, context, lot):
        del lot
        return _gates(params[DENDRITES], _level(places), context, winners)

    own = {"contexts": contexts, "radius": radius}
    return inferring(task._replace(network=network), transform, example, gates, **own)


def _with_dendrites(network: Network, pixels: int, segments: int, spread: ArrayLike, share: float) -> Network:
    """Returns the network with dendrites among its weights."""

    def init(key):
        params, model_state = network.init(key)
        readers = answers_of(params)
        sizes = readers if segments else {}
        draw = lambda number, size: jax.random.normal(jax.random.fold_in(apart(key), number), (segments, pixels, size))
        dendrites = {number: spread / pixels**0.5 * draw(number, size) for number, size in sizes.items()}
        return {**_louder(params, share**-0.5), DENDRITES: dendrites}, model_state

    def without(call: Any) -> Any:
        def ask(params, model_state, x, **told):
            return call({name: part for name, part in params.items() if name != DENDRITES}, model_state, x, **told)

        return ask

    return network._replace(init=init, apply=without(network.apply), capture=without(network.capture))


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
        return only(winning(jax.lax.stop_gradient(answers), few), answers)

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
