"""When to consolidate without being told: every so many steps, or on surprise.

A schedule is never inside a rule. `every` and `on_surprise` wrap any rule, and call the same `consolidate` that a user
would call at the end of a task. It happens before an update: what is due after the last step waits for the next one.
Under `vmap`, where runs may fire at different steps, `lax.cond` computes both branches at every step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from neuroml import core, cost
from neuroml.errors import UsageError


class Detector(NamedTuple):
    """Decides at each step whether to consolidate: `init() -> state`, `step(state, **context) -> (fire, state)`."""

    init: Callable[[], Any]
    step: Callable[..., tuple[jax.Array, Any]]
    period: int = 1  # it fires at most once in so many steps: what `neuroml.cost.flops` charges for


class ScheduledState(NamedTuple):
    """State of a rule that consolidates by itself."""

    inner: Any  # the rule's own state
    detector: Any
    consolidations: jax.Array  # () int32: how often it fired


class CounterState(NamedTuple):
    """State of `counter`."""

    count: jax.Array  # () int32: steps so far
    steps: jax.Array  # () int32


class SurpriseState(NamedTuple):
    """State of `surprise`."""

    fast: jax.Array  # () mean loss over the last few steps
    slow: jax.Array  # () the level that it came down to
    calm: jax.Array  # () int32: steps since the start or the last surprise
    ratio: jax.Array  # ()
    margin: jax.Array  # ()


def every(
    rule: optax.GradientTransformation, steps: int | jax.Array, *, context: Callable[..., dict[str, Any]] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Makes a rule consolidate itself every `steps` updates.

    Args:
      rule: any rule, or a chain with rules in it.
      steps: updates between consolidations; at least 1.
      context: makes the words that `consolidate` needs from the words of `update`, at the steps that fire only:
        `lambda params, *, batch, **_: {"importance": neuroml.fisher(predict, params, batch)}`. Default: the words of
        `update` as they are.

    Returns:
      A rule in the place of `rule`, equal to calling `neuroml.consolidate` by hand after every `steps` updates.

    Raises:
      UsageError: `steps` is not a whole number, or below 1.

    >>> import neuroml
    >>> ones = lambda params, **_: {"importance": jax.tree.map(jnp.ones_like, params)}
    >>> tx = every(neuroml.ewc(strength=1.0), steps=2, context=ones)
    >>> w, state = jnp.zeros(3), tx.init(jnp.zeros(3))
    >>> for _ in range(5):
    ...     steps, state = tx.update(jnp.ones(3), state, w)
    >>> int(state.consolidations)
    2
    """
    return scheduled(rule, counter(steps), context=context)


def on_surprise(
    rule: optax.GradientTransformation,
    detector: Detector | None = None,
    *,
    context: Callable[..., dict[str, Any]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes a rule consolidate itself when the loss jumps: what was known until then becomes lasting.

    The surprise comes with the first batches of something new, before the weights have followed them, so the weights
    that are kept are those of what came before.

    Args:
      rule: any rule, or a chain with rules in it.
      detector: default `surprise()`, which needs the word `value`, the loss of the step.
      context: as in `every`. The batch at hand is already one of the new kind: a rule that needs old examples must
        keep some.

    Returns:
      A rule in the place of `rule`.
    """
    return scheduled(rule, surprise() if detector is None else detector, context=context)


def scheduled(
    rule: optax.GradientTransformation, detector: Detector, *, context: Callable[..., dict[str, Any]] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Makes a rule consolidate itself whenever `detector` fires, before the update of that step."""
    inner_rule = optax.with_extra_args_support(rule)

    def init(params):
        return ScheduledState(rule.init(params), detector.init(), jnp.int32(0))

    def update(updates, state, params, *, all_params=None, **words):
        given = {**words, "all_params": all_params} if all_params is not None else words
        fire, detector_state = detector.step(state.detector, **given)

        def settle(inner):
            made = given if context is None else context(core.whole("context", params, all_params), **given)
            return core.consolidate(inner, params, **made)

        with cost.one_in(detector.period):
            inner = jax.lax.cond(fire, settle, lambda inner: inner, state.inner)
        updates, inner = inner_rule.update(updates, inner, params, **given)
        return updates, ScheduledState(inner, detector_state, state.consolidations + fire)

    return core.rule(init, update)


def counter(steps: int | jax.Array) -> Detector:
    """Fires before update number `steps`, 2 `steps`, ... (counted from 0)."""

    def init():
        return CounterState(jnp.int32(0), core.leaf(steps, jnp.int32))

    def step(state, **_):
        fire = (state.count > 0) & (state.count % state.steps == 0)
        return fire, state._replace(count=state.count + 1)

    return Detector(init, step, _period(steps))


def _period(steps: int | jax.Array) -> int:
    """Returns the number of steps, or 1 for one that is not known while tracing."""
    if isinstance(steps, jax.core.Tracer):
        return 1
    if np.ndim(steps) or not (float(steps) >= 1 and float(steps) % 1 == 0):
        raise UsageError(f"steps={steps} must be a whole number, at least 1.")
    return int(steps)


def surprise(
    *,
    ratio: ArrayLike = 2.0,
    margin: ArrayLike = 0.2,
    fast_decay: float = 0.9,
    slow_decay: float = 0.99,
    patience: int = 50,
) -> Detector:
    """Fires when the loss of the last few steps leaves the level that it had come down to.

        fast > ratio * slow + margin

    `fast` is the running mean of the loss (in its first steps a plain average). `slow` follows `fast`, down by
    `fast_decay` and up by `slow_decay`: so neither the first losses of a task, which are high, nor a jump hide in it.
    After firing, both start anew with the next loss, and nothing fires for `patience` steps. A loss that is not finite
    is no surprise, and counts for nothing.

    Args:
      ratio: how many times its usual size the loss must reach.
      margin: how much above that, in units of the loss.
      fast_decay: per step; 0.9 looks back about 10 steps. With batches of a single example most losses are small and a
        few are large: there it must look back far enough (0.98) that a few large ones in a row are no surprise.
      slow_decay: per step; 0.99 looks back about 100 steps.
      patience: steps after the start and after each firing in which nothing fires.

    Raises:
      UsageError: a decay outside [0, 1], or another number below 0.
    """
    given = {"ratio": ratio, "margin": margin, "patience": patience}
    decays = {"fast_decay": fast_decay, "slow_decay": slow_decay}
    bounds = dict.fromkeys(given, "[0, inf]") | dict.fromkeys(decays, "[0, 1]")
    core.require_ranges("surprise", given | decays, **bounds)

    def init():
        return SurpriseState(jnp.float32(0), jnp.float32(0), jnp.int32(0), core.leaf(ratio), core.leaf(margin))

    def step(state, *, value, **_):
        rate = jnp.maximum(1 - fast_decay, 1 / (state.calm + 1))  # a plain average at first, not a start at zero
        fast = (state.fast + rate * (jnp.asarray(value, jnp.float32) - state.fast)).astype(jnp.float32)
        decay = jnp.where(fast < state.slow, fast_decay, slow_decay)
        slow = jnp.where(state.calm == 0, fast, fast + decay * (state.slow - fast)).astype(jnp.float32)
        finite = jnp.isfinite(value)
        fire = finite & (state.calm >= patience) & (fast > state.ratio * slow + state.margin)
        after = state._replace(fast=fast, slow=slow, calm=jnp.where(fire, 0, state.calm + 1))
        return fire, jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)

    def checked(state, **words):
        core.require("surprise", ("value",), words)
        return step(state, **words)

    return Detector(init, checked, max(1, patience) if isinstance(patience, int) else 1)
