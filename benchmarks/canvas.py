"""The sheet of a picture: size, legend and file, and what is drawn alike in every panel.

Lines are means over seeds, bands their 95 % Student-t intervals.
"""

import contextlib
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from benchmarks.statistics import mean_interval
from benchmarks.styles import Style
from neuroml.errors import DataError, NeuromlError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 0.062  # inches, the width of a letter of 8 points on average
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


def _legend_shape(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Returns how many columns fit side by side, and how many lines the legend then has."""
    widths = [0.6 + LETTER * max(map(len, label.splitlines())) for label in labels]
    fitting = len(labels) if sum(widths) < width else max(1, int(width / max(widths)))
    rows = math.ceil(len(labels) / fitting)
    return math.ceil(len(labels) / rows), rows * max(len(label.splitlines()) for label in labels)
