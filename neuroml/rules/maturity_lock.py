"""Perineuronal nets: neurons that have settled are locked, and surprise dissolves the lock."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, surgery, units


class Net(NamedTuple):
    """What is known of the neurons of one population."""

    maturity: jax.Array  # [size], in [0, 1]
    fast: jax.Array  # [size]: mean magnitude of the answers of late
    slow: jax.Array  # [size]: over a longer time
    count: jax.Array  # [size] int32: of how many batches these are


class MaturityLockState(NamedTuple):
    """State of `maturity_lock`."""

    nets: dict[str, Net]
    fast: jax.Array  # (): mean loss of late
    slow: jax.Array  # (): over a longer time
    count: jax.Array  # () int32: finite losses so far
    surprises: jax.Array  # () int32: updates that dissolved
    strength: jax.Array  # ()
    rate: jax.Array  # ()
    tolerance: jax.Array  # ()
    ratio: jax.Array  # ()
    margin: jax.Array  # ()
    dissolution: jax.Array  # ()
    fast_decay: jax.Array  # ()
    slow_decay: jax.Array  # ()

    hyperparameters = (
        "strength",
        "rate",
        "tolerance",
        "ratio",
        "margin",
        "dissolution",
        "fast_decay",
        "slow_decay",
    )
    neurons = ("nets",)

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the mean maturity of all neurons, and how many updates dissolved it."""
        maturity = jnp.concatenate([net.maturity for net in self.nets.values()]).mean()
        return {"maturity": maturity, "surprises": self.surprises.astype(jnp.float32)}


def maturity_lock(
    wiring: Any,
    strength: ArrayLike = 0.9,
    *,
    rate: ArrayLike = 0.001,
    tolerance: ArrayLike = 0.1,
    ratio: ArrayLike = 2.0,
    margin: ArrayLike = 0.2,
    dissolution: ArrayLike = 0.5,
    fast_decay: ArrayLike = 0.98,
    slow_decay: ArrayLike = 0.998,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Holds back the learning of neurons whose activity has been steady, until the loss jumps.

        steady_j    = |fast_j - slow_j| <= tolerance * slow_j                   running means of |h_j|; not if silent
        maturity_j += rate * (1 - maturity_j) * steady_j
        maturity   *= 1 - dissolution, while fast > ratio * slow + margin       running means of the loss
        step_j      = (1 - strength * maturity_j) * step_j                      of its incoming weights and bias

    All running means are plain averages in the first updates. With batches of a single example most losses are small
    and a few are large: `fast` must look back far enough that a few large ones in a row are no surprise, since a
    surprise undoes what hundreds of steady updates did. The price is that a jump is noticed after some tens of updates,
    and that one soon after a time of high losses must be higher to be noticed.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      strength: of the lock, in [0, 1]; 0 is inert, 1 stops a neuron that is fully mature.
      rate: at which maturity rises per update, in [0, 1]; 0.001 takes about 1000 steady updates.
      tolerance: how far the short mean of an answer may be from the long one, as a share of it.
      ratio: how many times its usual size the loss must reach to be a surprise.
      margin: how much above that, in units of the loss.
      dissolution: share of all maturity that is lost at each update with surprise, in [0, 1].
      fast_decay: of the short means, in [0, 1); 0.98 looks back about 50 updates. Large batches allow less.
      slow_decay: of the long means, in [0, 1); 0.998 looks back about 500 updates.
      shuffled: the content-free control: each neuron gets the lock of another one, always the same.

    Returns:
      A rule that needs the words `activity` and `value`. Last in the chain, so that no optimizer divides the lock out
      again. Losses and answers that are not finite change neither means nor maturity.

    Raises:
      UsageError: a number outside its range, no population between two layers, a layer without names, or an activity
        that lacks one.

    Reference:
      Pizzorusso et al. 2002, "Reactivation of ocular dominance plasticity in the adult visual cortex", Science 298:1248
      (nets close the critical period, their removal opens it anew); as memory's protection: Tsien 2013, "Very
      long-term memories may be stored in the pattern of holes in the perineuronal net", PNAS 110:12456.

    How ours differs: there is no published algorithm that we know of; steadiness for maturity and the loss for the
    removal of nets are our reading.

    >>> params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = maturity_lock(names, 1.0, rate=0.5, fast_decay=0.0, slow_decay=0.9)
    >>> state, words = tx.init(params), {"activity": {"a": jnp.ones((1, 2)), "b": jnp.ones((1, 2))}}
    >>> for loss in (0.1, 0.1, 9.0):                                                      # steady, steady, a surprise
    ...     step, state = tx.update(params, state, params, value=loss, **words)
    ...     print(step["a"]["kernel"][0].tolist(), float(state.report()["maturity"]))
    [0.5, 0.5] 0.5
    [0.25, 0.25] 0.75
    [0.5625, 0.5625] 0.4375
    """
    given = {"strength": strength, "rate": rate, "tolerance": tolerance, "ratio": ratio, "margin": margin}
    given |= {"dissolution": dissolution, "fast_decay": fast_decay, "slow_decay": slow_decay}
    shares = dict.fromkeys(("strength", "rate", "dissolution"), "[0, 1]")
    core.require_ranges("maturity_lock", given, **shares, fast_decay="[0, 1)", slow_decay="[0, 1)")

    def init(params):
        nets = units.begin("maturity_lock", wiring, params, _unknown)
        zeros = (jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0))
        return MaturityLockState(nets, *zeros, **{name: core.leaf(value) for name, value in given.items()})

    def maturity_lock(updates, state, params, *, activity, value, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        value = jnp.asarray(value, jnp.float32)
        fast, _ = averages.after(state.fast, state.count, value, state.fast_decay)
        slow, count = averages.after(state.slow, state.count, value, state.slow_decay)
        surprised = (fast > state.ratio * slow + state.margin) & jnp.isfinite(value)
        rows = units.outputs(found, activity)
        nets = {name: _grown(state, net, rows[name], surprised) for name, net in state.nets.items()}
        locks = {name: 1 - state.strength * units.in_order(net.maturity, shuffled) for name, net in nets.items()}
        after = state._replace(nets=nets, fast=fast, slow=slow, count=count, surprises=state.surprises + surprised)
        return surgery.gate(found, updates, locks), after

    return core.rule(init, maturity_lock)


def _unknown(size: int) -> Net:
    """Returns what is known of neurons before the first update."""
    maturity, fast, slow = jnp.zeros((3, size))
    return Net(maturity, fast, slow, averages.begin(maturity))


def _grown(state: MaturityLockState, net: Net, rows: Float[Array, "n size"], surprised: Array) -> Net:
    """Returns the net after one more batch."""
    size = jnp.abs(rows).mean(0)
    fast, _ = averages.after(net.fast, net.count, size, state.fast_decay)
    slow, count = averages.after(net.slow, net.count, size, state.slow_decay)
    steady = (jnp.abs(fast - slow) <= state.tolerance * slow) & (slow > 0) & jnp.isfinite(size)
    maturity = net.maturity + state.rate * jnp.where(steady, 1 - net.maturity, 0)
    return Net(maturity * jnp.where(surprised, 1 - state.dissolution, 1), fast, slow, count)
