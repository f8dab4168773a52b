"""Renewal: an optimizer beside a rule that replaces neurons, whose old momenta must not drive the new weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from neuroml import core, units
from neuroml.errors import UsageError


class RenewalState(NamedTuple):
    """State of `renewal`."""

    base: Any  # the optimizer's
    rule: Any


def renewal(
    base: optax.GradientTransformation, rule: optax.GradientTransformation, wiring: Any
) -> optax.GradientTransformationExtraArgs:
    """Chains an optimizer with a rule that replaces neurons, and clears the moments of the weights it replaces.

    Every array in the state of `base` that is like the weights (momentum, both moments of Adam, importance, whatever a
    chain holds) becomes zero where a weight enters or leaves a neuron that the rule has just replaced, and what a rule
    in it holds weights to (`neuroml.ewc`, `si`, `mas`, `rwalk`, euclidean `l2_init`) becomes the new weight. Counts
    stay: under a steady gradient Adam's first steps of a new weight are three to six times its usual ones, since
    moments that start again at zero are not corrected again. Where the rule says whose weights a neuron got (`donors`,
    as `neuroml.nanotube` does), its moments are those of its donor, and outgoing weights are held to a share as small
    as theirs. What a projector holds of inputs stays as it was.

    Args:
      base: what makes the steps: `optax.adam(1e-3)`, or a chain.
      rule: one that replaces neurons, such as `neuroml.cbp`: its state says in `renewed` which neurons those are.
      wiring: the names of the axes of the weights that the rule was given.

    Returns:
      A transformation in the place of `optax.chain(base, rule)`; with plain SGD, which keeps no moments, the same.

    Raises:
      UsageError: at `init`, for a rule that replaces nothing.

    >>> import neuroml
    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = renewal(optax.adam(1e-3), neuroml.cbp(names, lambda key: params, rate=1e-4), names)
    >>> core.describe(tx.init(params)).split(":")[0]
    '.rule CBPState'
    """
    inner = optax.with_extra_args_support(base)
    last = optax.with_extra_args_support(rule)

    def init(params):
        known: Any = rule.init(params)
        if jax.tree.leaves(params) and not hasattr(known, "renewed"):
            raise UsageError(
                f"renewal needs a rule that replaces neurons, such as cbp, and not {type(known).__name__}."
            )
        return RenewalState(base.init(params), known)

    def update(updates, state, params, **words):
        updates, kept = inner.update(updates, state.base, params, **words)
        updates, rest = last.update(updates, state.rule, params, **words)
        after: Any = rest
        some = jnp.any(jnp.array([which.any() for which in after.renewed.values()]))
        found = units.find(wiring, params)
        renew = (
            (lambda old: _shared(base, old, found, params, after.donors, after.drive))
            if hasattr(after, "donors")
            else (lambda old: _cleared(base, old, params, updates, units.touched(found, params, after.renewed)))
        )
        return updates, RenewalState(jax.lax.cond(some, renew, lambda old: old, kept), after)

    return core.rule(init, update)


def _cleared(base: optax.GradientTransformation, moments: Any, params: Any, updates: Any, gone: Any) -> Any:
    """Returns moments of zero for all weights that are gone, and as anchors the new weights in their place."""
    forget = lambda moment, gone: jnp.where(gone, jnp.zeros_like(moment), moment)
    renew = lambda anchor, new, gone: jnp.where(gone, new, anchor).astype(anchor.dtype)
    cleared = optax.tree.map_params(base, forget, moments, gone)
    return _anchored(cleared, renew, optax.apply_updates(params, updates), gone)


def _shared(base: Any, moments: Any, found: Any, params: Any, donors: Any, drive: Any) -> Any:
    """Returns the moments of each neuron's donor: positions are transplanted, and tell where to take them from."""
    positions = jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape), params)
    sources = units.transplant(found, positions, donors)
    taken = optax.tree.map_params(base, lambda moment, source: moment.reshape(-1)[source], moments, sources)
    shares = units.shared(found, jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params), donors, drive)
    return _anchored(taken, lambda anchor, share: (share * anchor).astype(anchor.dtype), shares)


def _anchored(state: Any, change: Callable[..., Any], *trees: Any) -> Any:
    """Returns the state in which every anchor of a rule is changed, as `change(anchor, *what trees have there)`."""
    holds = lambda node: hasattr(type(node), "anchors")
    moved = lambda anchor: jax.tree.map(change, anchor, *trees)
    renewed = lambda node: node._replace(**{name: moved(getattr(node, name)) for name in node.anchors})
    return jax.tree.map(lambda node: renewed(node) if holds(node) else node, state, is_leaf=holds)
