"""Strength translation: what another code's EWC strength amounts to here.

Codes differ in the gradient that they square (an example's, or the mean over a batch), the labels, the scale and the
half in front of the penalty, so that the same lambda can differ by five orders of magnitude. Here

    penalty = strength / 2 * \\sum_i F_i (params_i - anchor_i)^2,     F = `neuroml.fisher`: a mean over examples
"""

from collections.abc import Callable
from typing import NamedTuple

from neuroml.errors import UsageError, unknown


class Convention(NamedTuple):
    """How a code makes its Fisher information and its penalty."""

    labels: str  # as `neuroml.fisher` calls them
    half: bool  # penalty = strength / 2 * ..., or strength * ...
    batched: bool  # squares the mean gradient of a batch
    anchors: str  # as `neuroml.ewc` calls them
    scale: Callable[[int, int], float] = lambda examples, batch_size: 1.0  # their Fisher over the mean of squares
    differs: str = ""  # what a strength cannot make up for


class Translation(NamedTuple):
    """The same pull here: `neuroml.ewc(strength, anchors=anchors)`, and `exact` if it is the same in every weight."""

    strength: float
    labels: str
    anchors: str
    exact: bool
    differs: str


# From the sources named in the docstring of `translate`.
CONVENTIONS: dict[str, Convention] = {
    "van_de_ven": Convention(
        "all",
        half=True,
        batched=False,
        anchors="separate",
        scale=lambda examples, batch_size: examples / max(examples - 1, 1),
    ),
    "mammoth": Convention("true_weighted", half=False, batched=False, anchors="latest"),
    "contilab": Convention("true", half=True, batched=False, anchors="latest"),
    "avalanche": Convention("true", half=False, batched=True, anchors="separate"),
    "facil": Convention(
        "predicted", half=True, batched=True, anchors="latest", differs="averages the Fisher of tasks, alpha = 0.5"
    ),
    "libcontinual": Convention(
        "true",
        half=True,
        batched=True,
        anchors="latest",
        scale=lambda examples, batch_size: batch_size,
        differs="averages over tasks; where its anchors are was not seen",
    ),
    "pycil": Convention("true", half=True, batched=True, anchors="latest", differs="clips the Fisher at 1e-4"),
    "sequel": Convention(
        "true",
        half=True,
        batched=True,
        anchors="latest",
        scale=lambda examples, batch_size: 1 / batch_size,
        differs="keeps the Fisher of the last task only (`decay=0.0`); whether it has the half was not seen",
    ),
}


def translate(library: str, strength: float, *, examples: int, batch_size: int | None = None) -> Translation:
    r"""Returns the strength and the labels with which `neuroml.ewc` pulls as another code's EWC does.

        strength_here = strength * (1 if half else 2) * scale / (batch_size if batched else 1)

    The square of the mean gradient g of a batch of b out of n examples is no multiple of the Fisher information F. Over
    random batches its mean is

        E[g_b^2] = F / b * (n - b) / (n - 1) + g^2 * n (b - 1) / (b (n - 1)),       g: mean gradient of all n

    so `translate` divides by b, which is right at an optimum (g = 0) and for b much smaller than n. Far from one, the
    second term is the larger, and no strength makes the two alike.

    Where a code has one anchor and a gamma (Mammoth, contilab, van de Ven's online EWC), that is our `anchors="latest"`
    and `decay`. Van de Ven's code can also sample labels, or take those of the data or the predictions, at the same
    scale: give `neuroml.fisher` the `labels` "sample", "true" or "predicted". CLArena squares the gradients of batches
    times their size; its labels, half and anchors were not read, and it is not among these.

    Args:
      library: "van_de_ven", "mammoth", "avalanche", "facil", "pycil", "libcontinual", "contilab" or "sequel".
      strength: its lambda.
      examples: how many examples its Fisher is a mean over, >= 1.
      batch_size: of the batches whose mean gradient it squares; where it does not, it changes nothing.

    Returns:
      `(strength, labels, anchors, exact, differs)`.

    Raises:
      UsageError: an unknown library, a number below 1, or no `batch_size` for a library that squares mean gradients.

    Reference:
      The codes read: van de Ven's models/cl/continual_learner.py (labels "all" are its default), Mammoth's
      models/ewc_on.py, Avalanche's plugins/ewc.py, FACIL, PyCIL, LibContinual, contilab, Sequel. On the differences:
      van de Ven 2025, "On the computation of the Fisher information in continual learning", ICLR blog posts.

    >>> translate("mammoth", 90.0, examples=12_000)
    Translation(strength=180.0, labels='true_weighted', anchors='latest', exact=True, differs='')
    >>> translate("avalanche", 1.0, examples=60_000, batch_size=256).strength
    0.0078125
    """
    if library not in CONVENTIONS:
        raise unknown("library whose EWC is known", library, CONVENTIONS)
    if examples < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError(f"examples={examples} and batch_size={batch_size} must be at least 1.")
    theirs = CONVENTIONS[library]
    if theirs.batched and batch_size is None:
        raise UsageError(f"{library} squares the mean gradient of a batch: give the batch_size with which it does.")
    size = batch_size if theirs.batched and batch_size else 1
    here = strength * (1 if theirs.half else 2) * theirs.scale(examples, size) / size
    return Translation(here, theirs.labels, theirs.anchors, size == 1 and not theirs.differs, theirs.differs)
