"""Repair as Schwann cells do it: a neuron that is hurt turns back, learns faster, and matures again."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import averages, core, surgery, units
from neuroml.wiring import spread


class SchwannState(NamedTuple):
    """State of `schwann`."""

    injury: dict[str, jax.Array]  # [size], in [0, 1]: c-Jun
    answers: dict[str, jax.Array]  # [size]: running means of |h|
    start: Any  # the weights at init
    protected: Any  # state of the rule whose protection loosens
    count: dict[str, jax.Array]  # [size] int32: of how many batches that is
    strength: jax.Array  # ()
    threshold: jax.Array  # ()
    rate: jax.Array  # ()
    gain: jax.Array  # ()
    rise: jax.Array  # ()
    recovery: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "threshold", "rate", "gain", "rise", "recovery", "decay")
    anchors = ("start",)

    def consolidate(self, params: Any, **context: Any) -> "SchwannState":
        """Lets the rule inside consolidate."""
        return self._replace(protected=core.consolidate(self.protected, params, **context))

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the mean injury of all neurons, and what the rule inside has to say."""
        return {"injury": jnp.concatenate([*self.injury.values()]).mean(), **core.report(self.protected)}


def schwann(
    wiring: Any,
    strength: ArrayLike = 1.0,
    *,
    protected: optax.GradientTransformation | None = None,
    threshold: ArrayLike = 0.01,
    rate: ArrayLike = 0.1,
    gain: ArrayLike = 2.0,
    rise: ArrayLike = 0.1,
    recovery: ArrayLike = 0.01,
    decay: ArrayLike = 0.9,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Gives each neuron an injury state; the more it is hurt, the more it turns back, loosens and learns.

        answer_j  = decay * answer_j + (1 - decay) * mean |h_j|                     a plain average in the first updates
        injury_j += rise * (1 - injury_j)        where answer_j < threshold * mean_i answer_i;  i: the layer's neurons
        injury_j -= recovery * injury_j          elsewhere
        J_ij      = 1 - (1 - strength * injury_i) (1 - strength * injury_j)         of the weight between i and j
        step_ij   = (1 + gain * J_ij) * ((1 - J_ij) * protected(step)_ij + J_ij * step_ij)
        and a share rate * strength * injury_j of the way: incoming weights, bias to where they started, outgoing to 0

    A neuron that has been destroyed answers nothing, so it is drawn back to its start, answers again and recovers.
    Where a normalization over neurons has names in the wiring, its vectors are drawn back, too.

    Args:
      wiring: names of the axes of the weights (`neuroml.wiring`).
      strength: of the injury's effects, in [0, 1]; 0 leaves `protected` alone.
      protected: a rule that holds finished steps back, such as `neuroml.condensate_projector()`, or `neuroml.ewc` and
        `neuroml.mas` with a `step_size`; its hold on hurt neurons loosens. None: there is none. Not a rule that adds
        the gradient of a penalty, which is there for an optimizer to descend: behind the optimizer it pushes weights
        away, and nothing here can tell. Put such a rule first in the chain; it then does not loosen.
      threshold: share of the mean answer of its layer below which a neuron counts as hurt.
      rate: of the way back to the start at each update, in [0, 1].
      gain: by how much the steps of hurt neurons are larger.
      rise: of the injury at each update, in [0, 1].
      recovery: of the injury at each update, in [0, 1].
      decay: of the running means, in [0, 1).
      shuffled: the content-free control: each neuron gets the injury of another one, always the same.

    Returns:
      A rule that needs the word `activity`, and the words of `protected`. Last in the chain. Moments are left alone, as
      with other rules that move weights by and by; memory is one copy of the weights.

    Raises:
      UsageError: no population between two layers, a layer without names, an activity that lacks one.

    Reference:
      The repair state of Schwann cells and its switch, c-Jun: Arthur-Farraj et al. 2012, "c-Jun reprograms Schwann
      cells of injured nerves to generate a repair cell essential for regeneration", Neuron 75:633. Soft resets in
      proportion to low utility: see `neuroml.partial_resets`.

    How ours differs: there is no published algorithm; silence for injury, and the start for what a cell turns back to,
    are our reading.

    >>> params = {"a": {"kernel": jnp.array([[1.0, 1.0]])}, "b": {"kernel": jnp.ones((2, 1))}}
    >>> names = {"a": {"kernel": ("input", "hidden")}, "b": {"kernel": ("hidden", "output")}}
    >>> tx = schwann(names, rate=1.0, rise=1.0)
    >>> hurt = {"a": {"kernel": jnp.array([[1.0, 0.0]])}, "b": {"kernel": jnp.array([[1.0], [0.0]])}}
    >>> words = {"activity": {"a": jnp.ones((1, 1)), "b": jnp.array([[1.0, 0.0]])}}
    >>> step, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), hurt, **words)
    >>> optax.apply_updates(hurt, step)["a"]["kernel"].tolist()
    [[1.0, 1.0]]
    """
    given = {"strength": strength, "threshold": threshold, "rate": rate, "gain": gain}
    given |= {"rise": rise, "recovery": recovery, "decay": decay}
    inner = optax.with_extra_args_support(optax.identity() if protected is None else protected)

    def init(params):
        blank = lambda: units.begin("schwann", wiring, params, jnp.zeros)
        leaves = {name: core.leaf(value) for name, value in given.items()}
        start = jax.tree.map(jnp.copy, params)
        return SchwannState(blank(), blank(), start, inner.init(params), averages.begin(blank()), **leaves)

    def schwann(updates, state, params, *, activity, **words):
        state = core.live(state, **given)
        found = units.find(wiring, params)
        held, after = inner.update(updates, state.protected, params, activity=activity, **words)
        sizes = {name: _size(rows) for name, rows in units.outputs(found, activity).items()}
        answers, count = averages.after(state.answers, state.count, sizes, state.decay)
        injury = {name: _hurt(state, state.injury[name], answer) for name, answer in answers.items()}
        felt = {name: state.strength * units.in_order(level, shuffled) for name, level in injury.items()}
        loose = spread({name: 1 - level for name, level in felt.items()}, wiring, params)
        steps = jax.tree.map(lambda hold, free, own: _loosened(state, 1 - own, hold, free), held, updates, loose)
        share = {name: state.rate * level for name, level in felt.items()}
        steps = surgery.pull(found, steps, params, state.start, share, wiring=wiring)
        return steps, state._replace(injury=injury, answers=answers, protected=after, count=count)

    return core.rule(init, schwann)


def _size(rows: Float[Array, "n size"]) -> Float[Array, " size"]:
    """Returns the mean magnitude of each neuron's answers; NaN, if one is not finite, for all: it is relative."""
    size = jnp.abs(rows).mean(0)
    return jnp.where(jnp.isfinite(size).all(), size, jnp.nan)


def _hurt(state: SchwannState, injury: Array, answer: Array) -> Float[Array, " size"]:
    hurt = answer < state.threshold * answer.mean()
    return jnp.where(hurt, injury + state.rise * (1 - injury), (1 - state.recovery) * injury)


def _loosened(state: SchwannState, injury: Array, held: Array, free: Array) -> Array:
    steps = (1 + state.gain * injury) * ((1 - injury) * held + injury * free)
    return jnp.where(injury > 0, steps, held).astype(held.dtype)
