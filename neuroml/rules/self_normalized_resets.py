"""Self-normalized resets: a neuron that is silent for longer than its own past makes likely is replaced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import core, surgery, units
from neuroml.errors import unknown

CHOICES = ("utility", "random")


class Firing(NamedTuple):
    """What is known of the neurons of one population."""

    silence: jax.Array  # [size], int32: updates since the last firing, or since birth
    firings: jax.Array  # [size], int32: updates with a firing, since birth
    mean: jax.Array  # [size]: running mean of the updates from one firing to the next


class SNRState(NamedTuple):
    """State of `self_normalized_resets`."""

    records: dict[str, Firing]
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced
    births: jax.Array  # () int32: replacements so far
    rejection: jax.Array  # ()
    minimum: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("rejection", "minimum", "decay")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far."""
        return {"replaced": self.births.astype(jnp.float32)}


def self_normalized_resets(
    wiring: Any,
    fresh: Callable[[Array], Any],
    *,
    rejection: ArrayLike = 0.01,
    minimum: ArrayLike = 100,
    decay: ArrayLike = 0.99,
    choose: str = "utility",
) -> optax.GradientTransformationExtraArgs:
    r"""Self-normalized resets: tests for each neuron whether it still fires as it used to, and replaces it if not.

        silence_j = updates since neuron j last answered > 0 to an example of a batch
        mean_j    = decay * mean_j + (1 - decay) * (updates from one firing to the next)      a plain mean at the start
        replace j if  (1 - 1 / mean_j)^silence_j < rejection  and  silence_j >= minimum

    The power is the chance of so long a silence where a neuron fires at each update with probability 1 / mean_j. A
    neuron that never fired since its birth is taken to have fired always. A replaced neuron gets fresh incoming weights
    and bias, and outgoing weights of zero, and knows nothing of the past; where a normalization over neurons has names
    in the wiring, its vectors are fresh there, too.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons.
      rejection: chance below which a silence counts as the end of a neuron, in [0, 1); 0 is inert.
      minimum: updates for which every neuron may be silent, lest those with a short past be judged by one or two times.
      decay: of the mean time between firings, in [0, 1).
      choose: "utility", those that the test rejects; or "random", the content-free control: as many, drawn by lot, at
        each rejection. (Rejected neurons that stay begin a new silence.)

    Returns:
      A rule that needs the words `activity` and `key`. Last in the chain; with momentum or Adam, as
      `neuroml.renewal(optax.adam(1e-3), self_normalized_resets(wiring, ...), wiring)`. For rectified units.

    Raises:
      UsageError: no population between two layers, a layer without names, an activity that lacks one, or an unknown
        choice.

    Reference:
      Farias and Jozefiak 2025, ICLR, "Self-normalized resets for plasticity in continual learning", algorithm 1.

    How ours differs: the authors' code keeps a histogram of each neuron's times between firings, counted in examples,
    and takes its limit from a quantile of it every few tasks; ours keeps the mean, in updates, and takes that of the
    geometric distribution with this mean, at every update and without knowing tasks. Their limits outlive a reset.

    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = self_normalized_resets(names, lambda key: params, minimum=1)
    >>> words = {"activity": {"a": jnp.ones((1, 2)), "b": jnp.array([[5.0, 0.0, 4.0]])}, "key": jax.random.key(0)}
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    >>> step["b"]["kernel"].ravel().tolist(), int(state.births)                                  # the second was silent
    ([0.0, -1.0, 0.0], 1)
    """
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)
    given = {"rejection": rejection, "minimum": minimum, "decay": decay}

    def blank(size):
        return Firing(jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.int32), jnp.ones(size))

    def init(params):
        records = units.begin("self_normalized_resets", wiring, params, blank)
        renewed = units.begin("self_normalized_resets", wiring, params, lambda size: jnp.zeros(size, bool))
        return SNRState(records, renewed, jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def self_normalized_resets(updates, state, params, *, activity, key, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        fired = {name: (rows > 0).any(0) for name, rows in units.outputs(found, activity).items()}
        records = {name: _listen(state, state.records[name], fired[name]) for name in found}
        rejected = {name: _rejects(state, record) for name, record in records.items()}
        birth, draw = jax.random.split(key)
        chosen = units.by_lot(draw, rejected) if choose == "random" else rejected
        some = units.some(chosen)

        def replace(steps):
            share = {name: which.astype(jnp.float32) for name, which in chosen.items()}
            return surgery.pull(found, steps, params, fresh(birth), share, wiring=wiring)

        updates = jax.lax.cond(some, replace, lambda steps: steps, updates)
        born = {name: _begin(record, chosen[name] | rejected[name]) for name, record in records.items()}
        births = state.births + sum(which.sum() for which in chosen.values())
        return updates, state._replace(records=born, renewed=chosen, births=jnp.asarray(births, jnp.int32))

    return core.rule(init, self_normalized_resets)


def _listen(state: SNRState, old: Firing, fired: Bool[Array, " size"]) -> Firing:
    """Returns the record after one more batch."""
    firings = old.firings + fired
    gain = jnp.maximum(1 / jnp.maximum(firings, 1), 1 - state.decay)
    mean = old.mean + jnp.where(fired, gain * (old.silence + 1 - old.mean), 0)
    return Firing(jnp.where(fired, 0, old.silence + 1), firings, mean)


def _rejects(state: SNRState, record: Firing) -> Bool[Array, " size"]:
    """Says which neurons are silent for longer than chance explains."""
    chance = jnp.power(1 - 1 / record.mean, record.silence.astype(jnp.float32))
    return (chance < state.rejection) & (record.silence >= state.minimum)


def _begin(record: Firing, new: Bool[Array, " size"]) -> Firing:
    """Returns the record with a new life for some neurons."""
    return Firing(*(jnp.where(new, first, leaf) for leaf, first in zip(record, (0, 0, 1.0), strict=True)))
