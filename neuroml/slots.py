"""Slots: droplets that nucleate where nothing near exists, absorb what comes, merge, and are read softly.

A slot is a place in key space with the sums of what it absorbed. Groups of `nucleus` consecutive examples are looked
at together: if most of a group lies farther than `radius` from every slot, one nucleates at the mean of those. An
example joins the nearest slot, so that no statistics are lost, whatever the budget. Merging two slots adds their sums:
exact.

The physics, and what it means here: supersaturation = examples without a near slot; critical nucleus = `nucleus`;
linker length = the bandwidth `linker` of a soft read; valence = how many calls of `absorb` recruited a slot; surface
tension = `tension`, the pressure to merge.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from neuroml import core
from neuroml.errors import UsageError

FAR = jnp.inf

_RANGES = {"radius": "[0, inf]", "mobility": "[0, 1]", "linker": "(0, inf]", "share": "[0, 1]"}


class Slots(NamedTuple):
    """K slots in a key space of d dimensions, with sums of values of v dimensions."""

    place: jax.Array  # [K, d]: where a slot is
    mass: jax.Array  # [K]: examples absorbed, counted exactly up to 2^24; 0 is an empty slot
    values: jax.Array  # [K, v]: sums of the values of these examples (class counts, if values are one-hot)
    valence: jax.Array  # [K]: how many calls of `absorb` added to it

    @property
    def alive(self) -> Array:
        """Which slots exist; [K] bool."""
        return self.mass > 0


def check(**numbers: Any) -> None:
    """Raises `UsageError` for a number outside what `radius`, `mobility`, `linker` or `share` can be.

    >>> check(radius=float("inf"), mobility=0.5)
    >>> check(mobility=7)
    Traceback (most recent call last):
    ...
    neuroml.errors.UsageError: a slot needs a `mobility` in [0, 1], but mobility=7.
    """
    core.require_ranges("a slot", numbers, **{name: _RANGES[name] for name in numbers})


def empty(slots: int, keys: int, values: int) -> Slots:
    """Returns `slots` places, all empty."""
    if min(slots, keys, values) < 1:
        raise UsageError(f"slots={slots}, keys={keys} and values={values} must each be at least 1.")
    return Slots(jnp.zeros((slots, keys)), jnp.zeros(slots), jnp.zeros((slots, values)), jnp.zeros(slots))


def absorb(
    state: Slots,
    keys: Float[Array, "n keys"],
    values: Float[Array, "n values"],
    *,
    radius: ArrayLike,
    nucleus: int = 1,
    mobility: ArrayLike = 1.0,
    sound: Bool[Array, " n"] | None = None,
) -> tuple[Slots, Int[Array, " n"]]:
    """Takes examples in, and returns with the slots which of them each example joined.

    The first examples of all nucleate a slot, however few and whatever the radius: there is none that they could join.
    So `radius=inf` makes one slot.

    Args:
      state: the slots.
      keys: where the examples are.
      values: what goes with them.
      radius: a slot nucleates only where none is nearer than this.
      nucleus: examples that are looked at together; more than half of them must be far from all slots. n is a multiple.
      mobility: 1 moves a slot to the mean of all that it absorbed; 0 leaves it where it nucleated.
      sound: which examples to take in; the others join nothing and nucleate nothing. Default: all.

    >>> state, joined = absorb(empty(4, 1, 1), jnp.array([[0.0], [0.1], [5.0]]), jnp.ones((3, 1)), radius=1.0)
    >>> state.mass.tolist(), joined.tolist(), [f"{at:.2f}" for at in state.place[:2, 0].tolist()]
    ([2.0, 1.0, 0.0, 0.0], [0, 0, 1], ['0.05', '5.00'])
    """
    check(radius=radius, mobility=mobility)
    if nucleus < 1 or keys.shape[0] % nucleus:
        raise UsageError(f"{keys.shape[0]} examples do not split into groups of nucleus={nucleus}.")
    sound = jnp.ones(keys.shape[0], bool) if sound is None else sound
    keys, values = (jnp.where(sound[:, None], rows, 0).astype(state.place.dtype) for rows in (keys, values))
    take = lambda state, group: _absorb_group(state, group, radius, mobility)
    groups = jax.tree.map(lambda rows: rows.reshape(-1, nucleus, *rows.shape[1:]), (keys, values, sound))
    after, joined = jax.lax.scan(take, state, groups)
    valence = state.valence + (after.mass > state.mass)
    return after._replace(valence=valence), joined.reshape(-1)


def squared_distances(state: Slots, keys: Float[Array, "n keys"]) -> Float[Array, "n slots"]:
    """Returns the squared distance of each key to each slot; infinite to those that do not exist."""
    return _squared_distances(state.place, state.alive, keys.astype(state.place.dtype))


def nearest(state: Slots, keys: Float[Array, "n keys"]) -> Int[Array, " n"]:
    """Returns the nearest slot of each key."""
    return jnp.argmin(squared_distances(state, keys), axis=1)


def shares(state: Slots, keys: Float[Array, "n keys"], linker: ArrayLike) -> Float[Array, "n slots"]:
    """Returns how much each slot answers for each key: softmax(-distance^2 / (2 linker^2)); 0 where no slot exists.

    It is the retrieval of a modern Hopfield network with inverse temperature 1 / linker^2 (Ramsauer et al. 2021).
    """
    distances = squared_distances(state, keys)
    check(linker=linker)
    some = state.alive.any()
    return jnp.where(some, jax.nn.softmax(jnp.where(some, -distances, 0) / (2 * linker**2), axis=-1), 0)


def read(state: Slots, keys: Float[Array, "n keys"], linker: ArrayLike) -> Float[Array, "n values"]:
    """Returns the mean value of each slot, mixed by `shares`."""
    return shares(state, keys, linker) @ _ratio(state.values, state.mass[:, None])


def coarsening(state: Slots, tension: ArrayLike) -> Int[Array, " slots"]:
    """Returns for each slot the one that it becomes part of: small ones dissolve into near ones of the same majority.

    One step of Lifshitz, Slyozov and Wagner: a slot of mass m and radius R = m^(1/3) grows by
    `tension * (R / mean R - 1)`; one whose mass would fall to nothing dissolves. Survivors map to themselves.
    """
    radius = jnp.cbrt(state.mass)
    mean = radius.sum() / jnp.maximum(state.alive.sum(), 1)
    dissolves = state.alive & (state.mass + tension * (radius / jnp.maximum(mean, 1e-12) - 1) <= 0)
    stays = state.alive & ~dissolves
    majority = jnp.argmax(state.values, axis=1)
    distance = jnp.where(stays, squared_distances(state, state.place), FAR)
    kin = jnp.where(majority[:, None] == majority, distance, FAR)
    target = jnp.where(jnp.isfinite(kin).any(1), jnp.argmin(kin, 1), jnp.argmin(distance, 1))
    return jnp.where(dissolves & stays.any(), target, jnp.arange(state.mass.size))


def merge(state: Slots, into: Int[Array, " slots"]) -> Slots:
    """Returns the slots with each one's sums added to the slot that it goes into. Totals are kept."""
    slots = state.mass.size
    total = lambda rows: jax.ops.segment_sum(rows, into, slots)
    mass, place = total(state.mass), total(state.place * parts(state, into)[:, None])
    valence = jnp.where(mass > 0, jax.ops.segment_max(state.valence, into, slots), 0)  # of no slot at all: -infinity
    return Slots(place, mass, total(state.values), valence)


def parts(state: Slots, into: Int[Array, " slots"]) -> Float[Array, " slots"]:
    """Returns how large a part of the slot that it goes into each slot makes up, by mass: 1 where nothing merges."""
    return _ratio(state.mass, jax.ops.segment_sum(state.mass, into, state.mass.size)[into])


def evaporate(state: Slots, share: ArrayLike, binding: ArrayLike = 0.0) -> Slots:
    """Returns the slots with a share of their mass gone, less where many calls recruited a slot; under 1/2 it is empty.

    mass = mass * (1 - share * exp(-binding * valence))
    """
    check(share=share)
    rest = 1 - share * jnp.exp(-state.valence * binding)
    rest = jnp.where(state.mass * rest < 0.5, 0, rest)
    return state._replace(
        mass=state.mass * rest, values=state.values * rest[:, None], valence=state.valence * (rest > 0)
    )


def _absorb_group(state: Slots, group: tuple[Array, Array, Array], radius: ArrayLike, mobility: ArrayLike):
    """Returns the slots after one group, and which of them each of its examples joined. Touches only their rows."""
    keys, values, sound = group
    distances = squared_distances(state, keys)
    slot, here, mean = _nucleus(state, keys, sound, distances, radius)
    place = state.place.at[slot].set(jnp.where(here, mean, state.place[slot]))
    to_new = jnp.where(here, jnp.sum((keys - mean) ** 2, axis=1), distances[:, slot])
    where = jnp.argmin(distances.at[:, slot].set(to_new), axis=1)
    weight = sound.astype(keys.dtype)
    mass = state.mass.at[where].add(weight)
    drift = mobility * _ratio(weight[:, None] * (keys - place[where]), mass[where][:, None])
    values = state.values.at[where].add(weight[:, None] * values)
    return Slots(place.at[where].add(drift), mass, values, state.valence), where


def _nucleus(
    state: Slots, keys: Array, sound: Array, distances: Array, radius: ArrayLike
) -> tuple[Array, Array, Array]:
    """Returns an empty place, whether a slot nucleates there, and the mean of the far examples of a group."""
    first = ~state.alive.any()
    far = sound & (first | (distances.min(axis=1) > radius**2))
    number = far.sum()
    here = jnp.where(first, number > 0, 2 * number > keys.shape[0]) & ~state.alive.all()
    return jnp.argmin(state.alive), here, (keys * far[:, None]).sum(0) / jnp.maximum(number, 1)


def _squared_distances(place: Array, alive: Array, keys: Array) -> Array:
    # Seen from the midst of the slots: far from the origin the squares below cancel in float32.
    centre = (place * alive[:, None]).sum(0) / jnp.maximum(alive.sum(), 1)
    keys, place = keys - centre, place - centre
    squares = jnp.sum(keys**2, -1, keepdims=True) + jnp.sum(place**2, -1) - 2 * keys @ place.T
    return jnp.where(alive, jnp.maximum(squares, 0), FAR)


def _ratio(sums: Array, mass: Array) -> Array:
    """Returns `sums / mass`, and 0 where there is no mass; a mass that partly evaporated may be below 1."""
    return jnp.where(mass > 0, sums / jnp.where(mass > 0, mass, 1), 0)
