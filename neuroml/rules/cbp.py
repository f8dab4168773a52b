"""Continual backpropagation: neurons of little use are replaced by new ones, a few at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core, projection, surgery, units
from neuroml.errors import unknown

CHOICES = ("utility", "random")
TINY = 1e-12


class Record(NamedTuple):
    """What is known of the neurons of one population."""

    utility: jax.Array  # [size], running mean
    mean: jax.Array  # [size], running mean of what they answer
    age: jax.Array  # [size], int32: updates since birth
    due: jax.Array  # (): replacements that are owed


class CBPState(NamedTuple):
    """State of `cbp`."""

    records: dict[str, Record]
    renewed: dict[str, jax.Array]  # [size] bool: neurons that the last update replaced
    births: jax.Array  # () int32: replacements so far
    rate: jax.Array  # ()
    decay: jax.Array  # ()
    maturity: jax.Array  # ()

    hyperparameters = ("rate", "decay", "maturity")

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns how many neurons were replaced so far."""
        return {"replaced": self.births.astype(jnp.float32)}


def cbp(
    wiring: Any,
    fresh: Callable[[Array], Any],
    *,
    rate: ArrayLike = 1e-4,
    decay: ArrayLike = 0.99,
    maturity: ArrayLike = 100,
    choose: str = "utility",
) -> optax.GradientTransformationExtraArgs:
    r"""Continual backpropagation: replaces the least useful of the mature neurons at a constant rate.

        utility_j = decay * utility_j + (1 - decay) * |h_j - mean_j| * \sum |w_out_j| / \sum |w_in_j|
        due      += rate * number of neurons older than maturity;   while due >= 1: replace the least useful of them

    A replaced neuron gets fresh incoming weights and bias, and outgoing weights of zero; what it used to add on
    average, \sum w_out_j * mean_j, goes into the biases that it fed.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      fresh: `(key) -> params`, draws a new network; its incoming weights are those of the new neurons.
      rate: share of the mature neurons that is replaced per update, >= 0; 0 is inert.
      decay: of utilities and means, in [0, 1).
      maturity: updates before a neuron may be replaced, >= 0.
      choose: "utility", the least useful; or "random", the content-free control: as many mature neurons, drawn by lot.

    Returns:
      A rule that needs the words `activity` and `key`. Last in the chain; with momentum or Adam, as
      `neuroml.renewal(optax.adam(1e-3), cbp(wiring, ...), wiring)`.

    Raises:
      UsageError: a number outside its range, no population between two layers, a layer without names, an activity that
        lacks one, or an unknown choice.

    Reference:
      Dohare et al. 2024, "Loss of plasticity in deep continual learning", Nature 632:768, algorithm 1, with the
      utility of the authors' code (github.com/shibhansh/loss-of-plasticity, lop/algos/gnt.py: "adaptable
      contribution").

    How ours differs: replacement and step are one update, so the utility is that of the weights before the step;
    Adam's counts are not set back (see `neuroml.renewal`). A new neuron's bias is drawn, as its weights are;
    the authors' code sets it to 0.

    >>> params = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((3, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = cbp(names, lambda key: params, rate=1.0, maturity=0)                      # replaces all, always
    >>> words = {"activity": {"a": jnp.ones((1, 2)), "b": jnp.ones((1, 3))}, "key": jax.random.key(0)}
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **words)
    >>> step["b"]["kernel"].ravel().tolist(), int(state.births)
    ([-1.0, -1.0, -1.0], 3)
    """
    if choose not in CHOICES:
        raise unknown("choice", choose, CHOICES)
    given = {"rate": rate, "decay": decay, "maturity": maturity}
    core.require_ranges("cbp", given, rate="[0, inf)", decay="[0, 1)", maturity="[0, inf]")

    def blank(size):
        return Record(jnp.zeros(size), jnp.zeros(size), jnp.zeros(size, jnp.int32), jnp.zeros(()))

    def init(params):
        records = units.begin("cbp", wiring, params, blank)
        renewed = units.begin("cbp", wiring, params, lambda size: jnp.zeros(size, bool))
        return CBPState(records, renewed, jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def cbp(updates, state, params, *, activity, key, **_):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        answers = units.outputs(found, activity)
        birth, lots = jax.random.split(key) if choose == "random" else (key, key)
        entering, leaving = units.incoming(found, params), units.outgoing(found, params)
        chosen, records = {}, {}
        for index, name in enumerate(found):
            ratio = leaving[name] / jnp.maximum(entering[name], TINY)
            record = _judge(state, state.records[name], answers[name], ratio)
            draw = jax.random.fold_in(lots, index) if choose == "random" else None
            chosen[name], records[name] = _choose(state, record, draw)
        some = units.some(chosen)

        def replace(steps):
            means = {name: record.mean / (1 - state.decay**record.age) for name, record in records.items()}
            steps = _keep_the_mean(found, steps, params, means, chosen)
            share = {name: which.astype(jnp.float32) for name, which in chosen.items()}
            return surgery.pull(found, steps, params, fresh(birth), share, wiring=wiring)

        updates = jax.lax.cond(some, replace, lambda steps: steps, updates)
        born = {name: _born(record, chosen[name]) for name, record in records.items()}
        births = state.births + sum(which.sum() for which in chosen.values())
        return updates, state._replace(records=born, renewed=chosen, births=births.astype(jnp.int32))

    return core.rule(init, cbp)


def _judge(state: CBPState, old: Record, answers: Array, ratio: Array) -> Record:
    """Returns the record after one more batch; that of neurons which are not finite in it stays."""
    age = old.age + 1
    mean = state.decay * old.mean + (1 - state.decay) * answers.mean(0)
    corrected = mean / (1 - state.decay**age)
    contribution = jnp.abs(answers - corrected).mean(0) * ratio
    utility = state.decay * old.utility + (1 - state.decay) * contribution
    ok, new = jnp.isfinite(utility), old._replace(utility=utility, mean=mean, age=age)
    return jax.tree.map(lambda after, before: jnp.where(ok, after, before) if before.ndim else before, new, old)


def _choose(state: CBPState, record: Record, draw: Array | None) -> tuple[Array, Record]:
    """Returns which neurons are to be replaced, by lot if a key is given, and the record with that many less owed."""
    mature = record.age > state.maturity
    due = record.due + state.rate * mature.sum()
    fair = record.utility / (1 - state.decay**record.age)
    judged = fair if draw is None else jax.random.uniform(draw, fair.shape)
    worst = lambda: mature & (jnp.argsort(jnp.argsort(jnp.where(mature, judged, jnp.inf))) < jnp.floor(due))
    chosen = jax.lax.cond(due >= 1, worst, lambda: jnp.zeros_like(mature))  # at most steps nothing is owed: no sorting
    return chosen, record._replace(due=due - chosen.sum())


def _keep_the_mean(found, updates, params, corrected, chosen):
    """Adds what the replaced neurons gave on average to the biases of the layers that they fed."""
    leaves, structure = jax.tree.flatten(updates)
    old, layers = jax.tree.leaves(params), projection.layers(params)
    for name, population in found.items():
        given = jnp.where(chosen[name], corrected[name], 0)
        for home in population.readers:
            layer = layers[home]
            if layer.bias is not None:
                added = given @ old[layer.kernel].reshape(-1, *layer.shape[-2:]).sum(0)
                leaves[layer.bias] = leaves[layer.bias] + added.astype(leaves[layer.bias].dtype)
    return structure.unflatten(leaves)


def _born(record: Record, chosen: Array) -> Record:
    """Returns the record with the new neurons at age zero."""
    zero = lambda leaf: jnp.where(chosen, jnp.zeros_like(leaf), leaf)
    return record._replace(utility=zero(record.utility), mean=zero(record.mean), age=zero(record.age))
