"""How the lines of pictures look: a colour, a marker and dashes for each method and configuration.

A method keeps its colour from one picture to the next, and its marker and dashes but for a clash within one picture.
The colours are those of Okabe and Ito, which colour-blind readers tell apart; markers tell methods apart in grey.
"""

import itertools
import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.groups import Groups, is_joint, matrices_of, titled

Style = dict[str, Any]  # keywords of a line

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # without the pale yellow
MARKERS = ("o", "s", "^", "D", "v", ">", "<")  # one more than colours: 42 looks, then 42 hollow ones
DASHES = ("-", "--", ":", "-.", (0, (6, 1)), (0, (1, 3)))
# What the others are held against has no colour, and lies on top, in dashes that hide nothing.
BOUNDS = {"joint": ("black", "--"), "naive": ("#666666", ":")}
# Methods take the places in turn, so that those of one line differ most. Append only: a place is a colour.
# Some places are those of methods to come.
METHODS = (
    *("ewc", "er", "lwf", "si", "derpp", "condensate_metric"),
    *("mas", "agem", "icarl", "neurogenesis", "er_ace", "sleep"),
    *("online_ewc", "gdumb", "dgr", "hat", "xdg", "gem"),
    *("packnet", "der", "slda", "owm", "cbp", "homeostasis"),
    *("ewc_every", "bic", "gpm", "si_every", "si_on_surprise", "redo"),
    *("condensate_projector", "condensate_head", "condensate_memory", "condensate_contexts", "random_ridge"),
    *("condensate_projector_on_surprise", "condensate_shuffled", "condensate_anchor", "patch_random"),
    *("sgd", "adamw", "upgd", "l2_init", "shrink_perturb", "weight_clipping"),
    *("adam", "layer_norm", "crelu", "regrama", "self_normalized_resets", "partial_resets", "spectral"),
    *("bcm", "synaptic_gate", "three_factor", "surprise_rate", "maturity_lock", "intrinsic_plasticity"),
    *("fixed", "growth", "none", "random_rebirth", "schwann", "nanotube"),
    *("rwalk", "mesu", "l2", "benna_fusi", "dgr_distill", "generative_classifier"),
    *("nearest_class_mean", "streaming_lda", "er_nearest_mean", "separate", "xdg_si"),
    *("condensate_homeostasis", "synaptic_scaling", "k_winners", "active_dendrites", "condensate_shell"),
    *("active_dendrites_si", "activity_rate", "sparsity", "effective_rank"),
)


def method_styles(panels: Iterable[Groups]) -> dict[str, Style]:
    """Returns the line of each label: its method's colour, with a marker and dashes that no line of that colour has."""
    runs: Groups = {}
    for groups in panels:
        for label, group in groups.items():
            runs.setdefault(label, []).extend(group)
    styles: dict[str, Style] = {}
    for label, group in runs.items():
        style = method_style(group[0]["method"]) | {"label": titled(label, group)}
        if is_joint(matrices_of(group)):
            style |= {"marker": "", "linestyle": "--"}
        styles[label] = apart(style, styles.values())
    return styles


def apart(style: Style, others: Iterable[Style]) -> Style:
    """Returns the style with another marker, or other dashes once markers run out, if that tells it from the others."""
    look = lambda one: (one["color"], one["marker"], one["linestyle"])
    taken = {look(other) for other in others}
    looks = itertools.product((style["linestyle"], *DASHES), (style["marker"], *MARKERS))
    choices = (style | {"linestyle": dashes, "marker": marker} for dashes, marker in looks)
    return next((choice for choice in choices if look(choice) not in taken), style)


def method_style(method: str) -> Style:
    """Returns the line of a method, the same in every picture."""
    if method in BOUNDS:
        colour, dashes = BOUNDS[method]
        return {"color": colour, "linestyle": dashes, "marker": "", "zorder": 4}
    place = METHODS.index(method) if method in METHODS else zlib.crc32(method.encode())
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    again = place >= len(COLOURS) * len(MARKERS) and method in METHODS  # a second round has hollow markers
    edge = {"markeredgecolor": colour, "markerfacecolor": "white"} if again else {"markeredgecolor": "white"}
    return {"color": colour, "linestyle": "-", "marker": marker, **edge, "zorder": 3}


def task_styles(tasks: int) -> list[Style]:
    """Returns a line for each task, from dark to light in the order of the stream, and one for their mean."""
    from matplotlib import colormaps

    every = math.ceil(tasks / 10)  # a legend of ten entries can be read
    shades = colormaps["viridis"](np.linspace(0, 0.9, tasks))
    names = ["" if task % every else f"task {task + 1}" for task in range(tasks)]
    lines = [
        {"color": tuple(shade), "label": name, "marker": "o", "markersize": 3}
        for shade, name in zip(shades, names, strict=True)
    ]
    return [*lines, {"color": "black", "label": "mean of tasks seen", "linewidth": 1.8}]
