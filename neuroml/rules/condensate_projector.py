"""Condensate projector: what layers have used to answer stays; learning goes where nothing is held."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from neuroml import core, double_well, projection
from neuroml.errors import UsageError

TINY = 1e-30
FIRM = 1e-4  # 1 - grip of a row that is held; more energy would drown the others when a core is taken apart again


class Condensate(NamedTuple):
    """What one layer holds of its input space."""

    shell: jax.Array  # [inputs, inputs]: mean of x xᵀ since the last consolidation
    batches: jax.Array  # (): how many batches that is
    basis: jax.Array  # [inputs, rank]: directions of the core, orthonormal columns
    energy: jax.Array  # [rank]: second moment along them, summed over consolidations
    valence: jax.Array  # [rank]: how many consolidations recruited them
    occupancy: jax.Array  # [rank], in [0, 1]: the double well's memory of having been held
    unit: jax.Array  # (): mean eigenvalue of the first shell consolidated; 0 before


class CondensateProjectorState(NamedTuple):
    """State of `condensate_projector`."""

    layers: dict[str, Condensate]
    strength: jax.Array  # ()
    scale: jax.Array  # ()
    evaporation: jax.Array  # ()
    binding: jax.Array  # ()
    hardness: jax.Array  # ()
    kept: jax.Array  # ()

    hyperparameters = ("strength", "scale", "evaporation", "binding", "hardness", "kept")

    def consolidate(self, params: Any, **_: Any) -> "CondensateProjectorState":
        """Moves every layer's shell into its core."""
        del params
        return self._replace(layers={home: _condense(self, one) for home, one in self.layers.items()})

    def hold(self, rows: dict[str, Bool[Array, " inputs"]]) -> "CondensateProjectorState":
        """Returns the state in which these rows of the layers' matrices get no steps, and the others' stay theirs.

        They are the firmest directions of their cores: where `rank` or `kept` leaves some out, it is others.
        """
        shut = {home: _hold(self, one, rows[home]) for home, one in self.layers.items() if home in rows}
        return self._replace(layers=self.layers | shut)

    def grip(self) -> dict[str, Float[Array, " rank"]]:
        """Returns, for each layer, how firmly each direction of its core is held: 0 is free, 1 is fixed."""
        return {home: self.strength * _grip(self, one) for home, one in self.layers.items()}

    def report(self) -> dict[str, Float[Array, ""]]:
        """Returns the fraction of each layer's input space that the core holds: 1 leaves nothing to learn with."""
        return {f"held {home}": grip.sum() / self.layers[home].basis.shape[0] for home, grip in self.grip().items()}


def condensate_projector(
    strength: ArrayLike = 1.0,
    *,
    scale: ArrayLike = 0.03,
    evaporation: ArrayLike = 0.0,
    binding: ArrayLike = 0.0,
    hardness: ArrayLike = 0.0,
    rank: int | None = None,
    max_bytes: int | None = None,
    kept: ArrayLike = 1.0,
    windows: projection.Windows | None = None,
    shuffled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Condensate projector: steps avoid the input directions that earlier contexts used, layer by layer.

    Of every dense or convolutional layer, bias included, the shell gathers the second moment of the inputs. To
    consolidate adds it to the core, with eigenvectors u_i and energies e_i, and empties the shell. A step W of the
    layer's matrix [inputs, out] becomes

        step   = W - strength * \sum_i grip_i u_i u_i^T W
        grip_i = e_i / (e_i + scale * unit * exp(-binding * valence_i))
        unit   = mean eigenvalue of the first second moment that the layer consolidated

    so that the answers to inputs along firmly held directions stay as they are: the ridge form P = (I + C / a)^-1 of
    orthogonal weight modification, for all layers with the head.

    Args:
      strength: 0 is inert, 1 projects fully.
      scale: the ridge, in units of each layer's own `unit`, so that one number does for all layers. Smaller holds more.
        Ten times off costs a lot: choose it on the first tasks.
      evaporation: at each consolidation, directions with less energy than the ridge lose this share of it, in [0, 1]:
        weak old directions return to use.
      binding: how much harder a direction binds for each context that recruited it (its valence).
      hardness: in [0, 1]: blends `grip` with the occupancy of a double well, which holds a direction wholly or not at
        all and has hysteresis. 0 is the plain ridge.
      rank: directions that each core may hold; default all. The strongest stay.
      max_bytes: lowers the ranks, each layer's in proportion, until all cores together take no more bytes.
      kept: directions beyond this share of a core's energy are let go, in [0, 1].
      windows: strides and padding of convolutions other than stride 1 and "SAME", by layer path. Name them all: neither
        weights nor activity tell, and one that is not named is taken for stride 1 and "SAME" without a warning.
      shuffled: the content-free control: gathers inputs whose entries are permuted, so that as many directions are
        held as firmly, but not those that were used.

    Returns:
      A rule that needs the word `activity` (`neuroml.activity`). Put it last in the chain: what is applied is
      projected, momentum, Adam's scaling and weight decay included. Updates of arrays that belong to no layer pass
      through. A batch whose inputs are not finite, or too large to be squared, leaves the core unharmed.

    Raises:
      UsageError: no layer among the weights, an activity that does not fit, a rank below 1, a number out of range.

    Reference:
      Zeng et al. 2019, "Continual learning of context-dependent processing in neural networks", Nature Machine
      Intelligence 1:364 (the ridge projector). The names are those of CaMKII condensates: Hosokawa et al. 2021.

    How ours differs: second moments of all inputs instead of the mean input of a batch; a ridge relative to the layer;
    the core as eigenvectors, so that it can be of low rank, evaporate and bind by valence; biases and the head too.

    >>> params = {"kernel": jnp.zeros((2, 1))}
    >>> tx = condensate_projector(scale=1e-6)
    >>> x = jnp.array([[1.0, 0.0]])                                            # all inputs so far lie on the first axis
    >>> _, state = tx.update(params, tx.init(params), params, activity=x)
    >>> state = core.consolidate(state, params)
    >>> step, _ = tx.update({"kernel": jnp.ones((2, 1))}, state, params, activity=x)
    >>> step["kernel"].round(3).ravel().tolist()
    [0.0, 1.0]
    """
    if rank is not None and rank < 1:
        raise UsageError(f"rank={rank} must be at least 1.")
    given = {"strength": strength, "scale": scale, "evaporation": evaporation, "binding": binding}
    given |= {"hardness": hardness, "kept": kept}
    bounds = dict.fromkeys(given, "[0, inf)") | dict.fromkeys(("evaporation", "hardness", "kept"), "[0, 1]")
    core.require_ranges("condensate_projector", given, **bounds)

    def mix(rows):
        return jax.random.permutation(jax.random.key(0), rows, axis=1) if shuffled else rows

    def init(params):
        layers = projection.begin("condensate_projector", params, lambda sizes: _blank(sizes, rank, max_bytes))
        return CondensateProjectorState(layers, **{name: core.leaf(value) for name, value in given.items()})

    def condensate_projector(updates, state, params, *, activity, **_):
        del params
        state = core.live(state, **given)
        rows = projection.inputs(updates, activity, windows)
        grips = state.grip()
        steps = {
            home: projection.project(matrix, state.layers[home].basis, grips[home])
            for home, matrix in projection.matrices(updates).items()
        }
        ok = projection.finite(rows)
        gathered = {home: _gather(one, mix(rows[home]), ok) for home, one in state.layers.items()}
        return projection.replace(updates, steps), state._replace(layers=gathered)

    return core.rule(init, condensate_projector)


def _ranks(sizes: dict[str, int], rank: int | None, max_bytes: int | None) -> dict[str, int]:
    """Returns how many directions each core holds."""
    ranks = {home: min(size, rank or size) for home, size in sizes.items()}
    need = sum(4 * (size + 3) * ranks[home] for home, size in sizes.items())  # a direction with its three numbers
    share = 1.0 if max_bytes is None else min(1.0, max_bytes / need)
    if min(int(share * held) for held in ranks.values()) < 1:
        raise UsageError(f"max_bytes={max_bytes} is too little for one direction in each of {len(sizes)} cores.")
    return {home: int(share * held) for home, held in ranks.items()}


def _blank(sizes: dict[str, int], rank: int | None, max_bytes: int | None) -> dict[str, Condensate]:
    def one(inputs, held):
        shell, basis = jnp.zeros((inputs, inputs)), jnp.eye(inputs, held)
        energy, valence, occupancy = (jnp.zeros(held) for _ in range(3))  # apart: a buffer cannot be donated twice
        return Condensate(shell, jnp.zeros(()), basis, energy, valence, occupancy, jnp.zeros(()))

    return {home: one(sizes[home], held) for home, held in _ranks(sizes, rank, max_bytes).items()}


def _gather(one: Condensate, rows: Array, ok: Array) -> Condensate:
    """Adds a batch to the shell."""
    shell, batches = projection.gathered(one.shell, one.batches, rows, ok)
    return one._replace(shell=shell, batches=batches)


def _ridge(state: CondensateProjectorState, one: Condensate) -> Array:
    return state.scale * one.unit * jnp.exp(-state.binding * one.valence)


def _grip(state: CondensateProjectorState, one: Condensate) -> Array:
    soft = _soft(state, one)
    return soft + state.hardness * (one.occupancy - soft)


def _soft(state: CondensateProjectorState, one: Condensate) -> Array:
    """Returns how firmly the plain ridge holds each direction."""
    return one.energy / jnp.maximum(one.energy + _ridge(state, one), TINY)


def _condense(state: CondensateProjectorState, one: Condensate) -> Condensate:
    """Returns the layer with its shell in the core. Without a batch in the shell nothing changes."""
    unit = jnp.where(one.unit > 0, one.unit, jnp.trace(one.shell) / one.shell.shape[0])
    one = one._replace(unit=unit)
    weak = one.energy < _ridge(state, one)
    energy = one.energy * jnp.where(weak, 1 - state.evaporation, 1)
    total = one.shell + _spread(one.basis, energy)
    values, vectors = jnp.linalg.eigh(total)
    rank = one.basis.shape[1]
    values, basis = jnp.maximum(values[::-1][:rank], 0), vectors[:, ::-1][:, :rank]
    within = (state.kept >= 1) | (jnp.cumsum(values) - values <= state.kept * values.sum())  # sums are rounded
    new = one._replace(
        shell=jnp.zeros_like(one.shell),
        batches=jnp.zeros(()),
        basis=basis,
        energy=values * within,
        valence=_seen_from(basis, one.basis, one.valence) + _recruited(state, one, basis),
    )
    occupancy = jnp.clip(_seen_from(basis, one.basis, one.occupancy), 0, 1)
    new = new._replace(occupancy=double_well.relax(occupancy, _soft(state, new) - 0.5, barrier=1.0))
    return jax.tree.map(lambda kept, changed: jnp.where(one.batches > 0, changed, kept), one, new)


def _hold(state: CondensateProjectorState, one: Condensate, rows: Array) -> Condensate:
    """Returns the layer whose projector has zeros in these rows and columns. Before a consolidation all is free."""
    free = jnp.where(rows[:, None] | rows, 0, jnp.eye(len(rows)) - _spread(one.basis, _soft(state, one)))
    new = rebuilt(one, jnp.eye(len(rows)) - free)
    new = new._replace(occupancy=jnp.clip(new.occupancy + rows @ new.basis**2, 0, 1))
    grip = jnp.minimum(new.energy, 1 - FIRM)
    new = new._replace(energy=_ridge(state, new) * grip / (1 - grip))
    return jax.tree.map(lambda old, new: jnp.where(rows.any() & (one.unit > 0), new, old), one, new)


def held(one: Condensate) -> Float[Array, "inputs inputs"]:
    """Returns the second moment that the core of a layer holds, summed over consolidations."""
    return _spread(one.basis, one.energy)


def rebuilt(one: Condensate, total: Float[Array, "inputs inputs"]) -> Condensate:
    """Returns the layer with this second moment in its core; valence and occupancy go along as far as they can."""
    values, vectors = jnp.linalg.eigh(total)
    rank = one.basis.shape[1]
    basis = vectors[:, ::-1][:, :rank]
    seen = {name: _seen_from(basis, one.basis, getattr(one, name)) for name in ("valence", "occupancy")}
    return one._replace(basis=basis, energy=jnp.maximum(values[::-1][:rank], 0), **seen)


def _spread(basis: Array, values: Array) -> Array:
    """Returns the matrix with these eigenvectors and eigenvalues."""
    return (basis * values) @ basis.T


def _seen_from(basis: Array, old: Array, values: Array) -> Array:
    """Returns what `values` along the old directions amount to along the new ones: diag of B^T O diag(v) O^T B."""
    return ((basis.T @ old) ** 2) @ values


def _recruited(state: CondensateProjectorState, one: Condensate, basis: Array) -> Array:
    """Returns how much the shell's context uses each direction, in [0, 1]."""
    energy = jnp.sum(basis * (one.shell @ basis), axis=0)
    return energy / jnp.maximum(energy + state.scale * one.unit, TINY)
