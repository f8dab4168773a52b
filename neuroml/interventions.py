"""Interventions: to destroy, hold still or watch neurons while a learner runs, to see what they do.

Each wraps a learner and returns one, so that they fit any method and each other.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from neuroml import projection, units
from neuroml.errors import UsageError, unknown
from neuroml.learner import Learner, LearnerState, Task

PARTS = ("neurons", "synapses")


class IntervenedState(NamedTuple):
    """Beside the weights: the state of what trains them, and of the intervention."""

    inner: Any
    count: jax.Array  # () int32: steps so far
    record: jax.Array  # what `recorded` saw; else empty


Share = ArrayLike | Mapping[str, Any]


def lesion(wiring: Any, params: Any, share: Share, key: PRNGKeyArray, *, part: str = "neurons") -> Any:
    """Draws, or is told, which weights a lesion destroys.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      params: the weights.
      share: of the neurons of each population between two layers, rounded; or of all synapses, on average. Or which
        neurons, by number, of some populations by name: `{"hidden": [0, 7]}`.
      key: chooses them where only their share is given.
      part: "neurons", with all that enters and leaves them; or "synapses", each weight of a kernel by itself.

    Returns:
      A tree like the weights, True where a weight is destroyed.

    Raises:
      UsageError: a share outside [0, 1], an unknown part, no population between two layers, or one or a neuron that is
        not there.

    >>> params = {"a": {"kernel": jnp.ones((1, 4))}, "b": {"kernel": jnp.ones((4, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> hurt = lesion(names, params, 0.5, jax.random.key(0))
    >>> int(hurt["a"]["kernel"].sum()), bool((hurt["a"]["kernel"].ravel() == hurt["b"]["kernel"].ravel()).all())
    (2, True)
    """
    if part not in PARTS:
        raise unknown("part of a network", part, PARTS)
    if isinstance(share, int | float) and not 0 <= share <= 1:
        raise UsageError(f"share={share} must be between 0 and 1: it is the share of the {part} that is destroyed.")
    units.begin("lesion", wiring, params, jnp.zeros)
    if isinstance(share, Mapping):
        return _lesion_of(share, units.find(wiring, params), params, part)
    if part == "synapses":
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, len(leaves))
        cut = lambda leaf, key: jax.random.bernoulli(key, share, leaf.shape) & (leaf.ndim > 1)
        return structure.unflatten(map(cut, leaves, keys))
    found = units.find(wiring, params)
    ranks = {name: jax.random.permutation(jax.random.fold_in(key, i), found[name].size) for i, name in enumerate(found)}
    return units.touched(found, params, {name: rank < jnp.round(share * len(rank)) for name, rank in ranks.items()})


def _lesion_of(chosen: Mapping[str, Any], found: dict[str, units.Units], params: Any, part: str) -> Any:
    """Returns which weights enter or leave chosen neurons."""
    if part != "neurons":
        raise UsageError(f"a lesion of chosen neurons destroys neurons, not {part}: leave `part` out.")
    for population, neurons in chosen.items():
        _check_neurons(found, population, neurons)
    marked = {
        name: jnp.zeros(found[name].size, bool).at[jnp.asarray(which, int)].set(True) for name, which in chosen.items()
    }
    return units.touched(found, params, marked)


def injured(inner: Learner, wiring: Callable[[Any], Any], share: Share, at: int, *, part: str = "neurons") -> Learner:
    """Destroys a share of a learner's neurons or synapses, others for each key, or chosen ones, before its step `at`.

    What is destroyed becomes zero. So do the optimizer's moments there in a learner of `make_learner`, in `gated` ones,
    and in those that train one of these inside: `recall`, `discriminant`, `conditioned` and interventions. All others
    (`separate`, `hard_attention`, `packnet`, `icarl`, generative ones) keep them, so that momentum may go on
    moving the destroyed weights for a while. A neuron without incoming and outgoing weights gets no gradient: it stays
    dead until something repairs it. A synapse can grow again. What a rule remembers of the destroyed weights, such as
    the anchors of `neuroml.ewc`, is stored elsewhere and stays.

    Args:
      inner: any learner whose weights have names.
      wiring: `(params) -> names of the axes`, such as `network.wiring`.
      share: how much of it, in [0, 1]; 0 changes nothing. Or which neurons, as `lesion` takes them.
      at: the step, counted from 0 over the whole stream.
      part: "neurons" or "synapses".

    Returns:
      A `Learner` that does all that `inner` does.
    """

    def harm(state, key):
        hurt = lesion(wiring(state.params), state.params, share, jax.random.fold_in(key, at), part=part)
        return inner.destroy(state, hurt)

    def step(state, batch, key, count):
        state = jax.lax.cond(count == at, harm, lambda state, key: state, state, key)
        return inner.step(state, batch, key)

    return _around(inner, step)


def clamped(
    inner: Learner,
    wiring: Callable[[Any], Any],
    population: str,
    neurons: Any,
    value: ArrayLike,
    start: int,
    stop: int,
) -> Learner:
    """Holds what some neurons say at one value while others learn, as light does in optogenetics.

    From step `start` until before step `stop` the neurons' incoming weights are zero and their bias is `value`, which
    then goes through the activation function. What they had learnt is theirs again afterwards, unchanged. Tests within
    that time see them clamped, too.

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
      UsageError: an unknown population, a neuron that it does not have, or a layer without a bias.
    """

    def hold(params, count):
        found = units.find(wiring(params), params)
        _check_clamp(found, params, population, neurons)
        which = jnp.zeros(found[population].size, bool).at[jnp.asarray(neurons)].set(True)
        mine = units.entering(found, params, {population: which & (start <= count) & (count < stop)})
        set_to = lambda leaf, held: jnp.where(held, jnp.asarray(value if leaf.ndim == 1 else 0, leaf.dtype), leaf)
        return jax.tree.map(set_to, params, mine), mine

    def step(state, batch, key, count):
        held, mine = hold(state.params, count)
        after, info = inner.step(state._replace(params=held), batch, key)
        kept = jax.tree.map(lambda held, old, new: jnp.where(held, old, new), mine, state.params, after.params)
        return after._replace(params=kept), info

    return _around(inner, step, lambda state, count: state._replace(params=hold(state.params, count)[0]))


def _check_neurons(found: dict[str, units.Units], population: str, neurons: Any) -> None:
    if population not in found:
        raise unknown("population between two layers", population, found)
    size = found[population].size
    if not isinstance(neurons, jax.core.Tracer):
        for number in np.ravel(neurons):
            if not 0 <= number < size:
                raise UsageError(f"population {population!r} has no neuron {number}: its {size} are 0 to {size - 1}.")


def _check_clamp(found: Any, params: Any, population: str, neurons: Any) -> None:
    _check_neurons(found, population, neurons)
    layers = projection.layers(params)
    for home in found[population].makers:
        if layers[home].bias is None:
            raise UsageError(
                f"population {population!r} cannot be clamped: what holds it at a value is the bias of layer {home!r}, "
                "which has none. Make the layer with a bias."
            )


def recorded(inner: Learner, task: Task, population: str, steps: int, *, every: int = 1) -> Learner:
    """Records what the neurons of a population answer, on average over each batch, before it is learnt.

    Clamped ones answer as they are held, whichever of the two wraps the other.

    Args:
      inner: any learner whose state's params are those of the task's network.
      task: the network; it has a wiring.
      population: whose neurons are watched.
      steps: how many rows there is room for; later ones are left out.
      every: steps between two rows.

    Returns:
      A `Learner`; its `init` raises `UsageError` for an unknown population. After a run the answers are
      `state.opt_state.record`, [steps, neurons], NaN where nothing was seen.
    """

    def watched(params) -> dict[str, units.Units]:
        name = task.network.wiring
        found = {} if name is None else units.find(name(params), params)
        if population not in found:
            raise unknown("population between two layers", population, found)
        return {population: found[population]}

    def answers(params, batch) -> Float[Array, " neurons"]:
        return units.outputs(watched(params), task.capture(params, batch)[1])[population].mean(0)

    def blank(params):
        return jnp.full((steps, watched(params)[population].size), jnp.nan)

    def note(record, state, batch, count):
        row = jnp.where(count % every == 0, count // every, steps)  # one past the end is dropped
        return record.at[row].set(answers(inner.weights(state), batch), mode="drop")

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
    own = lambda state: LearnerState(state.params, state.opt_state.inner)
    back = lambda after, old: LearnerState(after.params, old._replace(inner=after.opt_state))
    within = lambda change: lambda state, *rest: back(change(own(state), *rest), state.opt_state)
    shown = lambda ask: lambda state, *rest: ask(seen(own(state), state.opt_state.count), *rest)

    def init(key):
        state = inner.init(key)
        return LearnerState(state.params, IntervenedState(state.opt_state, jnp.int32(0), blank(state.params)))

    def counted(state, batch, key):
        old = state.opt_state
        after, info = step(own(state), batch, key, old.count)
        record = note(old.record, own(state), batch, old.count)
        return LearnerState(after.params, IntervenedState(after.opt_state, old.count + 1, record)), info

    return inner._replace(
        init=init,
        step=counted,
        consolidate=within(inner.consolidate),
        prepare=within(inner.prepare),
        settle=within(inner.settle),
        destroy=within(inner.destroy),
        predict=shown(inner.predict),
        report=shown(inner.report),
        inspect=shown(inner.inspect),
        weights=shown(inner.weights),
        context=None if inner.context is None else shown(inner.context),
    )
