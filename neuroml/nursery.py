"""Nursery: what growth keeps of the neurons, and who is to be born or to die, when and where.

The rule is `neuroml.growth`, where the equations are; how weights come to life is in `neuroml.growing`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from neuroml import averages, projection, units
from neuroml import ground as grounds


class Neurons(NamedTuple):
    """What is known of the neurons of one population."""

    alive: jax.Array  # [size] bool
    age: jax.Array  # [size] int32: updates since birth, or since the start
    utility: jax.Array  # [size], running mean
    pull: jax.Array  # (): running mean of the size of the step of a neuron's outgoing weights
    heard: jax.Array  # [size] int32: of how many updates the utility is
    pulls: jax.Array  # () int32: of how many the pull is


class GrowthState(NamedTuple):
    """State of `growth`."""

    neurons: dict[str, Neurons]
    ground: dict[str, grounds.Ground]  # by layer
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update bore or let die
    fast: jax.Array  # (): mean loss over the last few updates
    slow: jax.Array  # (): mean loss over many
    losses: jax.Array  # () int32: finite losses so far
    count: jax.Array  # () int32: updates so far
    wait: jax.Array  # () int32: updates since growth was last due
    births: jax.Array  # () int32: neurons born so far
    deaths: jax.Array  # () int32: neurons that died
    refused: jax.Array  # () int32: how often growth was due, but no neuron in reserve where it was
    number: jax.Array  # (): neurons a birth
    threshold: jax.Array  # ()
    patience: jax.Array  # ()
    target: jax.Array  # ()
    maturity: jax.Array  # ()
    youth_gain: jax.Array  # ()
    apoptosis: jax.Array  # ()
    decay: jax.Array  # ()
    scale: jax.Array  # ()
    fast_decay: jax.Array  # ()
    slow_decay: jax.Array  # ()

    hyperparameters = ("number", "threshold", "patience", "target", "maturity", "youth_gain", "apoptosis", "decay")
    hyperparameters += ("scale", "fast_decay", "slow_decay")

    def consolidate(self, params: Any, **_: Any) -> "GrowthState":
        """Counts the inputs since the last call as occupied: neurons born later listen to other directions."""
        del params
        return self._replace(ground={home: grounds.settled(one, self.scale) for home, one in self.ground.items()})

    def maturities(self) -> dict[str, Float[Array, " size"]]:
        """Returns how mature each neuron is, in [0, 1]. Those that were there at the start are."""
        young = lambda one: (one.age < self.count) * jnp.maximum(0, 1 - one.age / jnp.maximum(self.maturity, 1))
        return {name: 1 - young(one) for name, one in self.neurons.items()}

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns births, deaths, refusals for want of room, and how many neurons of each population are alive."""
        counts = {"born": self.births, "died": self.deaths, "growth refused": self.refused}
        counts |= {f"alive {name}": one.alive.sum() for name, one in self.neurons.items()}
        return {name: count.astype(jnp.float32) for name, count in counts.items()}


def makers(found: Any) -> list[str]:
    """Returns the layers that make the populations, each once."""
    return list(dict.fromkeys(home for part in found.values() for home in part.makers))


def watched(found: Any, when: str, directions: str) -> set[str]:
    """Returns the layers whose input space must be known."""
    read = {part.readers[0] for part in found.values()} if when == "rank" else set()
    return read | set(makers(found) if directions == "free" else ())


def newcomers(alive: Bool[Array, " size"]) -> Neurons:
    """Returns what is known of neurons before the first update."""
    age, utility, pull = jnp.zeros(alive.shape, jnp.int32), jnp.zeros(alive.shape), jnp.zeros(())
    return Neurons(alive, age, utility, pull, averages.begin(utility), averages.begin(pull))


def grown_up(state: GrowthState, names: Any) -> GrowthState:
    """Returns the state in which the living neurons of some populations are as old as those of the start."""

    def after(one):
        age, heard = (jnp.where(one.alive, state.count, 0) for _ in range(2))  # apart: a loop may donate both
        return one._replace(age=age, heard=heard, pulls=jnp.copy(state.count))

    old = {name: after(one) if name in names else one for name, one in state.neurons.items()}
    return state._replace(neurons=old)


def present(state: GrowthState, living: Any) -> GrowthState:
    """Returns the state in which only those are alive who have weights: others than growth may have destroyed some."""

    def after(old, there):
        kept = old.alive & there
        gone = {name: jnp.where(kept, getattr(old, name), 0) for name in ("age", "utility", "heard")}
        return old._replace(alive=kept, **gone)

    return state._replace(neurons={name: after(old, living[name]) for name, old in state.neurons.items()})


def gains(state: GrowthState) -> dict[str, Float[Array, " size"]]:
    """Returns by what the steps of each neuron's incoming weights are multiplied: exactly 1 for the grown-up."""
    return {name: 1 + (state.youth_gain - 1) * (1 - share) for name, share in state.maturities().items()}


def heard(state: GrowthState, value: Any) -> GrowthState:
    """Returns the state after one more loss, if there is one and it is finite."""
    value = jnp.asarray(jnp.nan if value is None else value, jnp.float32)
    fast, _ = averages.after(state.fast, state.losses, value, state.fast_decay)
    slow, losses = averages.after(state.slow, state.losses, value, state.slow_decay)
    return state._replace(fast=fast, slow=slow, losses=losses)


def lived(found: Any, state: GrowthState, updates: Any, params: Any, answers: Any) -> GrowthState:
    """Returns the state with all living neurons one update older, and their utility and pull known better."""
    strength, steps = units.outgoing(found, params), units.outgoing(found, updates)

    def after(name, old):
        utility = jnp.abs(answers[name]).mean(0) * strength[name]
        pull = jnp.sum(steps[name], where=old.alive) / jnp.maximum(old.alive.sum(), 1)
        utility, heard = averages.after(old.utility, old.heard, utility, state.decay)
        pull, pulls = averages.after(old.pull, old.pulls, pull, state.decay)
        utility, heard = (jnp.where(old.alive, leaf, 0) for leaf in (utility, heard))
        return Neurons(old.alive, old.age + old.alive, utility, pull, heard, pulls)

    neurons = {name: after(name, old) for name, old in state.neurons.items()}
    return state._replace(neurons=neurons, count=state.count + 1, wait=state.wait + 1)


def _weights(found: Any, params: Any) -> dict[str, int]:
    """Returns how many weights one more neuron of each population has."""
    layers = projection.layers(params)
    into = lambda part: sum(layers[home].inputs for home in part.makers)
    out = lambda part: sum(math.prod(layers[home].shape) // layers[home].shape[-2] for home in part.readers)
    return {name: into(part) + out(part) for name, part in found.items()}


def felt(found: Any, state: GrowthState, params: Any, activity: Any, windows: projection.Windows | None) -> GrowthState:
    """Returns the state after one more batch of inputs of the layers that are watched, of living neurons only."""
    if not state.ground:
        return state
    rows = projection.inputs(params, activity, windows)
    ok = projection.finite({home: rows[home] for home in state.ground})
    ground = {home: grounds.felt(one, rows[home], ok) for home, one in state.ground.items()}
    layers = projection.layers(params)
    for name, part in found.items():
        for home in (reader for reader in part.readers if reader in ground):
            gone = jnp.tile(~state.neurons[name].alive, math.prod(layers[home].shape[:-2]))
            ground[home] = grounds.without(ground[home], jnp.pad(gone, (0, layers[home].bias is not None)))
    return state._replace(ground=ground)


def dying(state: GrowthState, one: Neurons) -> Bool[Array, " size"]:
    """Returns which neurons of a population are grown up and still of little use."""
    mean = one.utility.sum() / jnp.maximum(one.alive.sum(), 1)
    return one.alive & (one.age > state.maturity) & (one.utility < state.apoptosis * mean)


def chosen(
    found: Any, state: GrowthState, params: Any, when: str, key: Array, lots: Array | None
) -> tuple[dict[str, Array], GrowthState]:
    """Returns which neurons are to be born, all in one population, and the state that knows of it."""
    room = jnp.array([~one.alive.all() for one in state.neurons.values()])
    free = _free(found, state, params) if when == "rank" else None
    due = _due(state, when, key, free)
    pulls = jnp.array([one.pull for one in state.neurons.values()])
    scores = (pulls if free is None else 1 - free) / jnp.array(list(_weights(found, params).values()))
    open_, number = due & room, jnp.ceil(state.number)
    place = jnp.argmax(jnp.where(open_, scores if lots is None else lots, -jnp.inf))
    here = open_ & (jnp.arange(len(found)) == place)
    nth = {name: jnp.cumsum(~one.alive) for name, one in state.neurons.items()}
    born = {name: here[i] & ~state.neurons[name].alive & (nth[name] <= number) for i, name in enumerate(found)}
    was_due = due.any() & (number > 0)
    refused = state.refused + (was_due & ~open_.any())
    return born, state._replace(wait=jnp.where(was_due, 0, state.wait), refused=refused)


def _due(state: GrowthState, when: str, key: Array, free: Array | None) -> Bool[Array, " populations"]:
    """Returns in which populations growth is due."""
    patient = state.wait >= state.patience
    if when == "random":
        patient = jax.random.uniform(key) < 1 / state.patience
    calls = {
        "plateau": (state.fast >= (1 - state.threshold) * state.slow) & (state.fast > state.target),
        "surprise": state.fast > (1 + state.threshold) * state.slow,
        "rank": None if free is None else free < state.threshold,
    }
    return jnp.broadcast_to(patient & calls.get(when, True), (len(state.neurons),))


def _free(found: Any, state: GrowthState, params: Any) -> Float[Array, " populations"]:
    """Returns the free rank of the layers that read the populations, as shares of what can be alive of it."""
    layers = projection.layers(params)
    shares = []
    for name, part in found.items():
        places = math.prod(layers[part.readers[0]].shape[:-2])
        shares.append(grounds.free_share(state.ground[part.readers[0]], places * (~state.neurons[name].alive).sum()))
    return jnp.array(shares)


def turned(state: GrowthState, born: Any, dying: Any) -> GrowthState:
    """Returns the state after births and deaths."""

    def after(name, one):
        keep = one.alive & ~dying[name]
        kept = {name: jnp.where(keep, getattr(one, name), 0) for name in ("age", "utility", "heard")}
        return one._replace(alive=keep | born[name], **kept)

    total = lambda chosen: jnp.concatenate([*chosen.values()]).sum(dtype=jnp.int32)
    return state._replace(
        neurons={name: after(name, one) for name, one in state.neurons.items()},
        renewed={name: born[name] | dying[name] for name in born},
        births=state.births + total(born),
        deaths=state.deaths + total(dying),
    )
