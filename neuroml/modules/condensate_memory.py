"""`CondensateMemory`: the memory of `neuroml.condensate` as a Flax NNX module."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from neuroml import condensate
from neuroml.additive import Additive
from neuroml.condensate import Condensate, CondensateState
from neuroml.slots import Slots


class Remembered(nnx.Variable):
    """What a memory holds: no `nnx.Param`, so that optimizers leave it alone."""


@functools.lru_cache
def _make(features: int, outputs: int, **settings: Any) -> Condensate:
    """Returns compiled functions. Modules that are made alike share them: a plain loop compiles each of them once."""
    return Condensate(*map(jax.jit, condensate.make(features, outputs, **settings)))


class CondensateMemory(nnx.Module):
    """A memory that answers in closed form and forgets nothing, alone or between the layers of a model of your own.

        memory(x) = phi(x) @ (weights + shell) + mix * slots.read(keys, linker)

    as in `neuroml.condensate.make`, which says what all arguments mean. `absorb` takes examples in; `consolidate`
    solves for the weights, which then are those of a ridge regression over everything ever absorbed, in whatever order
    it came. Nothing is random and nothing is learnt by gradient, but gradients pass through to x.

    The arrays are `Remembered` variables, one for each leaf of a `CondensateState`, and `state` is all of them as pure
    functions want it. In Flax's tree mode `nnx.grad` differentiates every variable of a model, and fails at those that
    count: there, as with Dropout, take the gradient of `nnx.split(model, nnx.Param, ...)[1]`.

    Args:
      features: width of x.
      outputs: width of y.
      count: the budget of slots.
      keys: width of the keys; default: x are the keys.
      maps: "shared" or "own".
      mix, ridge, radius, linker, mobility, shell_rate, shell_decay: plain numbers, fixed when the module is made.
      nucleus: examples that are looked at together; the number of examples of each `absorb` is a multiple of it.

    Raises:
      UsageError: as `condensate.make`; later, arrays of other widths.

    Reference:
      As `condensate.make`. How ours differs: the outer product of what came is kept, not its inverse.

    >>> memory = CondensateMemory(features=2, outputs=3)
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0, 0], [0, 1.0, 0]])
    >>> memory.absorb(x, y)  # a stream: the examples are never seen again
    >>> memory.absorb(jnp.array([[-1.0, -1.0]]), jnp.array([[0, 0, 1.0]]))  # a new class, unannounced
    >>> memory.consolidate()
    >>> memory(jnp.array([[0.9, 0.0], [0.0, 0.9], [-0.9, -0.9]])).argmax(1).tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        count: int = 1,
        keys: int | None = None,
        maps: str = "shared",
        mix: float = 0.0,
        ridge: float = 0.01,
        radius: float = float("inf"),
        nucleus: int = 1,
        linker: float = 1.0,
        mobility: float = 1.0,
        shell_rate: float = 0.0,
        shell_decay: float = 0.99,
    ):
        sizes: dict[str, Any] = {"count": count, "keys": keys, "maps": maps, "nucleus": nucleus}
        numbers = {"mix": mix, "ridge": ridge, "radius": radius, "linker": linker, "mobility": mobility}
        numbers |= {"shell_rate": shell_rate, "shell_decay": shell_decay}
        # Hashable, since NNX compares what is no array whenever it compiles.
        self._sizes = (features, outputs)
        self._settings = (*sizes.items(), *((name, float(number)) for name, number in numbers.items()))
        state = self._functions.init()
        for name, array in _names(state).items():
            setattr(self, name, Remembered(array))

    def absorb(
        self,
        x: Float[Array | np.ndarray, "n features"],
        y: Float[Array | np.ndarray, "n outputs"],
        keys: Float[Array | np.ndarray, "n keys"] | None = None,
    ) -> None:
        """Takes examples in. Those with a number not finite, or too large, are left out and counted in `refused`."""
        given = (jnp.asarray(x), jnp.asarray(y), None if keys is None else jnp.asarray(keys))
        self._keep(self._functions.absorb(self.state, *given))

    def consolidate(self) -> None:
        """Solves the maps that absorbed something, and empties the shell."""
        self._keep(self._functions.consolidate(self.state))

    def coarsen(self, tension: float | Float[Array, ""]) -> None:
        """Dissolves small slots into near ones of the same majority, the more the higher `tension`; consolidates."""
        self._keep(self._functions.coarsen(self.state, tension))

    def __call__(
        self, x: Float[Array | np.ndarray, "n features"], keys: Float[Array | np.ndarray, "n keys"] | None = None
    ) -> Float[Array, "n outputs"]:
        """Returns the answer for each row of x: zeros before the first `consolidate`, without shell and mix."""
        return self._functions.read(self.state, jnp.asarray(x), None if keys is None else jnp.asarray(keys))

    @property
    def state(self) -> CondensateState:
        """All that is remembered, as arrays for the pure functions of `neuroml.condensate`."""
        get = lambda kind, prefix="": {name: getattr(self, prefix + name)[...] for name in kind._fields}
        own = {name: getattr(self, name)[...] for name in CondensateState._fields if name not in ("slots", "core")}
        return CondensateState(slots=Slots(**get(Slots, "slot_")), core=Additive(**get(Additive, "core_")), **own)

    @property
    def slots(self) -> Slots:
        """The slots, for pictures: `place` [count, keys], `mass` [count], `values` [count, outputs], `alive`, ..."""
        return self.state.slots

    @property
    def _functions(self) -> Condensate:
        return _make(*self._sizes, **dict(self._settings))

    def _keep(self, state: CondensateState) -> None:
        for name, array in _names(state).items():
            getattr(self, name)[...] = array


def _names(state: CondensateState) -> dict[str, Array]:
    """Returns each array under the name of its Variable."""
    nested = {"slot_": state.slots, "core_": state.core}
    own = {name: leaf for name, leaf in state._asdict().items() if name not in ("slots", "core")}
    return own | {prefix + name: leaf for prefix, part in nested.items() for name, leaf in part._asdict().items()}
