"""Interventions: to destroy, hold still or watch neurons while a learner runs, to see what they do.

Each wraps a learner and returns one, so that they fit any method and each other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import projection, surgery, units
from neuroml.errors import UsageError, unknown
from neuroml.learner import Learner, LearnerState, Task, around, inner_state
from neuroml.lesions import Share, check_neurons, lesion


class IntervenedState(NamedTuple):
    """Beside the weights: the state of what trains them, and of the intervention."""

    inner: Any
    count: jax.Array  # () int32: steps so far
    record: jax.Array  # what `recorded` saw; else empty


def injured(
    inner: Learner, wiring: Callable[[Any], Any] | None, share: Share, at: int, *, part: str = "neurons"
) -> Learner:
    """Destroys a share of a learner's neurons or synapses, others for each key, or chosen ones, before its step `at`.

    What is destroyed becomes zero. So do the optimizer's moments there in a learner of `make_learner` and in all that
    are made around one (`neuroml.learner.around`). `hard_attention`, `packnet`, `gdumb`, `separate` and
    `generative_classifier` keep theirs, so that momentum may go on moving the destroyed weights for a while. A neuron
    without incoming and outgoing weights gets no gradient: it stays dead until something repairs it. (Where a
    normalization averages over neurons, it stays silent, but what enters it may move: it counts in the mean.) A synapse
    can grow again. What a rule remembers of the destroyed weights, such as the anchors of `neuroml.ewc`, is stored
    elsewhere and stays; `neuroml.si` and `neuroml.rwalk` so take the destruction for a step, and give it credit.

    Args:
      inner: any learner whose weights have names.
      wiring: `(params) -> names of the axes`, such as `network.wiring`. Neurons without a name are spared: so are the
        channels of `neuroml.cnn`, which flattens the image.
      share: how much of it, in [0, 1]; 0 changes nothing. Or which neurons, as `lesion` takes them.
      at: the step, counted from 0 over the whole stream.
      part: "neurons" or "synapses".

    Returns:
      A `Learner` that does all that `inner` does.

    Raises:
      UsageError: `at` is negative, or no wiring; at the first step, what `lesion` refuses.
    """
    named = _named(wiring)
    if at < 0:
        raise UsageError(f"at={at} must be a step of the stream, counted from 0.")

    def harm(state, key):
        hurt = lesion(named(state.params), state.params, share, jax.random.fold_in(key, at), part=part)
        return inner.destroy(state, hurt)

    def step(state, batch, key, count):
        state = jax.lax.cond(count == at, harm, lambda state, key: state, state, key)
        return inner.step(state, batch, key)

    return _around(inner, step)


def clamped(
    inner: Learner,
    wiring: Callable[[Any], Any] | None,
    population: str,
    neurons: Any,
    value: ArrayLike,
    start: int,
    stop: int,
) -> Learner:
    """Holds what some neurons say at one value while others learn, as light does in optogenetics.

    From step `start` until before step `stop` the neurons' incoming weights are zero and their bias is `value`, which
    then goes through the activation function. Afterwards their incoming weights and bias are those from before the
    hold. Tests within that time see them clamped, too.

    Outgoing weights belong to who reads them, and go on learning. So a rule that replaces or repairs neurons, such as
    `neuroml.redo`, `neuroml.nanotube` or `neuroml.schwann`, takes those of held neurons that seem silent. The optimizer
    is not held either: moments gathered meanwhile make the first free steps, under Adam as large as those of others.

    Args:
      inner: any learner whose weights have names.
      wiring: `(params) -> names of the axes`.
      population: whose neurons they are.
      neurons: their numbers, from 0.
      value: before the activation function.
      start: first step, counted from 0 over the whole stream.
      stop: first step at which they are free again.

    Returns:
      A `Learner` that does all that `inner` does.

    Raises:
      UsageError: a time that does not end after it begins, or no wiring; at the first step, an unknown population, a
        neuron that it does not have, a layer without a bias, or a normalization of the neurons.
    """
    named = _named(wiring)
    if not 0 <= start < stop:
        raise UsageError(f"start={start} and stop={stop}: neurons are held from step `start` until before `stop`.")

    def hold(params, count):
        names = named(params)
        found = units.find(names, params)
        _check_clamp(found, names, params, population, neurons)
        which = jnp.zeros(found[population].size, bool).at[jnp.asarray(neurons)].set(True)
        mine = surgery.entering(found, params, {population: which & (start <= count) & (count < stop)})
        set_to = lambda leaf, held: jnp.where(held, jnp.asarray(value if leaf.ndim == 1 else 0, leaf.dtype), leaf)
        return jax.tree.map(set_to, params, mine), mine

    def step(state, batch, key, count):
        held, mine = hold(state.params, count)
        after, info = inner.step(state._replace(params=held), batch, key)
        kept = jax.tree.map(lambda held, old, new: jnp.where(held, old, new), mine, state.params, after.params)
        return after._replace(params=kept), info

    return _around(inner, step, lambda state, count: state._replace(params=hold(state.params, count)[0]))


def _named(wiring: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    if wiring is None:
        raise UsageError(
            "this network has no names of neurons (its wiring is None): give it "
            "`network._replace(wiring=lambda params: neuroml.wiring.chain(params, [...]))`."
        )
    return wiring


def _check_clamp(found: Any, names: Any, params: Any, population: str, neurons: Any) -> None:
    check_neurons(found, population, neurons)
    layers = projection.layers(params)
    for home in found[population].makers:
        if layers[home].bias is None:
            raise UsageError(
                f"population {population!r} cannot be clamped: what holds it at a value is the bias of layer {home!r}, "
                "which has none. Make the layer with a bias."
            )
    for path, owner in units.of_no_layer(names, params, found).items():
        if owner == population:
            raise UsageError(
                f"population {population!r} cannot be clamped: {path} comes after what holds it (a normalization?), so "
                "that it would answer something else. Use a network without `layer_norm`."
            )


def recorded(inner: Learner, task: Task, population: str, steps: int, *, every: int = 1) -> Learner:
    """Records what the neurons of a population answer, on average over each batch, before it is learnt.

    Clamped ones answer as they are held, whichever of the two wraps the other.

    Args:
      inner: any learner that says what its layers are given (`Learner.capture`).
      task: the network; it has a wiring.
      population: whose neurons are watched.
      steps: how many rows there is room for; later ones are left out.
      every: steps between two rows.

    Returns:
      A `Learner`. After a run the answers are `state.opt_state.record`, [steps, neurons], NaN where nothing was seen.

    Raises:
      UsageError: no room, `every` below 1, a learner that does not say, or a network without wiring; at `init`, an
        unknown population.
    """
    if steps < 1 or every < 1:
        raise UsageError(f"steps={steps} and every={every} must be at least 1.")
    if inner.capture is None:
        raise UsageError(
            f"this learner does not say what population {population!r} answers: it has no `capture`. Those of "
            "`make_learner`, and all that are made around one, have it."
        )
    capture, named = inner.capture, _named(task.network.wiring)

    def watched(params) -> dict[str, units.Units]:
        found = units.find(named(params), params)
        if population not in found:
            raise unknown("population between two layers", population, found)
        return {population: found[population]}

    def answers(state, batch) -> Float[Array, " neurons"]:
        return units.outputs(watched(state.params), capture(state, batch))[population].mean(0)

    def blank(params):
        return jnp.full((steps, watched(params)[population].size), jnp.nan)

    def note(record, state, batch, count):
        row = jnp.where(count % every == 0, count // every, steps)  # one past the end is dropped
        return record.at[row].set(answers(state, batch), mode="drop")

    return _around(inner, lambda state, batch, key, count: inner.step(state, batch, key), blank=blank, note=note)


def _around(
    inner: Learner,
    step: Callable[..., Any],
    seen: Callable[[LearnerState, Array], LearnerState] = lambda state, count: state,
    *,
    blank: Callable[[Any], Array] = lambda params: jnp.zeros(0),
    note: Callable[..., Array] = lambda record, *_: record,
) -> Learner:
    """Returns a learner that counts steps, and shows its inner state to others as `seen` has it."""

    def init(key):
        state = inner.init(key)
        return LearnerState(state.params, IntervenedState(state.opt_state, jnp.int32(0), blank(state.params)))

    def counted(state, batch, key):
        old = state.opt_state
        after, info = step(inner_state(state), batch, key, old.count)
        record = note(old.record, inner_state(state), batch, old.count)
        return LearnerState(after.params, IntervenedState(after.opt_state, old.count + 1, record)), info

    return around(inner, init, counted, asked=lambda state: seen(inner_state(state), state.opt_state.count))
