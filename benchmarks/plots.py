"""Pictures of results: accuracy along the stream, with 95 % Student-t intervals over seeds.

A method keeps its colour from one picture to the next, and its marker and dashes but for a clash within one picture.
The colours are those of Okabe and Ito, which colour-blind readers tell apart; markers tell methods apart in grey.
"""

import contextlib
import itertools
import math
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from benchmarks import summaries
from benchmarks.results import Record
from benchmarks.statistics import mean_interval
from neuroml.errors import DataError, NeuromlError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Groups = dict[str, list[Record]]  # the runs of each label
Style = dict[str, Any]  # keywords of a line
LETTER = 0.062  # inches, the width of a letter of 8 points on average

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # without the pale yellow
MARKERS = ("o", "s", "^", "D", "v", ">", "<")  # one more than colours: 42 looks, then 42 hollow ones
DASHES = ("-", "--", ":", "-.", (0, (6, 1)), (0, (1, 3)))
# What the others are held against has no colour, and lies on top, in dashes that hide nothing.
BOUNDS = {"joint": ("black", "--"), "naive": ("#666666", ":")}
# Methods take the places in turn, so that those of one line differ most. Append only: a place is a colour.
METHODS = (
    *("ewc", "er", "lwf", "si", "derpp", "condensate"),
    *("mas", "agem", "icarl", "gem", "er_ace", "sleep"),
    *("online_ewc", "gdumb", "dgr", "hat", "xdg", "neurogenesis"),
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
    *("condensate_homeostasis", "synaptic_scaling"),
)
LOOK = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.4,
    "lines.markeredgewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
}


def accuracy_over_tasks(records_by_scenario: Mapping[str, Sequence[Record]], path: Path | str) -> None:
    """Draws the average accuracy over the tasks seen so far: a panel a scenario, a line a method.

    Joint training, which has one phase, is a dashed line across. Runs that diverged are in no mean, and the
    legend counts them. Each panel has the scale that fits its lines.

    Args:
        records_by_scenario: Records of one suite for each scenario, in the order of the panels.
        path: Where the PNG goes; its folder is made.

    Raises:
        UsageError: There is nothing to draw, or a panel mixes suites, data sets or scenarios.
        NeuromlError: matplotlib is not installed.
        DataError: The file cannot be written.
    """
    panels = {scenario: groups_of(records) for scenario, records in records_by_scenario.items()}
    if not panels:
        raise UsageError("cannot draw: there are no records.")
    styles = method_styles(panels.values())
    with canvas(path, max(3.4, 0.4 + 2.2 * len(panels)), 2.1, styles.values()) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (scenario, groups) in zip(axes, panels.items(), strict=True):
            stacks = {label: matrices_of(group) for label, group in groups.items()}
            tasks = max(stack.shape[2] for stack in stacks.values())
            for label, stack in stacks.items():
                _stream_line(ax, stack, tasks, styles[label])
            finish(ax, summaries.TITLES.get(scenario, scenario), tasks)
            _fit(ax, [ax])
        axes[0].set_ylabel("average accuracy over\nthe tasks seen so far (%)")


def per_task(records: Sequence[Record], path: Path | str) -> None:
    """Draws the accuracy of each task from the phase that trained it to the end, a panel a method.

    The black line is the mean over the tasks seen so far. Joint training, which has one phase, has no panel.

    Args:
        records: Records of one suite, data set and scenario.
        path: Where the PNG goes; its folder is made.

    Raises:
        UsageError: There is nothing to draw, or the records mix suites, data sets or scenarios.
        NeuromlError: matplotlib is not installed.
        DataError: The file cannot be written.
    """
    stacks = {_title(label, group): matrices_of(group) for label, group in groups_of(records).items()}
    stacks = {title: stack for title, stack in stacks.items() if not is_joint(stack)}
    if not stacks:
        raise UsageError("cannot draw accuracy per task: every method was trained in one phase.")
    rows = math.ceil(len(stacks) / 4)
    columns = math.ceil(len(stacks) / rows)
    width = (3.4, 4.8, 7.0, 7.0)[columns - 1]
    tasks = max(stack.shape[2] for stack in stacks.values())
    *task_styles, mean_style = styles = _task_styles(tasks)
    with canvas(path, width, 0.3 + 1.5 * rows, styles) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, (title, stack) in zip(axes.flat, stacks.items(), strict=False):
            phases = np.arange(stack.shape[1])
            for task, style in enumerate(task_styles[: stack.shape[2]]):
                line(ax, phases[task:] + 1, stack[:, task:, task], style)
            line(ax, phases + 1, _seen(stack), mean_style)
            finish(ax, textwrap.fill(title, int((width / columns - 0.3) / LETTER)), tasks)
        _fit(axes[0, 0], axes.flat)
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy (%)")
        for ax in axes.flat[: len(stacks) - columns]:
            ax.set_xlabel("")  # said below
        for ax in axes.flat[len(stacks) :]:
            ax.set_axis_off()


# --- data ----------------------------------------------------------------------------------------------


def groups_of(records: Sequence[Record]) -> Groups:
    """Returns the runs of each label, or raises if they belong in different pictures."""
    settings = [" ".join(filter(None, setting)) for setting in summaries.by_setting(records)]
    if not settings:
        raise UsageError("cannot draw: there are no records.")
    if len(settings) > 1:
        raise UsageError(f"cannot draw {' and '.join(settings)} in one panel: choose the records of one.")
    return summaries.by_label(records)


def matrices_of(group: list[Record]) -> np.ndarray:
    """Returns the accuracies in per cent of the runs that did not diverge, [seeds, phases, tasks]."""
    matrices = [np.asarray(run["accuracy"], dtype=float) for run in group if not run.get("diverged")]
    return 100 * np.stack(matrices) if matrices else np.zeros((0, 1, 1))


def is_joint(matrices: np.ndarray) -> bool:
    """Returns whether all tasks were trained in one phase."""
    return matrices.shape[1] == 1 < matrices.shape[2]


def _title(label: str, group: list[Record]) -> str:
    """Returns the label and, if any, how many runs diverged."""
    diverged = sum(bool(run.get("diverged")) for run in group)
    return f"{label} (diverged {diverged}/{len(group)})" if diverged else label


def _seen(matrices: np.ndarray) -> np.ndarray:
    """Returns the mean over the tasks seen so far, [seeds, phases]."""
    phases = range(matrices.shape[1])
    return np.stack([matrices[:, phase, : phase + 1].mean(axis=1) for phase in phases], axis=1)


# --- looks ---------------------------------------------------------------------------------------------


def method_styles(panels: Iterable[Groups]) -> dict[str, Style]:
    """Returns the line of each label: its method's colour, with a marker and dashes that no line of that colour has."""
    runs: Groups = {}
    for groups in panels:
        for label, group in groups.items():
            runs.setdefault(label, []).extend(group)
    styles: dict[str, Style] = {}
    for label, group in runs.items():
        style = method_style(group[0]["method"]) | {"label": _title(label, group)}
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


def _task_styles(tasks: int) -> list[Style]:
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


# --- drawing -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def canvas(path: Path | str, width: float, height: float, styles: Iterable[Style]) -> "Iterator[Figure]":
    """Gives a figure with a legend below, its size without that in inches, and writes it once it is drawn."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise NeuromlError('pictures need matplotlib: pip install "neuroml-jax[bench]"') from error
    with matplotlib.rc_context(cast(Any, LOOK)):
        named = [style for style in styles if style["label"]]
        labels = [textwrap.fill(style["label"], int((width - 0.6) / LETTER)) for style in named]
        columns, lines = _legend_shape(labels, width) if labels else (1, 0)
        figure = Figure(figsize=(width, height + 0.2 + 0.17 * lines), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)  # no window, and no state that pyplot shares
        if named:
            handles = [Line2D([], [], **style) for style in named]
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        yield figure
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Software": None})  # equal pictures are equal files
        except OSError as error:
            raise DataError(f"cannot write {path} ({error.strerror}): name a file you may write.") from error


def _stream_line(ax: "Axes", matrices: np.ndarray, tasks: int, style: Style) -> None:
    """Draws one method over the stream, or across it if it trained on all tasks at once."""
    if is_joint(matrices):
        mean = matrices[:, 0].mean(axis=1, keepdims=True)
        line(ax, np.array([1, tasks]), np.repeat(mean, 2, axis=1), style)
    else:
        line(ax, np.arange(matrices.shape[1]) + 1, _seen(matrices), style)


def line(ax: "Axes", x: np.ndarray, values: np.ndarray, style: Style) -> None:
    """Draws the mean over seeds with its interval; `values` is [seeds, len(x)]."""
    if values.size:
        mean, low, high = np.array([mean_interval(column) for column in values.T]).T
        there = np.pad(np.isfinite(mean), 1)
        if not style.get("marker") and (there[1:-1] & ~there[:-2] & ~there[2:]).any():
            style = style | {"marker": "."}  # a line shows no point that stands alone
        ax.plot(x, mean, clip_on=False, **style)
        ax.fill_between(x, low, high, color=style["color"], alpha=0.16, linewidth=0)


def finish(ax: "Axes", title: str, tasks: int) -> None:
    """Sets what all panels share."""
    from matplotlib.ticker import MaxNLocator

    ax.set_title(title, loc="left")
    ax.set_xlabel("tasks trained")
    ax.set_xlim(0.85, max(tasks, 2) + 0.15)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))


def _fit(ax: "Axes", axes: "Iterable[Axes]") -> None:
    """Sets the scale: from zero, or from a little below the lowest line if all stay in the upper half."""
    heights = [height for one in axes for line in one.lines for height in np.ravel(line.get_ydata())]
    lowest = min(filter(math.isfinite, heights), default=0)
    ax.set_ylim(0 if lowest < 50 else 5 * math.floor((lowest - 1) / 5), 100)


def _legend_shape(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Returns how many columns fit side by side, and how many lines the legend then has."""
    widths = [0.6 + LETTER * max(map(len, label.splitlines())) for label in labels]
    fitting = len(labels) if sum(widths) < width else max(1, int(width / max(widths)))
    rows = math.ceil(len(labels) / fitting)
    return math.ceil(len(labels) / rows), rows * max(len(label.splitlines()) for label in labels)
