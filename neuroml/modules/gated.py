"""Gated layers as Flax NNX modules: units that compete with a memory of who won, and dendrites that gate by context."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from neuroml import slots, units
from neuroml.errors import UsageError
from neuroml.slots import Slots


class Trace(nnx.Variable):
    """What a layer keeps of what it met: no `nnx.Param`, so that optimizers leave it alone."""


def winning(scores: Float[Array, "*batch size"], winners: ArrayLike) -> Bool[Array, "*batch size"]:
    """Returns which entries are among the `winners` largest of their row: exactly that many, the first of equals.

    Scores are compared in float32, and what is no number wins last. The smallest winner is found by bisection over the
    32 bits of a float: to sort a row takes far longer.

    >>> winning(jnp.array([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
    [[False, True, True, False]]
    """
    scores = scores.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.int32)  # 0 and -0 are equals
    level = jnp.where(bits < 0, bits ^ jnp.int32(2**31 - 1), bits)  # integers in the order of the floats
    level = jnp.where(jnp.isnan(scores), -(2**31), level)
    count = lambda wins: wins.sum(-1, keepdims=True)

    def halve(_, bounds):
        low, high = bounds
        middle = (low >> 1) + (high >> 1) + (low & high & 1) + ((low ^ high) & 1)  # rounded up, without overflow
        enough = count(level >= middle) >= winners
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    ends = (jnp.full((*level.shape[:-1], 1), end, jnp.int32) for end in (-(2**31), 2**31 - 1))
    smallest, _ = jax.lax.fori_loop(0, 32, halve, tuple(ends))
    above, equal = level > smallest, level == smallest
    return above | (equal & (jnp.cumsum(equal, axis=-1) <= winners - count(above)))


def only(won: Bool[Array, "*batch size"], x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
    """Returns the answers of those that won, and 0 for the others; what is no number is handed on, for a loss to show.

    >>> only(jnp.array([True, False, False]), jnp.array([3.0, 2.0, jnp.nan])).tolist()
    [3.0, 0.0, nan]
    """
    return jnp.where(won | jnp.isnan(x), x, 0)


def excited(
    x: Float[Array, "*batch size"], excitability: Float[Array, " size"], strength: ArrayLike, shuffled: bool
) -> Float[Array, "*batch size"]:
    """Returns by what units compete: their answers, and how excitable they are or, as a control, others are."""
    return jax.lax.stop_gradient(x) + strength * units.in_order(excitability, shuffled)


def recent(
    excitability: Float[Array, " size"], x: Float[Array, "*batch size"], winners: ArrayLike, decay: ArrayLike
) -> Float[Array, " size"]:
    """Returns the excitability after units have met a batch in which they answer x."""
    driven = winning(jax.lax.stop_gradient(x), winners) & (x != 0)  # of equal zeros the first would win
    return jnp.asarray(decay) * excitability + (1 - decay) * driven.reshape(-1, x.shape[-1]).mean(0)


class KWinners(nnx.Module):
    r"""Lets the k most active units of each example answer; units that won of late are excited and win more easily.

        layer(x)     = x where x + strength * excitability is among the `winners` largest of the example, else 0
        excitability = decay * excitability + (1 - decay) * share of the examples in which x itself is among them, not 0

    Excitability only decides who wins: answers are those of x, and gradients pass through winners alone. Memories that
    are made shortly after one another meet the same excited units and share them (linking), those far apart do not. A
    unit is excited by what it wins by its own drive: were a win by excitability to excite it again, the first winners
    would win for ever. A unit that answers 0, as behind a ReLU, is not excited, even where fewer than k others answer.

    `layer(x, update=False)` leaves excitability alone, and so does Flax's `model.eval()` until `model.train()`.

    Args:
      size: units, the last axis of x.
      winners: units of each example that answer, in [1, size]; `size` is inert: the layer is the identity.
      strength: what full excitability is worth, >= 0, in units of x; 0 is plain k-winners-take-all. A unit that won
        one whole batch has an excitability of 1 - decay.
      decay: of excitability per update, in [0, 1).
      shuffled: the content-free control: each unit has the excitability of another one, always the same.

    Raises:
      UsageError: winners outside [1, size], a strength below 0 or a decay outside [0, 1); later, an x of another width.

    Reference:
      k winners: Ahmad and Scheinkman 2019, "How can we be so dense? The benefits of using highly sparse
      representations". Allocation by excitability (CREB): Han et al. 2007, "Neuronal competition and selection during
      memory formation", Science 316:457; linking: Cai et al. 2016, "A shared neural ensemble links distinct memories
      encoded close in time", Nature 534:115.

    How ours differs: the boosting of Ahmad and Scheinkman favours units that *rarely* won, to use all; ours the recent
    ones. Excitability counts batches, not hours, and does not excite itself.

    >>> layer = KWinners(3, winners=1, strength=1.0, decay=0.5)
    >>> layer(jnp.array([[3.0, 1.0, 2.0]])).tolist(), layer.excitability[...].tolist()
    ([[3.0, 0.0, 0.0]], [0.5, 0.0, 0.0])
    >>> layer(jnp.array([[1.0, 1.2, 0.0]])).tolist()                                 # the recent winner wins once more
    [[1.0, 0.0, 0.0]]
    """

    def __init__(self, size: int, winners: int, *, strength: float = 0.0, decay: float = 0.9, shuffled: bool = False):
        if not 1 <= winners <= size:
            raise UsageError(f"winners={winners} must be at least 1 and at most size={size}.")
        if not strength >= 0:
            raise UsageError(f"strength={strength} must be at least 0: recent winners win more easily.")
        if not 0 <= decay < 1:
            raise UsageError(f"decay={decay} must be at least 0 and less than 1.")
        self.size, self.winners, self.shuffled = size, winners, shuffled
        self.strength, self.decay = float(strength), float(decay)
        self.use_running_average = False
        self.excitability = Trace(jnp.zeros(size))

    def __call__(self, x: Float[Array | np.ndarray, "*batch size"], update: bool = True) -> Float[Array, "*batch size"]:
        """Returns x with the answers of all but the winners at 0."""
        x = jnp.asarray(x)
        if not x.ndim or x.shape[-1] != self.size:
            raise UsageError(f"KWinners of size {self.size} needs as many features, not an x of shape {x.shape}.")
        won = self.won(x)
        if update and not self.use_running_average and x.size:
            self.excitability[...] = recent(self.excitability[...], x, self.winners, self.decay)
        return only(won, x)

    def won(self, x: Float[Array, "*batch size"]) -> Bool[Array, "*batch size"]:
        """Returns which units win."""
        return winning(excited(x, self.excitability[...], self.strength, self.shuffled), self.winners)


class ActiveDendrites(nnx.Module):
    r"""A linear layer whose units are gated by dendrites that recognize a context, inferred from the input.

        layer(x)  = (x @ kernel + bias) * sigmoid(max_j u_j . c)            u_j: a unit's segments, c: one-hot context
        context   = the prototype of input statistics that is nearest; a new one nucleates where none is near

    Nobody tells the layer which task it is on. Prototypes are slots (`neuroml.slots`): places in input space that move
    to the mean of what they absorbed. While there is none, the context is the first. `layer.context(x)` says what is
    inferred, so that its accuracy can be printed beside the results.

    `layer(x, update=False)` leaves the prototypes alone, and so does Flax's `model.eval()` until `model.train()`.

    Args:
      inputs: width of x.
      outputs: number of units.
      segments: dendrites of each unit; 0 is inert: the layer is a linear one.
      contexts: how many prototypes there is room for, at least 1; when all are used, none nucleates. 1 is the
        content-free control: the same dendrites, and a context that is always the same.
      keys: width of what the context is inferred from, if that is not x: a layer deep in a network is best given the
        network's inputs, `layer(x, keys)`.
      radius: a prototype nucleates where none is nearer than this, in units of the keys. Infinite makes one.
      nucleus: examples that are looked at together; more than half of them must be far from all prototypes. The number
        of examples of each update is a multiple of it.
      mobility: 1 moves a prototype to the mean of all that it absorbed, 0 leaves it where it nucleated.
      rngs: random numbers for the weights.

    Raises:
      UsageError: segments below 0, contexts below 1, a radius below 0, a mobility outside [0, 1]; later, arrays of
        other widths, or examples that do not split into groups of `nucleus`.

    Reference:
      Iyer et al. 2022, "Avoiding catastrophe: active dendrites enable multi-task learning in dynamic environments",
      Front. Neurorobot. 16:846219 (numenta/nupic.research).

    How ours differs: the context is a one-hot vector and not the prototype itself; prototypes nucleate by distance, the
    paper's training is told the tasks; segments start as normal numbers, since a one-hot context meets one of them. Of
    a unit's segments the largest counts; in the authors' examples, the one of largest magnitude, with its sign.
    Competition is left to `KWinners` behind the layer.

    >>> layer = ActiveDendrites(2, 3, segments=4, contexts=5, radius=1.0, rngs=nnx.Rngs(0))
    >>> y = layer(jnp.array([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0]]))
    >>> y.shape, layer.context(jnp.array([[4.9, 5.0], [0.0, 0.1]])).tolist()
    ((3, 3), [1, 0])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        segments: int,
        contexts: int,
        *,
        keys: int | None = None,
        radius: float = float("inf"),
        nucleus: int = 1,
        mobility: float = 1.0,
        rngs: nnx.Rngs,
    ):
        if segments < 0 or contexts < 1 or nucleus < 1:
            raise UsageError(
                f"segments={segments} must be at least 0, contexts={contexts} and nucleus={nucleus} at least 1."
            )
        slots.check(radius=radius, mobility=mobility)
        self.linear = nnx.Linear(inputs, outputs, rngs=rngs)  # a stock layer: `neuroml.activity` captures it
        self.segments = segments
        if segments:
            self.dendrites = nnx.Param(jax.random.normal(rngs.params(), (outputs, segments, contexts)))
        self.nucleus, self.radius, self.mobility = nucleus, float(radius), float(mobility)
        self.use_running_average = False
        for name, array in slots.empty(contexts, inputs if keys is None else keys, 1)._asdict().items():
            setattr(self, f"prototype_{name}", Trace(array))

    def __call__(
        self,
        x: Float[Array | np.ndarray, "n inputs"],
        keys: Float[Array | np.ndarray, "n keys"] | None = None,
        update: bool = True,
    ) -> Float[Array, "n outputs"]:
        """Returns the answer for each row of x, after learning of the contexts."""
        x = jnp.asarray(x)
        keys = self._checked(x if keys is None else keys)
        if update and not self.use_running_average:
            self._absorb(keys)
        answers = self.linear(x)
        return answers * jax.nn.sigmoid(self._excitation(self.context(keys))) if self.segments else answers

    def context(self, keys: Float[Array | np.ndarray, "n keys"]) -> Int[Array, " n"]:
        """Returns the number of the context of each row, and learns nothing."""
        return slots.nearest(self.prototypes, self._checked(keys))

    @property
    def prototypes(self) -> Slots:
        """The prototypes: `place` [contexts, keys], `mass` [contexts], `alive`, ..."""
        return Slots(**{name: getattr(self, f"prototype_{name}")[...] for name in Slots._fields})

    def _checked(self, keys: Any) -> Float[Array, "n keys"]:
        keys, width = jax.lax.stop_gradient(jnp.asarray(keys)), self.prototypes.place.shape[1]
        if keys.ndim != 2 or keys.shape[1] != width:
            raise UsageError(f"the context is inferred from rows of {width} entries, not from shape {keys.shape}.")
        return keys

    def _absorb(self, keys: Float[Array, "n keys"]) -> None:
        nothing, sound = jnp.zeros((keys.shape[0], 1)), jnp.isfinite(keys).all(1)
        numbers = {"radius": self.radius, "mobility": self.mobility}
        after, _ = slots.absorb(self.prototypes, keys, nothing, **numbers, nucleus=self.nucleus, sound=sound)
        for name, array in after._asdict().items():
            getattr(self, f"prototype_{name}")[...] = array

    def _excitation(self, context: Int[Array, " n"]) -> Float[Array, "n outputs"]:
        """Returns what the strongest segment of each unit says of the context."""
        return self.dendrites[...].max(1).T[context]  # with a one-hot context, u_j . c is an entry of u_j
