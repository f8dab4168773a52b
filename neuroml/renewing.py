"""Renewal: an optimizer beside a rule that replaces neurons, whose old momenta must not drive the new weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from neuroml import core, projection, surgery, units
from neuroml.errors import UsageError, unknown

NEWBORNS = ("free", "held")

# States of Optax that hold weights, not moments: the weights at the start, or those of a sequence beside the network's.
HOLDING_WEIGHTS = (
    "COCOBState",
    "DoGState",
    "DoWGState",
    "MadgradState",
    "MechanicState",
    "ProdigyState",
    "ScheduleFreeState",
)


class RenewalState(NamedTuple):
    """State of `renewal`."""

    base: Any  # the optimizer's
    rule: Any


def renewal(
    base: optax.GradientTransformation,
    rule: optax.GradientTransformation,
    wiring: Any,
    *,
    newborns: str = "free",
) -> optax.GradientTransformationExtraArgs:
    """Chains an optimizer with a rule that replaces neurons, and clears the moments of the weights it replaces.

    Every array in the state of `base` that is like the weights (momentum, both moments of Adam, importance, whatever a
    chain holds) becomes zero where a weight enters or leaves a neuron that the rule has just replaced, and what a rule
    in it holds weights to (`neuroml.ewc`, `si`, `mas`, `rwalk`, `benna_fusi`, `condensate_anchor`, `mesu`, euclidean
    `l2_init`) becomes the new weight. The spread of `mesu` becomes the prior's, and the teacher of `lwf` and what
    wasserstein `l2_init` has sorted stay (`neuroml.core` tells how a rule declares it). Of a new neuron rules know
    nothing (the lock of `neuroml.maturity_lock`, the means of `bcm`, `synaptic_scaling`, `intrinsic_plasticity`), of a
    copy what they know of its donor. Counts of updates stay: under a steady gradient Adam's first steps of a new weight
    are three to six times its usual ones, since moments that start again at zero are not corrected again. Where the
    rule says whose weights a neuron got (`donors`, as `neuroml.nanotube` does), its moments are those of its donor, and
    outgoing weights are held to a share as small as theirs. The rule is given what `base` is given, too, as the word
    `gradients`: `regrama` and `partial_resets` judge neurons by it.

    Args:
      base: what makes the steps: `optax.adam(1e-3)`, or a chain.
      rule: one that replaces neurons, such as `neuroml.cbp`: its state says in `renewed` which neurons those are.
      wiring: the names of the axes of the weights that the rule was given.
      newborns: "free": their weights have no importance to `neuroml.ewc`, `mas`, `si` and `rwalk` until the next
        consolidation, although they answer the inputs of earlier tasks, too, and change what was learnt there. "held":
        their outgoing weights are held at zero as firmly as those of the others in the mean, as if they mattered alike.
        Neurons that got a donor's weights have a share of its importance either way. What a projector holds of inputs
        stays as it was with "free". With "held", `neuroml.condensate_projector` and `owm` let no more steps change
        what newborns hand on, since nothing is known of what they answer to earlier inputs, and others may learn what
        they might before. Before the first consolidation the former holds nobody.

    Returns:
      A transformation in the place of `optax.chain(base, rule)`; with plain SGD, which keeps no moments, the same.

    Raises:
      UsageError: at `init`, for a rule that replaces nothing, for an optimizer with moments of another shape than
        their weights, such as `optax.adafactor`, and for one that holds weights, such as
        `optax.contrib.schedule_free`: to clear those would draw the new weights to zero. An unknown `newborns`.

    >>> import neuroml
    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = renewal(optax.adam(1e-3), neuroml.cbp(names, lambda key: params, rate=1e-4), names)
    >>> core.describe(tx.init(params)).split(":")[0]
    '.rule CBPState'
    """
    if newborns not in NEWBORNS:
        raise unknown("value of `newborns`", newborns, NEWBORNS)
    inner = optax.with_extra_args_support(base)
    last = optax.with_extra_args_support(rule)
    hold = newborns == "held"

    def init(params):
        known: Any = rule.init(params)
        if jax.tree.leaves(params) and not hasattr(known, "renewed"):
            raise UsageError(
                f"renewal needs a rule that replaces neurons, such as cbp, and not {type(known).__name__}."
            )
        state = base.init(params)
        _refuse_weights(state)
        _require_moments(base, state, params)
        return RenewalState(state, known)

    def update(updates, state, params, **words):
        steps, kept = inner.update(updates, state.base, params, **words)
        updates, rest = last.update(steps, state.rule, params, **{"gradients": updates, **words})
        after: Any = rest
        some = units.some(after.renewed)
        found = units.find(wiring, params)
        gone = lambda: surgery.touched(found, params, after.renewed, wiring)
        blank = lambda name, leaf: _put(leaf, after.renewed[name], 0) if name in after.renewed else leaf

        def renew(old):
            if hasattr(after, "donors"):
                new = _shared(base, old, found, params, after.donors, after.drive, wiring)
                new = _neurons(new, lambda name, leaf: leaf[after.donors[name]] if name in after.donors else leaf)
            else:
                new = _neurons(_cleared(base, old, params, updates, gone()), blank)
                new = _as_elders(new, found, params, after.renewed) if hold else new
            return _held(new, found, params, after.renewed) if hold else new

        return updates, RenewalState(jax.lax.cond(some, renew, lambda old: old, kept), after)

    return core.rule(init, update)


def _refuse_weights(state: Any) -> None:
    holds = lambda node: type(node).__name__ in HOLDING_WEIGHTS
    for node in filter(holds, jax.tree.leaves(state, is_leaf=holds)):
        raise UsageError(
            f"renewal clears moments, and the {type(node).__name__} of this optimizer holds weights, to which it would "
            "draw new ones: take another, such as optax.adam."
        )


def _require_moments(base: optax.GradientTransformation, state: Any, params: Any) -> None:
    def same(moment, weight):
        if jnp.shape(moment) != jnp.shape(weight):
            raise ValueError(f"one is {jnp.shape(moment)}, its weight {jnp.shape(weight)}")
        return moment

    try:
        _mapped(base, same, state, params)
    except ValueError as error:
        raise UsageError(
            "renewal clears the moments of single weights, and this optimizer has moments that are not like the "
            f"weights ({str(error).splitlines()[0]}): take another, such as optax.adam."
        ) from error


def _cleared(base: optax.GradientTransformation, state: Any, params: Any, updates: Any, gone: Any) -> Any:
    """Returns moments of zero for all weights that are gone, and as anchors the new weights in their place."""
    cleared = _mapped(base, lambda moment, gone: _put(moment, gone, 0), state, gone)
    anchored = _mapped(base, _put, state, gone, optax.apply_updates(params, updates))
    return _begun(_as_declared(state, cleared, anchored), gone)


def _held(state: Any, found: Any, params: Any, born: Any) -> Any:
    """Returns the state in which projectors hold what the newborn hand on."""
    matrices = projection.matrices(surgery.leaving(found, params, born))
    rows = {home: matrices[home].any(1) for part in found.values() for home in part.readers if home in matrices}
    holds = lambda node: hasattr(type(node), "hold")
    return jax.tree.map(lambda node: node.hold(rows) if holds(node) else node, state, is_leaf=holds)


def _as_elders(state: Any, found: Any, params: Any, born: Any) -> Any:
    """Returns the state in which the outgoing weights of the newborn matter as those of the others do in the mean."""
    elders = {name: ~which & ~born[name] for name, which in units.destroyed(found, params).items()}
    as_elders = lambda node, name: surgery.as_elders(found, getattr(node, name), born, elders)
    weighs = lambda node: hasattr(type(node), "importances")
    held = lambda node: node._replace(**{name: as_elders(node, name) for name in node.importances})
    return jax.tree.map(lambda node: held(node) if weighs(node) else node, state, is_leaf=weighs)


def _shared(base: Any, state: Any, found: Any, params: Any, donors: Any, drive: Any, wiring: Any) -> Any:
    """Returns the moments of each neuron's donor: positions are transplanted, and tell where to take them from."""
    positions = jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape), params)
    sources = surgery.transplant(found, positions, donors, wiring)
    taken = _mapped(base, lambda moment, source: moment.reshape(-1)[source], state, sources)
    shares = surgery.shared(found, jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params), donors, drive, wiring)
    anchored = _mapped(base, lambda anchor, share: (share * anchor).astype(anchor.dtype), taken, shares)
    return _as_declared(state, taken, anchored)


def _mapped(base: optax.GradientTransformation, change: Callable[..., Any], state: Any, *trees: Any) -> Any:
    """Returns the state with every array changed that is like the weights, as `change(array, *what trees have there)`.

    Weights that `optax.masked` or `optax.partition` hides from a part of `base` have nothing there that could change.
    """
    seen = lambda leaf, *rest: leaf if core.is_hidden(leaf) else change(leaf, *rest)
    return optax.tree.map_params(base, seen, state, *trees, is_leaf=core.is_hidden)


def _as_declared(state: Any, moments: Any, anchored: Any) -> Any:
    """Returns `moments`, but for what a rule declares: its anchors are from `anchored`, the untouched from `state`."""
    declares = lambda node: hasattr(type(node), "anchors") or hasattr(type(node), "untouched")

    def chosen(old, moment, anchor):
        if not declares(old):
            return moment
        anchors = {name: getattr(anchor, name) for name in getattr(old, "anchors", ())}
        return moment._replace(**anchors, **{name: getattr(old, name) for name in getattr(old, "untouched", ())})

    return jax.tree.map(chosen, state, moments, anchored, is_leaf=declares)


def _put(leaf: Any, gone: Any, new: Any) -> Any:
    return jnp.where(gone, new, leaf).astype(leaf.dtype)


def _neurons(state: Any, change: Callable[[str, Any], Any]) -> Any:
    """Returns the state with what rules know of single neurons changed: `change(population, array)`."""
    knows = lambda node: hasattr(type(node), "neurons")

    def changed(known):
        of = lambda name, part: jax.tree.map(lambda leaf: change(name, leaf), part)
        return {name: of(name, part) for name, part in known.items()}

    after = lambda node: node._replace(**{field: changed(getattr(node, field)) for field in node.neurons})
    return jax.tree.map(lambda node: after(node) if knows(node) else node, state, is_leaf=knows)


def _begun(state: Any, gone: Any) -> Any:
    """Returns the state in which new weights have what a rule gives to fresh ones."""
    begins = lambda node: hasattr(type(node), "fresh")

    def begun(leaf, gone, value):
        return leaf if core.is_hidden(leaf) else _put(leaf, gone, value)

    def filled(tree, value):
        return jax.tree.map(lambda leaf, gone: begun(leaf, gone, value), tree, gone, is_leaf=core.is_hidden)

    begin = lambda node: node._replace(**{name: filled(getattr(node, name), to) for name, to in node.fresh().items()})
    return jax.tree.map(lambda node: begin(node) if begins(node) else node, state, is_leaf=begins)
