"""Decorrelation: each layer learns as if its inputs were not correlated, as lateral inhibition would make them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from neuroml import core, cost, projection, units
from neuroml.errors import UsageError

TINY = float(jnp.finfo(jnp.float32).tiny)


class Inputs(NamedTuple):
    """What is known of the inputs of one layer, a 1 for the bias behind."""

    moment: jax.Array  # [inputs, inputs]: running mean of x x^T
    inverse: jax.Array  # [inputs, inputs]: at the last solution


class DecorrelationState(NamedTuple):
    """State of `decorrelation`."""

    layers: dict[str, Inputs]
    count: jax.Array  # () int32: updates so far
    strength: jax.Array  # ()
    ridge: jax.Array  # ()
    decay: jax.Array  # ()

    hyperparameters = ("strength", "ridge", "decay")


def decorrelation(
    strength: ArrayLike = 1.0,
    *,
    ridge: ArrayLike = 0.1,
    decay: ArrayLike = 0.999,
    every: int = 100,
    largest: int = 512,
    windows: projection.Windows | None = None,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the gradient of each layer by the inverse second moment of what the layer is given.

        moment   = decay * moment + (1 - decay) * mean x x^T                         x: inputs, 1 for the bias behind
        inverse  = (1 + ridge) * (moment / unit + ridge * I)^-1,  unit = trace(moment) / inputs     every so many steps
        gradient = (1 - strength) * gradient + strength * inverse @ gradient

    Where inputs come together, a plain gradient learns along their common direction many times faster than along what
    tells them apart. With uncorrelated inputs of equal size, the 1 of the bias among them, the rule changes nothing.

    The gradient of a batch of one row is taken for an outer product with that row, and what of it is none stays as it
    is: put penalties behind this rule, and `optax.MultiSteps` around what stands behind it, not around the rule.

    Args:
      strength: in [0, 1]; 0 is inert, 1 decorrelates fully.
      ridge: > 0, in units of the layer's mean eigenvalue; larger is closer to the plain gradient.
      decay: of the running second moment, in [0, 1).
      every: updates between solutions, which cost inputs^3.
      largest: layers with more inputs, a bias being one, are left as they are.
      windows: strides and padding of convolutions other than stride 1 and "SAME", by layer path. Name them all: neither
        weights nor activity tell, and one that is not named is taken for stride 1 and "SAME" without a warning.
      shuffled: the content-free control: the inverse is that of other inputs, always the same; its eigenvalues stay.

    Returns:
      A rule that needs the word `activity`. First in the chain, before the optimizer. Memory is 2 inputs^2 a layer. A
      batch whose inputs are not finite, or too large to be squared, leaves the moments unharmed; as long as a layer's
      inputs were all zero, its gradient stays as it is. Moments and inverses are float32 whatever the weights are.

    Raises:
      UsageError: no layer, or none of at most `largest` inputs; an activity that does not fit; a number outside its
        range.

    Reference:
      Benzing 2022, "Gradient descent on neurons and its link to approximate second-order optimization" (FOOF), of
      which this is the streaming form; as lateral inhibition: Ahmad et al. 2023, "Constrained parameter inference as a
      principle for learning".

    How ours differs: the ridge is relative to the layer, and scaled so that whitened inputs are left alone; the inverse
    is that of some steps ago.

    >>> params = {"kernel": jnp.zeros((2, 1))}
    >>> tx = decorrelation(ridge=0.01, decay=0.0, every=1)
    >>> x = jnp.array([[1.0, 0.9], [0.9, 1.0]])                                              # they go together
    >>> gradient = {"kernel": x.sum(0)[:, None]}
    >>> step, _ = tx.update(gradient, tx.init(params), params, activity=x)
    >>> bool(step["kernel"].sum() < gradient["kernel"].sum())
    True
    """
    if every < 1:
        raise UsageError(f"every={every} must be at least 1.")
    given = {"strength": strength, "ridge": ridge, "decay": decay}
    core.require_ranges("decorrelation", given, strength="[0, 1]", ridge="(0, inf)", decay="[0, 1)")

    def turned(one, ridge):
        rows = units.in_order(_solved(one, ridge), shuffled)
        return units.in_order(rows.T, shuffled).T

    def blank(sizes):
        small = {home: size for home, size in sizes.items() if size <= largest}
        if not small:
            raise UsageError(f"no layer has at most largest={largest} inputs: they have {sizes}.")
        return {home: Inputs(jnp.zeros((size, size)), jnp.eye(size)) for home, size in small.items()}

    def init(params):
        layers = projection.begin("decorrelation", params, blank)
        return DecorrelationState(layers, jnp.int32(0), **{name: core.leaf(value) for name, value in given.items()})

    def decorrelation(updates, state, params, *, activity, **_):
        del params
        state = core.live(state, **given)
        rows = {
            home: row for home, row in projection.inputs(updates, activity, windows).items() if home in state.layers
        }
        ok = projection.finite({home: rows[home] for home in state.layers})
        layers = {home: _met(state, one, rows[home], ok) for home, one in state.layers.items()}
        due = (state.count + 1) % every == 0
        solve = lambda known: {home: one._replace(inverse=turned(one, state.ridge)) for home, one in known.items()}
        with cost.one_in(every):
            layers = jax.lax.cond(due, solve, lambda known: known, layers)
        given_steps = projection.matrices(updates)
        turn = lambda home, step: step + state.strength * _change(layers[home].inverse, step, rows[home])
        steps = {home: turn(home, step) if home in layers else step for home, step in given_steps.items()}
        return projection.replace(updates, steps), state._replace(layers=layers, count=state.count + 1)

    return core.rule(init, decorrelation)


def _met(state: DecorrelationState, one: Inputs, rows: Array, ok: Array) -> Inputs:
    """Returns the layer's record after one more batch."""
    new = one.moment + (1 - state.decay) * (projection.second_moment(rows) - one.moment)
    return one._replace(moment=jnp.where(ok, new, one.moment))


def _change(inverse: Array, step: Array, rows: Array) -> Array:
    """Returns `inverse @ step - step`.

    The gradient of one example is an outer product with its input x: then `inverse @ x` is all there is to compute.
    (What of the step is no such product, say a penalty's part, is left as it is.)
    """
    # In bfloat16 the small eigenvalues of the inverse drown in the rounding of the large ones, and may change sign.
    step = step.astype(jnp.promote_types(step.dtype, jnp.float32))
    if rows.shape[0] > 1:
        return inverse @ step - step
    x = rows[0].astype(step.dtype)
    return jnp.outer(inverse @ x - x, (x @ step) / jnp.maximum(x @ x, TINY))


def _solved(one: Inputs, ridge: Array) -> Float[Array, "inputs inputs"]:
    size = one.moment.shape[0]
    unit = jnp.maximum(jnp.trace(one.moment) / size, jnp.finfo(jnp.float32).tiny)
    factor = jax.scipy.linalg.cho_factor(one.moment / unit + ridge * jnp.eye(size))
    inverse = (1 + ridge) * jax.scipy.linalg.cho_solve(factor, jnp.eye(size))
    return jnp.where(jnp.trace(one.moment) > 0, inverse, jnp.eye(size))
