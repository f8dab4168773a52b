"""Condensate metric: small steps along what earlier contexts used, and even ones along all that is given now."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import core, cost, projection, units
from neuroml.errors import UsageError

TINY = float(jnp.finfo(jnp.float32).tiny)


class Met(NamedTuple):
    """What one layer is given now, and what it was given in earlier contexts."""

    moment: jax.Array  # [inputs, inputs]: running mean of x x^T
    shell: jax.Array  # [inputs, inputs]: mean of x x^T since the last consolidation
    batches: jax.Array  # (): how many batches that is
    core: jax.Array  # [inputs, inputs]: the shells of all consolidations, summed
    unit: jax.Array  # (): mean eigenvalue of the first shell consolidated; 0 before
    inverse: jax.Array  # [inputs, inputs]: what multiplies the steps, at the last solution


class CondensateMetricState(NamedTuple):
    """State of `condensate_metric`."""

    layers: dict[str, Met]
    count: jax.Array  # () int32: updates so far
    strength: jax.Array  # ()
    scale: jax.Array  # ()
    decorrelation: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "scale", "decorrelation", "decay")

    def consolidate(self, params: Any, **_: Any) -> "CondensateMetricState":
        """Moves every layer's shell into its core."""
        del params
        return self._replace(layers={home: _condense(self, one) for home, one in self.layers.items()})

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the fraction of each layer's input space that the core holds: 1 leaves nothing to learn with."""
        grip = lambda energy: energy / jnp.maximum(energy + self.scale, TINY)
        energies = {home: jnp.linalg.eigvalsh(_relative(one.core, one.unit)) for home, one in self.layers.items()}
        return {f"held {home}": self.strength * grip(jnp.maximum(e, 0)).mean() for home, e in energies.items()}


def condensate_metric(
    strength: ArrayLike = 1.0,
    *,
    scale: ArrayLike = 0.1,
    decorrelation: ArrayLike = 0.75,
    decay: ArrayLike = 0.999,
    every: int = 100,
    windows: projection.Windows | None = None,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Condensate metric: multiplies each step by one inverse, of what the layer is given and was given before.

        inverse = ((1 - decorrelation) * I + decorrelation * now + core / (scale * unit))^-1
        step    = step + strength * (inverse @ step - step)
        moment  = decay * moment + (1 - decay) * mean x x^T            x: inputs of the layer, 1 for the bias behind
        now     = (1 - decay^t) * moment / size + decay^t * I          size: mean eigenvalue of the moment
        core    = sum over earlier contexts of their mean x x^T,  unit = mean eigenvalue of the first

    As long as the updates t are few, inputs count as white: else what the first context has little of, and the next one
    much, would be learnt with steps several times too large. With `decorrelation=0`, or inputs that are white, it is
    the ridge projector of `neuroml.condensate_projector`, and as long as nothing is held, after some time,
    `neuroml.decorrelation` with ridge (1 - decorrelation) / decorrelation. One after the other the two get in each
    other's way: along a direction that is half held, and rare now, decorrelation undoes what the projector protects,
    and a product of two symmetric matrices may turn a step up the gradient. This one cannot.

    Args:
      strength: in [0, 1]; 0 is inert.
      scale: > 0: the ridge of what is held, as in `condensate_projector`. Smaller holds more; infinite holds nothing.
      decorrelation: in [0, 1): how far steps are made even along what the layer is given now.
      decay: of the running second moment, in [0, 1).
      every: updates between solutions, which cost inputs^3; there is one at each consolidation, too.
      windows: strides and padding of convolutions other than stride 1 and "SAME", by layer path. Name them all: neither
        weights nor activity tell, and one that is not named is taken for stride 1 and "SAME" without a warning.
      shuffled: the content-free control: what is held is that of inputs whose entries are permuted.

    Returns:
      A rule that needs the word `activity`. Put it last in the chain: penalties and weight decay are held back along
      what is kept, too. Memory is 4 inputs^2 a layer, in float32 whatever the weights are. Steps are plain before the
      first solution. A batch whose inputs are not finite, or too large to be squared, leaves moments and core unharmed.

    Raises:
      UsageError: no layer among the weights, an activity that does not fit, a number outside its range.

    Reference:
      Ours; of Zeng et al. 2019 (orthogonal weight modification, in its ridge form) and Benzing 2022 (FOOF). The sum is
      the second moment of all inputs of the past and the present, each with a weight of its own.

    >>> params = {"kernel": jnp.zeros((2, 1))}
    >>> tx = condensate_metric(scale=1e-3, decorrelation=0.0)
    >>> x = jnp.array([[1.0, 0.0]])                                            # all inputs so far lie on the first axis
    >>> _, state = tx.update(params, tx.init(params), params, activity=x)
    >>> state = core.consolidate(state, params)
    >>> step, _ = tx.update({"kernel": jnp.ones((2, 1))}, state, params, activity=x)
    >>> step["kernel"].round(2).ravel().tolist()
    [0.0, 1.0]
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    given = {"strength": strength, "scale": scale, "decorrelation": decorrelation, "decay": decay}
    bounds = {"strength": "[0, 1]", "scale": "(0, inf]", "decorrelation": "[0, 1)", "decay": "[0, 1)"}
    core.require_ranges("condensate_metric", given, **bounds)

    def init(params):
        layers = projection.begin("condensate_metric", params, _blank)
        return CondensateMetricState(layers, jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def condensate_metric(updates, state, params, *, activity, **_):
        del params
        state = core.live(state, **given)._replace(count=state.count + 1)
        rows = projection.inputs(updates, activity, windows)
        ok = projection.finite(rows)
        layers = {home: _gather(state, one, rows[home], ok, shuffled) for home, one in state.layers.items()}
        due = state.count % every == 0
        with cost.one_in(every):
            solve = lambda known: {home: _solved(state, one) for home, one in known.items()}
            layers = jax.lax.cond(due, solve, lambda known: known, layers)
        turn = lambda step, inverse: step + state.strength * (inverse @ step.astype(inverse.dtype) - step)
        steps = {home: turn(step, layers[home].inverse) for home, step in projection.matrices(updates).items()}
        return projection.replace(updates, steps), state._replace(layers=layers)

    return core.rule(init, condensate_metric)


def _blank(sizes: dict[str, int]) -> dict[str, Met]:
    def one(size):
        moment, shell, held = (jnp.zeros((size, size)) for _ in range(3))  # apart: a buffer cannot be donated twice
        batches, unit = (jnp.zeros(()) for _ in range(2))
        return Met(moment, shell, batches, held, unit, jnp.eye(size))

    return {home: one(size) for home, size in sizes.items()}


def _gather(state: CondensateMetricState, one: Met, rows: Array, ok: Bool[Array, ""], shuffled: bool) -> Met:
    """Adds a batch to the running moment and to the shell."""
    moment = one.moment + (1 - state.decay) * (projection.second_moment(rows) - one.moment)
    shell, batches = projection.gathered(one.shell, one.batches, units.in_order(rows.T, shuffled).T, ok)
    return one._replace(moment=jnp.where(ok, moment, one.moment), shell=shell, batches=batches)


def _condense(state: CondensateMetricState, one: Met) -> Met:
    """Returns the layer with its shell in the core."""
    unit = jnp.where(one.unit > 0, one.unit, jnp.trace(one.shell) / one.shell.shape[0])
    new = one._replace(shell=jnp.zeros_like(one.shell), batches=jnp.zeros(()), core=one.core + one.shell, unit=unit)
    return _solved(state, new)


def _relative(moment: Array, unit: Array) -> Array:
    return moment / jnp.maximum(unit, TINY)


def _solved(state: CondensateMetricState, one: Met) -> Met:
    """Returns the layer with the inverse that its moment and its core now have."""
    size = one.moment.shape[0]
    eye, unit = jnp.eye(size), jnp.trace(one.moment) / size
    seen = 1 - state.decay**state.count
    now = seen * jnp.where(unit > 0, _relative(one.moment, unit), eye) + (1 - seen) * eye  # white as far as unseen
    least = 1 - state.decorrelation  # no eigenvalue can be smaller, except by rounding
    total = least * eye + state.decorrelation * now + _relative(one.core, one.unit) / state.scale
    inverse = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(total), eye)
    sound = jnp.max(jnp.diag(inverse)) <= 1.01 / least  # not of NaN
    return one._replace(inverse=jax.lax.cond(sound, lambda: inverse, lambda: _bounded_inverse(total, least)))


def _bounded_inverse(total: Array, least: Array) -> Array:
    """Returns the inverse of a matrix so ill-conditioned that it has no Cholesky factor in float32."""
    values, vectors = jnp.linalg.eigh(total)
    return (vectors / jnp.maximum(values, least)) @ vectors.T
