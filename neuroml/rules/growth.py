"""Growth: neurogenesis inside one compiled step. Neurons are born where there is need, mature, and die of no use."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from neuroml import core, growing, nursery, projection, surgery, units
from neuroml import ground as grounds
from neuroml.errors import unknown

THRESHOLDS = {"plateau": 0.01, "surprise": 0.5, "rank": 0.5, "steps": 0.0, "random": 0.0}  # by `when`
DIRECTIONS = ("free", "random")
PLACES = ("score", "random")


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
    pairs: bool = False,
    maturity: ArrayLike = 100,
    youth_gain: ArrayLike = 2.0,
    apoptosis: ArrayLike = 0.0,
    decay: ArrayLike = 0.99,
    scale: ArrayLike = 0.03,
    fast_decay: ArrayLike = 0.9,
    slow_decay: ArrayLike = 0.99,
    windows: projection.Windows | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Growth: wakes neurons that are in reserve where the network needs them, and lets useless ones die.

    Weights are allocated at full capacity; `neuroml.reserve` sets most neurons to zero, and the rule keeps them there
    whatever the optimizer does. Where growth is due, `number` of them are born in one population: incoming weights
    and bias are drawn, outgoing weights are zero (in `pairs` they cancel): the function is the same after the birth.

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

    A neuron born in a later task answers earlier inputs, too, through outgoing weights whose importance is zero. So
    with rules that weigh each weight, such as `neuroml.ewc` or `neuroml.si`, what was consolidated is not held: there
    `neuroml.renewal(..., newborns="held")` has them matter as their elders do. `neuroml.imagining` fills this gap for
    the projector.

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
      pairs: neurons are born in pairs that listen alike and hand on opposite weights, drawn like all others: the
        function is the same, and no weight starts from zero.
      maturity: updates until a neuron is grown up.
      youth_gain: of the steps of a newborn's incoming weights; 1 is inert.
      apoptosis: share of the mean utility below which a neuron dies, in [0, 1); 0 is inert.
      decay: of utilities and pulls, in [0, 1).
      scale: the ridge, in units of each layer's `unit`; smaller occupies more.
      fast_decay, slow_decay: of the two running losses; 0.9 and 0.99 look back about 10 and 100 updates.
      windows: strides and padding of convolutions other than stride 1 and "SAME", by layer path.

    Returns:
      A rule that needs the words `activity` and `key`, and `value` for "plateau" and "surprise". Last in the chain, as
      `neuroml.renewal(optax.adam(1e-3), growth(wiring), wiring)`, which clears the moments of the new and the dead. To
      know what is occupied it must be consolidated (by `neuroml.every`, around `renewal`, without task boundaries).
      Losses and answers that are not finite are not counted. When no neuron is in reserve, nothing is born and
      `report` counts it under "growth refused"; `neuroml.resize` makes room. Who has lost all weights, as by
      `neuroml.interventions`, is in reserve again.

    Raises:
      UsageError: no population between two layers; one that cannot grow (shared or recurrent weights, attention heads,
        a normalization over neurons); an activity or a `fresh` that does not fit; a setting out of range. All this is
        read from the wiring: a normalization without weights, or whose axes have no names, is not seen.

    Reference:
      Zero outgoing weights: Evci et al. 2022, ICLR, "GradMax: growing neural networks using gradient information";
      when and where by score and cost: Mitchell et al. 2023, "Self-expanding neural networks". Adult neurogenesis:
      Aimone et al. 2014, "Regulation and function of adult neurogenesis", Physiol. Rev. 94:991. Whole networks that
      begin as pairs which cancel: Zhang et al. 2020, "A type of generalization error induced by initialization in deep
      neural networks", MSML.

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
        none, numbers = [jnp.zeros(()) for _ in range(2)], [jnp.zeros((), jnp.int32) for _ in range(6)]
        settings = {name: core.leaf(value) for name, value in given.items()}
        if not isinstance(blank, dict):
            return nursery.GrowthState(blank, blank, blank, *none, *numbers, **settings)
        found = growing.growable("growth", wiring, params)
        neurons = {name: nursery.newcomers(alive) for name, alive in growing.living(found, params).items()}
        homes = nursery.watched(found, when, directions)
        ground = {
            home: grounds.bare(layer.inputs) for home, layer in projection.layers(params).items() if home in homes
        }
        return nursery.GrowthState(neurons, ground, blank, *none, *numbers, **settings)

    def growth(updates, state, params, *, activity, key, value=None, **_):
        if when in ("plateau", "surprise"):
            core.require("growth", ("value",), {"value": value})
        found = units.find(wiring, params)
        state = nursery.present(core.live(state, **given), growing.living(found, params))
        for_when, for_where, for_birth = jax.random.split(key, 3)
        updates = surgery.gate(found, updates, nursery.gains(state))
        state = nursery.lived(found, nursery.heard(state, value), updates, params, units.outputs(found, activity))
        state = nursery.felt(found, state, params, activity, windows)
        dying = {name: nursery.dying(state, one) for name, one in state.neurons.items()}
        lots = jax.random.uniform(for_where, (len(found),)) if where == "random" else None
        born, state = nursery.chosen(found, state, params, when, for_when, lots)
        dead = {name: ~one.alive & ~born[name] | dying[name] for name, one in state.neurons.items()}
        some = units.some(born)

        def bear(steps):
            drawn = growing.draw(for_birth, params) if fresh is None else surgery.fitting(fresh(for_birth), params)
            free = {home: state.ground[home].free for home in nursery.makers(found)} if directions == "free" else {}
            share = {name: which.astype(jnp.float32) for name, which in born.items()}
            fresh_ones = growing.towards(drawn, free, found, dead)
            fresh_ones = growing.twins(fresh_ones, found, born) if pairs else fresh_ones
            return surgery.pull(found, steps, params, fresh_ones, share, silent=not pairs)

        updates = jax.lax.cond(some, bear, lambda steps: steps, updates)
        gone = surgery.touched(found, params, dead)
        still = lambda step, old, off: jnp.where(off, -old.astype(step.dtype), step)
        return jax.tree.map(still, updates, params, gone), nursery.turned(state, born, dying)

    return core.rule(init, growth)


def _check(when: str, where: str, directions: str, **numbers: ArrayLike) -> None:
    for kind, name, known in (
        ("when", when, THRESHOLDS),
        ("where", where, PLACES),
        ("directions", directions, DIRECTIONS),
    ):
        if name not in known:
            raise unknown(f"value of `{kind}`", name, known)
    core.require_ranges("growth", numbers, number="[0, inf)", patience="[1, inf)", apoptosis="[0, 1)")
