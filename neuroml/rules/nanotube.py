"""Tunnelling nanotubes: a healthy neuron hands what it has to one that has failed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from neuroml import core, recycling, surgery, units
from neuroml.errors import unknown

CHOICES = ("utility", "random")


class NanotubeState(NamedTuple):
    """State of `nanotube`."""

    sums: dict[str, jax.Array]  # [size]: the neurons' answers, summed since the last check
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced
    count: jax.Array  # () int32: updates so far
    births: jax.Array  # () int32: replacements so far
    threshold: jax.Array  # ()
    donors: dict[str, jax.Array]  # [size] int: whose weights each neuron got in the last update; itself: its own
    drive: dict[str, jax.Array]  # [size]: what a donor and its copies hand on together, in parts of what it did
    noise: jax.Array  # ()
    compensation: jax.Array  # ()

    hyperparameters = ("threshold", "noise", "compensation")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far."""
        return {"replaced": self.births.astype(jnp.float32)}


def nanotube(
    wiring: Any,
    *,
    threshold: ArrayLike = 0.01,
    noise: ArrayLike = 0.1,
    compensation: ArrayLike = 0.0,
    every: int = 100,
    choose: str = "utility",
    heals: str = "silent",
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the neurons that hardly answer by copies of those that matter most.

        score_j   = mean |h_j| / mean_i mean |h_i|      over the examples since the last check; i: the layer's neurons
        utility_j = mean |h_j| * \sum_k |w_jk|          k: the neurons that it feeds
        every so many updates: a neuron with score_j < threshold gets a donor d, the first of them the most useful
            w_in_j  = w_in_d + noise * t * std(w_in_d) * normal;  bias_j = bias_d;  j is the t-th copy of d
            w_out_j = w_out_d = w_out_d * (1 + compensation * lost) / (1 + copies of d)

    of which `lost` replace neurons that were destroyed: those that hear nothing or that nobody hears, whose incoming or
    outgoing weights are all zero. Without noise and compensation the network's function does not change (to rounding),
    unless a normalization averages over the neurons: a copy changes the average. Where one has names in the wiring, a
    neuron gets its donor's part of the vectors, too. With compensation 1 the survivors hand on, in the expectation,
    what all neurons did before the injury, as the weights of a network with dropout are scaled for what is left out.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      threshold: of the score, whose mean is 1, >= 0; 0 is inert.
      noise: of the copied incoming weights, in their own standard deviations; with 0 the two never part.
      compensation: in [0, 1], how much of what a destroyed neuron handed on its copy makes up for.
      every: updates between two checks.
      choose: "utility", the most useful neurons give; or "random", the content-free control: donors drawn by lot from
        the neurons that do answer.
      heals: "silent", all that score low, which on a stream of tasks are also neurons that earlier tasks used; or
        "destroyed", only those of them that were.

    Returns:
      A rule that needs the words `activity` and `key`. Last in the chain; with momentum or Adam, as
      `neuroml.renewal(optax.adam(1e-3), nanotube(wiring), wiring)`, which copies the donor's moments, too. A neuron
      with an answer that is not finite neither gets nor gives anything at the next check.

    Raises:
      UsageError: no population between two layers, a layer without names, an activity that lacks one, `every` below 1,
        an unknown choice.

    Reference:
      Saha et al. 2022, "Intercellular nanotubes mediate mitochondrial trafficking between cancer and immune cells"; as
      growth by splitting neurons: Wu, Wang, Liu 2019, "Splitting steepest descent for growing neural architectures".

    How ours differs: there is no published algorithm of this kind for repair that we know of. Second moments are
    copied as they are, although the gradients of a neuron that shares its outgoing weights are smaller.

    >>> params = {"a": {"kernel": jnp.array([[1.0, 0.0]])}, "b": {"kernel": jnp.array([[4.0], [0.0]])}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = nanotube(names, noise=0.0, every=1)
    >>> words = {"activity": {"a": jnp.ones((1, 1)), "b": jnp.array([[1.0, 0.0]])}, "key": jax.random.key(0)}
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    >>> after = optax.apply_updates(params, step)
    >>> after["a"]["kernel"].tolist(), after["b"]["kernel"].ravel().tolist()
    ([[1.0, 1.0]], [2.0, 2.0])
    """
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)
    recycling.check_settings(every, "utility", heals)

    def init(params):
        known = recycling.begin("nanotube", wiring, params, threshold)
        donors, drive = (units.begin("nanotube", wiring, params, blank) for blank in (jnp.arange, jnp.ones))
        return NanotubeState(*known, donors, drive, core.leaf(noise), core.leaf(compensation))

    def nanotube(updates, state, params, *, activity, key, **_):
        state = core.live(state, threshold=threshold, noise=noise, compensation=compensation)
        found = units.find(wiring, params)
        signal = {name: jnp.abs(rows).mean(0) for name, rows in units.outputs(found, activity).items()}
        state = recycling.heard(state, signal)
        themselves = {name: jnp.arange(one.size) for name, one in found.items()}

        def check(steps, state):
            draw, shake = jax.random.split(key)
            silent, leaving = recycling.failing(state), units.outgoing(found, params)
            known = {name: jnp.isfinite(total) for name, total in state.sums.items()}
            gives = {name: known[name] & ~which for name, which in silent.items()}
            # Someone must be left to give.
            failing = {name: which & gives[name].any() for name, which in silent.items()}
            lost = recycling.healed(found, params, failing, "destroyed")
            failing = lost if heals == "destroyed" else failing
            useful = {name: jnp.where(known[name], state.sums[name] * leaving[name], 0) for name in failing}
            useful = units.by_lot(draw, useful) if choose == "random" else useful
            given = {name: _donors(useful[name], gives[name], which) for name, which in failing.items()}
            donors, copies = ({name: pair[i] for name, pair in given.items()} for i in (0, 1))
            times = lambda donor, which: jnp.bincount(donor, which.astype(int), length=len(which))
            gone = {name: times(donors[name], which) for name, which in lost.items()}
            drive = {name: 1 + state.compensation * count for name, count in gone.items()}
            hand_over = lambda own: _handed_over(found, wiring, own, params, donors, drive, copies, state.noise, shake)
            moved = jax.lax.cond(units.some(failing), hand_over, lambda own: own, steps)
            return moved, recycling.checked(state, failing)._replace(donors=donors, drive=drive)

        def wait(steps, state):
            steps, state = recycling.waiting(steps, state)
            return steps, state._replace(donors=themselves, drive=jax.tree.map(jnp.ones_like, state.drive))

        return jax.lax.cond(state.count % every == 0, check, wait, updates, state)

    return core.rule(init, nanotube)


def _donors(
    useful: Float[Array, " size"], gives: Bool[Array, " size"], failing: Bool[Array, " size"]
) -> tuple[Int[Array, " size"], Int[Array, " size"]]:
    """Returns a donor that `gives` for each neuron that fails, itself for each other; and which copy of it that is.

    The best gives to the first, and to a second time when all others have given; who gets nothing is copy 0.
    """
    order = jnp.argsort(jnp.where(gives, useful, -jnp.inf), descending=True)
    turn, place = jnp.divmod(jnp.cumsum(failing) - 1, jnp.maximum(gives.sum(), 1))
    return jnp.where(failing, order[place], jnp.arange(len(failing))), jnp.where(failing, turn + 1, 0)


def _handed_over(
    found: Any, wiring: Any, steps: Any, params: Any, donors: Any, drive: Any, copies: Any, noise: Array, key: Array
) -> Any:
    """Returns the updates after which each neuron has what its donor would have."""
    after = optax.apply_updates(params, steps)
    gets = {name: copy > 0 for name, copy in copies.items()}
    gives = {name: jnp.zeros(len(d), bool).at[d].max(gets[name]) for name, d in donors.items()}
    moved = surgery.shaken(found, surgery.shared(found, after, donors, drive, wiring), copies, noise, key)
    changed = surgery.touched(found, params, {name: gets[name] | gives[name] for name in donors}, wiring)
    return jax.tree.map(lambda ours, new, old, step: jnp.where(ours, new - old, step), changed, moved, params, steps)
