"""Growth: neurogenesis inside one compiled step. Neurons are born where there is need, mature, and die of no use."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import core, growing, projection, units
from neuroml import ground as grounds
from neuroml.errors import UsageError, unknown

THRESHOLDS = {"plateau": 0.01, "surprise": 0.5, "rank": 0.5, "steps": 0.0, "random": 0.0}  # by `when`
DIRECTIONS = ("free", "random")
PLACES = ("score", "random")


class Neurons(NamedTuple):
    """What is known of the neurons of one population."""

    alive: jax.Array  # [size] bool
    age: jax.Array  # [size] int32: updates since birth, or since the start
    utility: jax.Array  # [size], running mean
    pull: jax.Array  # (): running mean of the size of the step of a neuron's outgoing weights


class GrowthState(NamedTuple):
    """State of `growth`."""

    neurons: dict[str, Neurons]
    ground: dict[str, grounds.Ground]  # by layer
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update bore or let die
    fast: jax.Array  # (): mean loss over the last few updates
    slow: jax.Array  # (): mean loss over many
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


def growth(
    wiring: Any,
    fresh: Callable[[Array], Any] | None = None,
    *,
    when: str = "plateau",
    number: ArrayLike = 1,
    threshold: ArrayLike | None = None,
    patience: ArrayLike = 100,
    target: ArrayLike = 0.0,
    where: str = "score",
    directions: str = "free",
    maturity: ArrayLike = 100,
    youth_gain: ArrayLike = 2.0,
    apoptosis: ArrayLike = 0.0,
    decay: ArrayLike = 0.99,
    scale: ArrayLike = 0.03,
    fast_decay: ArrayLike = 0.9,
    slow_decay: ArrayLike = 0.99,
) -> optax.GradientTransformationExtraArgs:
    r"""Growth: wakes neurons that are in reserve where the network needs them, and lets useless ones die.

    Weights are allocated at full capacity; `neuroml.reserve` sets most neurons to zero, and the rule keeps them there
    whatever the optimizer does. Where growth is due, `number` of them are born in one population: incoming weights
    and bias are drawn, outgoing weights are zero, so that the function is the same after the birth.

        when    "plateau"    fast >= (1 - threshold) * slow  and  fast > target     fast, slow: running means of `value`
                "surprise"   fast > (1 + threshold) * slow
                "rank"       free rank of the layer that reads the population < threshold
                "steps"      always; "random": with chance 1 / patience: the content-free controls
                and, except for "random", `patience` updates have passed since growth was last due
        where   largest (mean step of the living neurons' outgoing weights) / (weights of a neuron), a running mean;
                for "rank" largest (1 - free rank) / (weights of a neuron)
        how     w_in = |w| * F w / |F w|,  w fresh,  F = (I + C / (scale * unit))^-1,  C: second moment of the inputs
                that were consolidated, bias included, unit: mean eigenvalue of the first one
                free rank = trace(F) / inputs, of the living inputs only
        youth   a new neuron's incoming steps are times 1 + (youth_gain - 1) * max(0, 1 - age / maturity)
        death   utility_j = decay * utility_j + (1 - decay) * mean |h_j| * \sum |w_out_j|
                neurons older than `maturity` with utility_j < apoptosis * mean_i utility_i die

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons. Default:
        `neuroml.growing.draw`, LeCun's for as many inputs as are alive.
      when: what makes growth due; see above.
      number: neurons born at a time, >= 0, rounded up; 0 never grows, and is inert if none is in reserve.
      threshold: see above; default 0.01 for "plateau", 0.5 for "surprise" and "rank".
      patience: updates, >= 1.
      target: of the loss; a plateau below it is good enough.
      where: "score", or "random", the content-free control: any population with room.
      directions: "free": away from what was consolidated; or "random", the content-free control: as drawn.
      maturity: updates until a neuron is grown up.
      youth_gain: of the steps of a newborn's incoming weights; 1 is inert.
      apoptosis: share of the mean utility below which a neuron dies, in [0, 1); 0 is inert.
      decay: of utilities and pulls, in [0, 1).
      scale: the ridge, in units of each layer's `unit`; smaller occupies more.
      fast_decay, slow_decay: of the two running losses; 0.9 and 0.99 look back about 10 and 100 updates.

    Returns:
      A rule that needs the words `activity` and `key`, and `value` for "plateau" and "surprise". Last in the chain, as
      `neuroml.renewal(optax.adam(1e-3), growth(wiring), wiring)`, which clears the moments of the new and the dead. To
      know what is occupied it must be consolidated (by `neuroml.every`, around `renewal`, without task boundaries).
      Losses and answers that are not finite are not counted. When no neuron is in reserve, nothing is born and
      `report` counts it under "growth refused"; `neuroml.resize` makes room.

    Raises:
      UsageError: no population between two layers; one that cannot grow (shared or recurrent weights, a normalization
        over neurons); an activity or a `fresh` that does not fit; a setting out of range.

    Reference:
      Zero outgoing weights: Evci et al. 2022, ICLR, "GradMax: growing neural networks using gradient information";
      when and where by score and cost: Mitchell et al. 2023, "Self-expanding neural networks". Adult neurogenesis:
      Aimone et al. 2014, "Regulation and function of adult neurogenesis", Physiol. Rev. 94:991.

    How ours differs: capacity and weights at zero in place of new arrays; directions that earlier inputs do not occupy
    in place of those of the largest gradient; as score the steps that the optimizer makes (under Adam these say little
    about the gradient, and the cost decides), not the natural gradient of a candidate.

    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> params = growing.reserve(params, names, alive=1)
    >>> tx = growth(names, when="steps", patience=2)
    >>> words = {"activity": {"a": jnp.ones((1, 2)), "b": jnp.array([[2.0, 0.0, 0.0]])}, "key": jax.random.key(0)}
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     step, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, **words)
    ...     params = optax.apply_updates(params, step)
    >>> state.neurons["hidden"].alive.tolist(), params["b"]["kernel"].ravel().tolist()
    ([True, True, False], [1.0, 0.0, 0.0])
    """
    _check(when, where, directions, number=number, patience=patience, apoptosis=apoptosis)
    given = {"number": number, "threshold": THRESHOLDS[when] if threshold is None else threshold, "patience": patience}
    given |= {"target": target, "maturity": maturity, "youth_gain": youth_gain, "apoptosis": apoptosis, "decay": decay}
    given |= {"scale": scale, "fast_decay": fast_decay, "slow_decay": slow_decay}

    def init(params):
        blank = units.begin("growth", wiring, params, lambda size: jnp.zeros(size, bool))
        none, numbers = [jnp.zeros(()) for _ in range(2)], [jnp.zeros((), jnp.int32) for _ in range(5)]
        settings = {name: core.leaf(value) for name, value in given.items()}
        if not isinstance(blank, dict):
            return GrowthState(blank, blank, blank, *none, *numbers, **settings)
        found = growing.growable("growth", wiring, params)
        neurons = {name: _neurons(alive) for name, alive in growing.living(found, params).items()}
        homes = _watched(found, when, directions)
        ground = {
            home: grounds.bare(layer.inputs) for home, layer in projection.layers(params).items() if home in homes
        }
        return GrowthState(neurons, ground, blank, *none, *numbers, **settings)

    def growth(updates, state, params, *, activity, key, value=None, **_):
        if when in ("plateau", "surprise"):
            core.require("growth", ("value",), {"value": value})
        state, found = core.live(state, **given), units.find(wiring, params)
        for_when, for_where, for_birth = jax.random.split(key, 3)
        updates = units.gate(found, updates, _gains(state))
        state = _lived(found, _heard(state, value), updates, params, units.outputs(found, activity))
        state = _felt(state, params, activity)
        dying = {name: _dying(state, one) for name, one in state.neurons.items()}
        lots = jax.random.uniform(for_where, (len(found),)) if where == "random" else None
        born, state = _chosen(found, state, params, when, for_when, lots)
        dead = {name: ~one.alive & ~born[name] | dying[name] for name, one in state.neurons.items()}
        some = jnp.any(jnp.array([which.any() for which in born.values()]))

        def bear(steps):
            drawn = growing.draw(for_birth, params) if fresh is None else _fitting(fresh(for_birth), params)
            free = {home: state.ground[home].free for home in _makers(found)} if directions == "free" else {}
            share = {name: which.astype(jnp.float32) for name, which in born.items()}
            return units.pull(found, steps, params, growing.towards(drawn, free, found, dead), share)

        updates = jax.lax.cond(some, bear, lambda steps: steps, updates)
        gone = units.touched(found, params, dead)
        still = lambda step, old, off: jnp.where(off, -old.astype(step.dtype), step)
        return jax.tree.map(still, updates, params, gone), _turned(state, born, dying)

    return core.rule(init, growth)


def _check(when: str, where: str, directions: str, **numbers: ArrayLike) -> None:
    for kind, name, known in (
        ("when", when, THRESHOLDS),
        ("where", where, PLACES),
        ("directions", directions, DIRECTIONS),
    ):
        if name not in known:
            raise unknown(f"value of `{kind}`", name, known)
    limits = {"number": (0, jnp.inf), "patience": (1, jnp.inf), "apoptosis": (0, 1)}
    for name, value in numbers.items():
        low, high = limits[name]
        if isinstance(value, float | int) and not low <= value < high:
            raise UsageError(
                f"{name}={value} must be at least {low}" + (f" and less than {high}." if high == 1 else ".")
            )


def _makers(found: Any) -> list[str]:
    return list(dict.fromkeys(home for part in found.values() for home in part.makers))


def _watched(found: Any, when: str, directions: str) -> set[str]:
    """Returns the layers whose input space must be known."""
    read = {part.readers[0] for part in found.values()} if when == "rank" else set()
    return read | set(_makers(found) if directions == "free" else ())


def _neurons(alive: Bool[Array, " size"]) -> Neurons:
    return Neurons(alive, jnp.zeros(alive.shape, jnp.int32), jnp.zeros(alive.shape), jnp.zeros(()))


def _gains(state: GrowthState) -> dict[str, Float[Array, " size"]]:
    """Returns by what the steps of each neuron's incoming weights are multiplied: exactly 1 for the grown-up."""
    return {name: 1 + (state.youth_gain - 1) * (1 - share) for name, share in state.maturities().items()}


def _heard(state: GrowthState, value: Any) -> GrowthState:
    """Returns the state after one more loss, if there is one and it is finite."""
    value = jnp.asarray(jnp.nan if value is None else value, jnp.float32)

    def after(mean, decay):
        rate = jnp.maximum(1 - decay, 1 / (state.count + 1))
        return jnp.where(jnp.isfinite(value), mean + rate * (value - mean), mean)

    return state._replace(fast=after(state.fast, state.fast_decay), slow=after(state.slow, state.slow_decay))


def _lived(found: Any, state: GrowthState, updates: Any, params: Any, answers: Any) -> GrowthState:
    """Returns the state with all living neurons one update older, and their utility and pull known better."""
    strength, steps = units.outgoing(found, params), units.outgoing(found, updates)

    def after(name, old):
        rate = jnp.maximum(1 - state.decay, 1 / (old.age + 1))
        utility = jnp.abs(answers[name]).mean(0) * strength[name]
        pull = jnp.sum(steps[name], where=old.alive) / jnp.maximum(old.alive.sum(), 1)
        utility, pull = (
            jnp.where(jnp.isfinite(new), new, was) for new, was in ((utility, old.utility), (pull, old.pull))
        )
        utility = jnp.where(old.alive, old.utility + rate * (utility - old.utility), 0)
        rate = jnp.maximum(1 - state.decay, 1 / (state.count + 1))
        return Neurons(old.alive, old.age + old.alive, utility, old.pull + rate * (pull - old.pull))

    neurons = {name: after(name, old) for name, old in state.neurons.items()}
    return state._replace(neurons=neurons, count=state.count + 1, wait=state.wait + 1)


def _weights(found: Any, params: Any) -> dict[str, int]:
    """Returns how many weights one more neuron of each population has."""
    layers = projection.layers(params)
    into = lambda part: sum(layers[home].inputs for home in part.makers)
    out = lambda part: sum(math.prod(layers[home].shape) // layers[home].shape[-2] for home in part.readers)
    return {name: into(part) + out(part) for name, part in found.items()}


def _felt(state: GrowthState, params: Any, activity: Any) -> GrowthState:
    """Returns the state after one more batch of inputs of the layers that are watched."""
    if not state.ground:
        return state
    rows = projection.inputs(params, activity)
    ok = projection.finite({home: rows[home] for home in state.ground})
    return state._replace(ground={home: grounds.felt(one, rows[home], ok) for home, one in state.ground.items()})


def _dying(state: GrowthState, one: Neurons) -> Bool[Array, " size"]:
    mean = one.utility.sum() / jnp.maximum(one.alive.sum(), 1)
    return one.alive & (one.age > state.maturity) & (one.utility < state.apoptosis * mean)


def _chosen(
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


def _fitting(fresh: Any, params: Any) -> Any:
    """Returns fresh weights, which must have the shapes of the weights."""
    drawn, structure = jax.tree.leaves(fresh), jax.tree.structure(params)
    given, wanted = ([jnp.shape(leaf) for leaf in leaves] for leaves in (drawn, jax.tree.leaves(params)))
    if given != wanted:
        raise UsageError(
            f"`fresh` draws arrays of shapes {given}, but those of the weights are {wanted}: after `neuroml.resize` "
            "make the rule with a `fresh` of the new size, or without one."
        )
    return structure.unflatten(drawn)


def _turned(state: GrowthState, born: Any, dying: Any) -> GrowthState:
    """Returns the state after births and deaths."""

    def after(name, one):
        keep = one.alive & ~dying[name]
        zero = lambda leaf: jnp.where(keep, leaf, jnp.zeros_like(leaf))
        return Neurons(keep | born[name], zero(one.age), zero(one.utility), one.pull)

    total = lambda chosen: jnp.concatenate([*chosen.values()]).sum(dtype=jnp.int32)
    return state._replace(
        neurons={name: after(name, one) for name, one in state.neurons.items()},
        renewed={name: born[name] | dying[name] for name in born},
        births=state.births + total(born),
        deaths=state.deaths + total(dying),
    )
