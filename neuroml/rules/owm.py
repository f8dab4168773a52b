"""Orthogonal weight modification: every step avoids the mean inputs that layers have met so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import core, projection
from neuroml.errors import UsageError


class OWMState(NamedTuple):
    """State of `owm`."""

    roots: dict[str, Any]  # of each layer's projector P = root root^T, [inputs, inputs]: the identity at first
    steps: jax.Array  # () int32: batches since the last consolidation
    strength: jax.Array  # ()
    alpha: jax.Array  # ()
    alpha_decay: jax.Array  # ()

    hyperparameters = ("strength", "alpha", "alpha_decay")

    def consolidate(self, params: Any, **_: Any) -> "OWMState":
        """Starts the decay of `alpha` anew; the projectors already hold what was met."""
        del params
        return self._replace(steps=jnp.zeros_like(self.steps))

    def hold(self, rows: dict[str, Bool[Array, " inputs"]]) -> "OWMState":
        """Returns the state in which these rows of the layers' matrices get no steps, and the others' stay theirs."""
        shut = {home: jnp.where(rows[home][:, None], 0, root) for home, root in self.roots.items() if home in rows}
        return self._replace(roots=self.roots | shut)

    def projectors(self) -> dict[str, Float[Array, "inputs inputs"]]:
        """Returns, for each layer, the matrix that multiplies its steps where `strength` is 1."""
        return {home: root @ root.T for home, root in self.roots.items()}

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the fraction of each layer's input space that is held: 1 leaves nothing to learn with."""
        return {f"held {home}": self.strength * (1 - jnp.sum(r**2) / r.shape[0]) for home, r in self.roots.items()}


def owm(
    strength: ArrayLike = 1.0,
    *,
    alpha: ArrayLike = 1.0,
    alpha_decay: ArrayLike = 1.0,
    windows: projection.Windows | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Orthogonal weight modification: steps are projected away from all mean inputs met so far, layer by layer.

    With x the mean input of a batch, 1 for the bias behind, every update first sharpens the projector of each layer,
    and then projects the step W of its matrix [inputs, out]:

        k  = P x / (alpha + x^T P x)
        P -= k x^T P                                   so that P = I - A (A^T A + alpha I)^-1 A^T, columns of A all x
        step = W - strength * (W - P W)

    The projector runs along within a task, from the first task on, and learns of a batch before that batch's step, as
    in the authors' code; only the decay of alpha needs `neuroml.consolidate`. Each patch of a convolution's mean input
    is an x of its own.

    Args:
      strength: 0 is inert, 1 projects fully.
      alpha: the ridge, > 0, in units of a squared input. Smaller projects harder.
      alpha_decay: factor by which alpha shrinks at each step, in (0, 1]; `neuroml.consolidate` starts it anew. The
        authors let alpha fall by a factor of 10 to 100,000 over a task of n steps: 0.1 ** (1 / n) and so on.
      windows: strides and padding of convolutions other than stride 1 and "SAME", by layer path. Name them all: neither
        weights nor activity tell, and one that is not named is taken for stride 1 and "SAME" without a warning.

    Returns:
      A rule that needs the word `activity` (`neuroml.activity`). Put it last in the chain: what is applied is
      projected. Updates of arrays that belong to no layer pass through. A batch whose inputs are not finite,
      or too large to be squared, leaves the projectors unharmed. Memory is inputs^2 for each layer.

    Raises:
      UsageError: no layer among the weights, an activity that does not fit, or an alpha that is not above 0.

    Reference:
      Zeng, Chen, Cui, Yu 2019, "Continual learning of context-dependent processing in neural networks", Nature Machine
      Intelligence 1:364, and the authors' code (github.com/beijixiong3510/OWM).

    How ours differs: theirs projects gradients, before clipping and momentum; ours projects what is applied. Theirs
    has an alpha for each layer; ours one for all: give several by `optax.partition`. Biases are projected as a row of
    the matrix wherever there are any; in the authors' experiments some networks do so, others have none or fixed ones.
    P is kept as its square root (Potter's form: Kaminski, Bryson, Schmidt 1971, "Discrete square root filtering"):
    with alpha small against x^T x, rounding takes the plain recursion to infinity within some thousand float32 steps.

    >>> params = {"kernel": jnp.zeros((2, 1))}
    >>> tx = owm(alpha=1e-6)
    >>> x = jnp.array([[0.0, 0.0], [2.0, 0.0]])                               # a batch; its mean is the first axis
    >>> step, state = tx.update({"kernel": jnp.ones((2, 1))}, tx.init(params), params, activity=x)
    >>> step["kernel"].round(3).ravel().tolist()
    [0.0, 1.0]
    """
    given = {"strength": strength, "alpha": alpha, "alpha_decay": alpha_decay}
    if isinstance(alpha, float | int) and alpha <= 0:
        raise UsageError(f"alpha={alpha} must be above 0.")

    def init(params):
        blank = lambda sizes: {home: jnp.eye(inputs) for home, inputs in sizes.items()}
        leaves = {name: core.leaf(value) for name, value in given.items()}
        return OWMState(projection.begin("owm", params, blank), jnp.int32(0), **leaves)

    def owm(updates, state, params, *, activity, **_):
        del params
        state = core.live(state, **given)
        rows = projection.inputs(updates, jax.tree.map(_mean, activity), windows)
        ok, decayed = projection.finite(rows), state.alpha * state.alpha_decay**state.steps
        alpha_now = jnp.maximum(decayed, jnp.finfo(jnp.float32).tiny)  # 0 / 0 where an input is zero, too
        roots = {home: _sharpened(root, rows[home], alpha_now, ok) for home, root in state.roots.items()}
        project = lambda root, step: step - state.strength * (step - root @ (root.T @ step))
        steps = {home: project(roots[home], step) for home, step in projection.matrices(updates).items()}
        return projection.replace(updates, steps), state._replace(roots=roots, steps=state.steps + ok)

    return core.rule(init, owm)


def _mean(inputs: ArrayLike) -> Float[Array, "1 ..."]:
    return jnp.mean(jnp.asarray(inputs, jnp.float32), axis=0, keepdims=True)


def _sharpened(
    root: Float[Array, "inputs inputs"], rows: Float[Array, "n inputs"], alpha: Array, ok: Bool[Array, ""]
) -> Float[Array, "inputs inputs"]:
    """Returns the root of the projector after one recursion for each row; as it was unless `ok`."""
    if rows.shape[0] > rows.shape[1]:
        rows = jnp.linalg.qr(rows, mode="r")  # the projector depends on rows^T rows only: as few rows have the same

    def recursion(root, x):
        along = x @ root
        total = alpha + along @ along
        # The square root of I - along along^T / total is I - along along^T / (total + sqrt(alpha total)).
        return root - jnp.outer(root @ along, along) / (total + jnp.sqrt(alpha * total)), None

    return jnp.where(ok, jax.lax.scan(recursion, root, rows)[0], root)
