"""Renewal: an optimizer beside a rule that replaces neurons, whose old momenta must not drive the new weights."""

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

    Every array in the state of `base` that is like the weights (momentum, both moments of Adam, whatever a chain
    holds) becomes zero where a weight enters or leaves a neuron that the rule has just replaced. Counts stay: under
    a steady gradient Adam's first steps of a new weight are three to six times its usual ones, since moments that start
    again at zero are not corrected again. Where the rule says whose weights a neuron got (`donors`, as
    `neuroml.nanotube` does), its moments are those of its donor.

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
            (lambda old: _shared(base, old, found, params, after.donors))
            if hasattr(after, "donors")
            else (lambda old: _cleared(base, old, units.touched(found, params, after.renewed)))
        )
        return updates, RenewalState(jax.lax.cond(some, renew, lambda old: old, kept), after)

    return core.rule(init, update)


def _cleared(base: optax.GradientTransformation, moments: Any, gone: Any) -> Any:
    forget = lambda moment, gone: jnp.where(gone, jnp.zeros_like(moment), moment)
    return optax.tree.map_params(base, forget, moments, gone)


def _shared(base: optax.GradientTransformation, moments: Any, found: Any, params: Any, donors: Any) -> Any:
    """Returns the moments of each neuron's donor: positions are transplanted, and tell where to take them from."""
    positions = jax.tree.map(lambda leaf: jnp.arange(leaf.size).reshape(leaf.shape), params)
    sources = units.transplant(found, positions, donors, share=False)
    return optax.tree.map_params(base, lambda moment, source: moment.reshape(-1)[source], moments, sources)
