"""A learner whose hidden neurons compete: few of a layer answer, and those that won of late win more easily."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from neuroml import core
from neuroml.inferring import answers_of
from neuroml.learner import Learner, Task, around, inner_state, inside, make_learner
from neuroml.modules import gated


class CompetingState(NamedTuple):
    """Beside the weights: the optimizer's state, and how excitable each hidden neuron is."""

    inner: Any
    excitability: dict[int, jax.Array]  # {layer: [size]}, in [0, 1]


def competing(
    task: Task,
    transform: optax.GradientTransformation,
    *,
    winners: ArrayLike,
    strength: ArrayLike = 0.0,
    decay: ArrayLike = 0.9,
    shuffled: bool = False,
) -> Learner:
    r"""Makes the learner of a network each of whose hidden layers is followed by `neuroml.KWinners`.

        answers      = relu(...) where it and strength * excitability are among the k largest of the layer, else 0
        excitability = decay * excitability + (1 - decay) * share of the batch in which relu(...) itself is among them

    A batch meets the excitability of before it, which learns of it in training only, by one more forward pass.

    Args:
      task: the network, a `neuroml.mlp`, and the scale of its inputs.
      transform: the optimizer, with rules in it or without, but for those that need the words `activity` or
        `importance` or ask the network themselves (`neuroml.lwf`, replay).
      winners: share of each layer's neurons that may answer, in (0, 1]: k, rounded, but at least one. 1 is inert.
      strength: what full excitability is worth, >= 0, in units of the answers; 0 is plain k-winners-take-all.
      decay: of excitability per batch, in [0, 1).
      shuffled: the content-free control: each neuron has the excitability of another one, always the same.

    Returns:
      A `Learner`.

    Raises:
      UsageError: a number outside its range; at `init`, a network that is no `mlp` with hidden layers.

    Reference, and how ours differs: `neuroml.KWinners`.

    >>> import neuroml
    >>> from neuroml.streams.stream import Batch
    >>> agent = competing(Task(neuroml.mlp((2, 2, 1), [8], 3), 1.0), optax.sgd(0.1), winners=0.25, decay=0.5)
    >>> batch = Batch(jnp.ones((5, 2, 2, 1)), jnp.zeros(5, int), jnp.zeros(5, int), jnp.ones((5, 3), bool))
    >>> state, _ = agent.step(agent.init(jax.random.key(0)), batch, jax.random.key(1))
    >>> state.opt_state.excitability[0].sum().tolist()                          # two won, of eight, in the whole batch
    1.0
    """
    given = {"winners": winners, "strength": strength, "decay": decay}
    core.require_ranges("competing", given, winners="(0, 1]", strength="[0, inf)", decay="[0, 1)")
    plain = make_learner(task, transform)

    def among(answers: Array) -> Int[Array, ""]:
        return jnp.maximum(1, jnp.round(jnp.asarray(winners) * answers.shape[-1])).astype(jnp.int32)

    def after(excitability: dict[int, Array]) -> Any:
        def compete(number: int, answers: Array) -> Array:
            excited = gated.excited(answers, excitability[number], strength, shuffled)
            return gated.only(gated.winning(excited, among(answers)), answers)

        return compete

    def at(excitability: dict[int, Array]) -> Learner:
        told = lambda call: lambda params, state, x: call(params, state, x, after=after(excitability))
        network = task.network._replace(apply=told(task.network.apply), capture=told(task.network.capture))
        return make_learner(task._replace(network=network), transform)

    def init(key):
        state = plain.init(key)
        excitability = {number: jnp.zeros(size) for number, size in answers_of(state.params).items()}
        return state._replace(opt_state=CompetingState(state.opt_state, excitability))

    def drives(state, batch) -> dict[int, Float[Array, "n size"]]:
        """Returns what each layer's neurons answer, before they compete."""
        seen = {}

        def compete(number, answers):
            seen[number] = answers
            return after(state.opt_state.excitability)(number, answers)

        task.network.apply(state.params, {}, batch.x / task.scale, after=compete)
        return seen

    def step(state, batch, key):
        stepped, info = at(state.opt_state.excitability).step(inner_state(state), batch, key)
        recent = {
            number: gated.recent(state.opt_state.excitability[number], answers, among(answers), decay)
            for number, answers in drives(state, batch).items()
        }
        return stepped._replace(opt_state=CompetingState(stepped.opt_state, recent)), info

    def asked(name: str) -> Any:
        return lambda state, batch: getattr(at(state.opt_state.excitability), name)(inner_state(state), batch)

    def consolidate(state, examples, key):
        return inside(at(state.opt_state.excitability).consolidate)(state, examples, key)

    asking = {name: asked(name) for name in ("predict", "inspect", "capture")}
    return around(plain, init, step, consolidate=consolidate, **asking)
