import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import toy_results
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import online_plots, plots
from benchmarks.canvas import canvas
from benchmarks.statistics import mean_interval
from benchmarks.styles import BOUNDS, COLOURS, MARKERS, METHODS, method_style
from neuroml.errors import DataError, NeuromlError, UsageError
from neuroml.methods import methods

THREE = [[0.9, 0.1, 0.0], [0.7, 0.9, 0.0], [0.6, 0.6, 0.9]]  # seen so far: 0.9, 0.8, 0.7


def record(method="ewc", seed=0, accuracy=THREE, scenario="class", **other):
    config = {"protocol": {"scenario": scenario}, "hyperparameters": other.pop("hyperparameters", {})}
    made = toy_results.record(method, seed, config=config, scenario=scenario)
    return {**made, "accuracy": accuracy, **other}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    figures = []
    save = Figure.savefig

    def saved(figure, *arguments, **keywords):
        figures.append(figure)
        return save(figure, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def band(ax, index=0):
    """The lowest and highest point of a band at each of its x."""
    points = [c for c in ax.collections if isinstance(c, PolyCollection)][index].get_paths()[0].vertices
    return {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in set(points[:, 0])}


def test_line_and_band_by_hand(tmp_path, drawn):
    better = np.array(THREE) + [[0.1], [0.1], [0.05]]
    plots.accuracy_over_tasks({"class": [record(seed=0), record(seed=1, accuracy=better.tolist())]}, tmp_path / "a.png")
    (ax,) = drawn[0].axes
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [95, 85, 72.5])
    _, low, high = mean_interval([70, 75])
    np.testing.assert_allclose(band(ax)[3], (low, high))
    assert ax.get_title(loc="left") == "class-incremental" and ax.get_xlabel() == "tasks trained"
    assert ax.get_ylim() == (70, 100)  # a little below 72.5


def test_the_picture_is_a_png_of_column_width(tmp_path):
    path = tmp_path / "new" / "folder" / "a.png"
    plots.accuracy_over_tasks({name: [record(scenario=name)] for name in ("task", "domain", "class")}, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width == 1400
        assert len(image.getcolors(1 << 20)) > 10  # not an empty sheet


def test_a_panel_for_each_scenario_in_the_given_order(tmp_path, drawn):
    plots.accuracy_over_tasks(
        {name: [record(scenario=name)] for name in ("task", "class", "online")}, tmp_path / "a.png"
    )
    assert [ax.get_title(loc="left") for ax in drawn[0].axes] == [
        "task-incremental",
        "class-incremental",
        "online",
    ]
    assert [bool(ax.get_ylabel()) for ax in drawn[0].axes] == [True, False, False]
    assert legend(drawn[0]) == ["ewc"]  # once, not once a panel


def test_joint_training_is_a_dashed_line_across(tmp_path, drawn):
    joint = [record("joint", seed, [[0.9, 0.8, 0.7 + seed / 10]]) for seed in (0, 1)]
    plots.accuracy_over_tasks({"class": [record(), *joint]}, tmp_path / "a.png")
    line = drawn[0].axes[0].lines[1]
    assert line.get_xdata().tolist() == [1, 3] and line.get_linestyle() == "--"
    np.testing.assert_allclose(line.get_ydata(), [(80 + 250 / 3) / 2] * 2)
    assert band(drawn[0].axes[0], 1).keys() == {1, 3}


def test_diverged_runs_are_counted_and_not_drawn(tmp_path, drawn):
    stop = {"phase": 1, "step": 2}
    runs = [record(seed=0), record(seed=1, accuracy=None, diverged=stop), record("si", diverged=stop)]
    plots.accuracy_over_tasks({"class": runs}, tmp_path / "a.png")
    (line,) = drawn[0].axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [90, 80, 70])
    assert legend(drawn[0]) == ["ewc (diverged 1/2)", "si (diverged 1/1)"]
    plots.per_task(runs, tmp_path / "b.png")
    assert [ax.get_title(loc="left") for ax in drawn[1].axes] == legend(drawn[0])


def test_only_the_newest_line_of_a_seed_counts(tmp_path, drawn):
    plots.accuracy_over_tasks({"class": [record(accuracy=[[0.1] * 3] * 3), record()]}, tmp_path / "a.png")
    np.testing.assert_allclose(drawn[0].axes[0].lines[0].get_ydata(), [90, 80, 70])


def test_missing_values_leave_gaps(tmp_path, drawn):
    gap = [[0.9, None, None], [0.7, None, None], [0.6, 0.6, 0.9]]
    plots.accuracy_over_tasks({"class": [record(accuracy=gap)]}, tmp_path / "a.png")
    np.testing.assert_allclose(drawn[0].axes[0].lines[0].get_ydata(), [90, np.nan, 70])
    plots.accuracy_over_tasks({"class": [record(accuracy=[[None] * 3] * 3)]}, tmp_path / "b.png")
    assert drawn[1].axes[0].get_ylim() == (0, 100)


def test_tasks_tested_only_after_themselves_and_after_all(tmp_path, drawn):
    ends = [[0.9, None, None], [None, 0.9, None], [0.6, 0.6, 0.9]]
    runs = [record(method, accuracy=ends) for method in ("ewc", "naive")]
    plots.accuracy_over_tasks({"class": runs}, tmp_path / "a.png")
    ewc, naive = drawn[0].axes[0].lines
    for line in (ewc, naive):
        np.testing.assert_allclose(line.get_xydata(), [[1, 90], [2, np.nan], [3, 70]])
    assert ewc.get_marker() == method_style("ewc")["marker"]
    assert naive.get_marker() == "."  # a line alone would show nothing
    assert drawn[0].axes[0].get_ylim() == (65, 100)
    plots.per_task(runs, tmp_path / "b.png")
    first, second, third, mean = drawn[1].axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 90], [2, np.nan], [3, 60]])
    np.testing.assert_allclose(second.get_xydata(), [[2, 90], [3, 60]])
    np.testing.assert_allclose(third.get_xydata(), [[3, 90]])
    np.testing.assert_allclose(mean.get_ydata(), [90, np.nan, 70])
    assert mean.get_marker() == "."
    plots.per_task([record("naive")], tmp_path / "c.png")
    plots.accuracy_over_tasks({"class": [record("naive")]}, tmp_path / "d.png")
    assert drawn[2].axes[0].lines[3].get_marker() == "None" and drawn[3].axes[0].lines[0].get_marker() in ("", "None")


def test_one_task(tmp_path):
    plots.accuracy_over_tasks({"class": [record(accuracy=[[0.9]])]}, tmp_path / "a.png")
    plots.per_task([record(accuracy=[[0.9]])], tmp_path / "b.png")


# --- colours ---------------------------------------------------------------------------------------


def colours(figure):
    return {
        label: handle.get_color()
        for label, handle in zip(legend(figure), figure.legends[0].legend_handles, strict=True)
    }


def test_colours_do_not_change_from_picture_to_picture(tmp_path, drawn):
    methods = ["my_idea", "joint", "er", "naive", "ewc", "other_idea"]
    plots.accuracy_over_tasks({"class": [record(method) for method in methods]}, tmp_path / "a.png")
    for method in methods:
        plots.accuracy_over_tasks({"task": [record(method, scenario="task")]}, tmp_path / "b.png")
        assert colours(drawn[-1])[method] == colours(drawn[0])[method]
    assert colours(drawn[0])["ewc"] == "#0072B2" and colours(drawn[0])["er"] == "#D55E00"
    assert colours(drawn[0])["my_idea"] == "#CC79A7"  # by a checksum, equal in every process


def test_known_methods_look_different():
    styles = map(method_style, METHODS)
    looks = [(style["color"], style["marker"], style["markeredgecolor"]) for style in styles]
    assert len(set(looks)) == len(looks) == len(set(METHODS))
    assert len({colour for colour, *_ in looks[:6]}) == 6


def test_configurations_of_a_method_share_its_colour_and_differ_in_marker(tmp_path, drawn):
    runs = [record(hyperparameters={"strength": strength}) for strength in (1, 10, 100)]
    plots.accuracy_over_tasks({"class": runs}, tmp_path / "a.png")
    handles = drawn[0].legends[0].legend_handles
    assert legend(drawn[0]) == ["ewc (strength=1)", "ewc (strength=10)", "ewc (strength=100)"]
    assert len({handle.get_color() for handle in handles}) == 1
    assert len({handle.get_marker() for handle in handles}) == 3


def test_no_two_configurations_of_a_method_look_alike(tmp_path, drawn):
    runs = [record(hyperparameters={"strength": strength}) for strength in range(20)]
    plots.accuracy_over_tasks({"class": runs}, tmp_path / "a.png")
    handles = drawn[0].legends[0].legend_handles
    looks = [(handle.get_marker(), handle.get_linestyle(), handle._dash_pattern) for handle in handles]
    assert len({str(look) for look in looks}) == 20 and {handle.get_linestyle() for handle in handles[:7]} == {"-"}


def test_every_method_has_a_look_of_its_own():
    assert set(methods) <= {*METHODS, *BOUNDS}
    assert len(METHODS) <= 2 * len(COLOURS) * len(MARKERS)


@pytest.mark.parametrize(
    ("width", "labels"),
    [
        (3.4, "mesu derpp xdg nanotube"),
        (4.8, "mesu partial_resets condensate_homeostasis adamw"),
        (7.0, "xdg_si rwalk surprise_rate adam naive l2_init agem bcm"),
    ],
)
def test_legends_that_just_fit_stay_inside_the_picture(tmp_path, drawn, width, labels):
    styles = [method_style(label) | {"label": label} for label in labels.split()]
    with canvas(tmp_path / "a.png", width, 2.1, styles) as figure:
        figure.subplots()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_long_legends_stay_inside_the_picture(tmp_path, drawn):
    runs = [record(hyperparameters={"sizes": [size] * 30}) for size in (1, 2)] + [record(f"m{i}") for i in range(20)]
    plots.accuracy_over_tasks({"class": runs}, tmp_path / "a.png")
    (figure,) = drawn
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1
    assert figure.axes[0].get_window_extent().height > 200  # one inch at least


# --- per task --------------------------------------------------------------------------------------


def test_each_task_from_its_own_phase_on(tmp_path, drawn):
    plots.per_task([record(), record("er"), record("joint", accuracy=[[0.9] * 3])], tmp_path / "a.png")
    ax, other = drawn[0].axes  # joint training has no panel
    assert (ax.get_title(loc="left"), other.get_title(loc="left")) == ("ewc", "er")
    first, second, third, mean = ax.lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 90], [2, 70], [3, 60]])
    np.testing.assert_allclose(second.get_xydata(), [[2, 90], [3, 60]])
    np.testing.assert_allclose(third.get_xydata(), [[3, 90]])
    np.testing.assert_allclose(mean.get_ydata(), [90, 80, 70])
    assert legend(drawn[0]) == ["task 1", "task 2", "task 3", "mean of tasks seen"]
    assert ax.get_ylim() == other.get_ylim() == (55, 100)


@pytest.mark.parametrize(("methods", "shape"), [(1, (1, 1)), (3, (1, 3)), (5, (2, 3)), (7, (2, 4)), (9, (3, 3))])
def test_panels_fill_the_sheet(tmp_path, drawn, methods, shape):
    plots.per_task([record(f"m{number}") for number in range(methods)], tmp_path / "a.png")
    grid = drawn[0].axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert sum(ax.axison for ax in drawn[0].axes) == methods


def test_many_tasks_have_a_short_legend(tmp_path, drawn):
    plots.per_task([record(accuracy=np.full((40, 40), 0.5).tolist())], tmp_path / "a.png")
    assert legend(drawn[0]) == [f"task {task}" for task in range(1, 41, 4)] + ["mean of tasks seen"]


# --- online accuracy -------------------------------------------------------------------------------


def test_online_accuracy_has_titles_and_joint_training_lies_across(tmp_path, drawn):
    runs = [record(seed=seed, online_by_task=[0.5, 0.6, 0.7 + seed / 10]) for seed in (0, 1)]
    joint = record("joint", accuracy=[[0.9] * 3], online_by_task=[0.8])
    online_plots.online_accuracy({"class": [*runs, joint]}, tmp_path / "a.png")
    (ax,) = drawn[0].axes
    assert ax.get_title(loc="left") == "class-incremental"
    ewc, across = ax.lines
    np.testing.assert_allclose(ewc.get_xydata(), [[1, 50], [2, 60], [3, 75]])
    np.testing.assert_allclose(across.get_xydata(), [[1, 80], [3, 80]])
    assert across.get_linestyle() == "--"
    online_plots.online_accuracy({"class": [joint]}, tmp_path / "b.png")
    np.testing.assert_allclose(drawn[1].axes[0].lines[0].get_xydata(), [[1, 80], [3, 80]])


@pytest.mark.parametrize("panels", [{}, {"class": []}, {"class": [record()]}])
def test_no_online_accuracy_to_draw(tmp_path, panels):
    with pytest.raises(UsageError, match="no records"):
        online_plots.online_accuracy(panels, tmp_path / "a.png")


# --- what can go wrong -----------------------------------------------------------------------------


def test_settings_are_not_mixed(tmp_path):
    mixed = [record(), record(scenario="task")]
    with pytest.raises(UsageError, match="split_mnist mnist class and split_mnist mnist task"):
        plots.accuracy_over_tasks({"class": mixed}, tmp_path / "a.png")
    with pytest.raises(UsageError, match="choose"):
        plots.per_task(mixed, tmp_path / "a.png")


def test_nothing_to_draw(tmp_path):
    for panels in ({}, {"class": []}):
        with pytest.raises(UsageError, match="no records"):
            plots.accuracy_over_tasks(panels, tmp_path / "a.png")
    with pytest.raises(UsageError, match="no records"):
        plots.per_task([], tmp_path / "a.png")
    with pytest.raises(UsageError, match="one phase"):
        plots.per_task([record("joint", accuracy=[[0.9] * 3])], tmp_path / "a.png")


def test_an_unwritable_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        plots.accuracy_over_tasks({"class": [record()]}, tmp_path / "file" / "a.png")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NeuromlError, match=r'pip install "neuroml-jax\[bench\]"'):
        plots.accuracy_over_tasks({"class": [record()]}, tmp_path / "a.png")


def test_equal_results_are_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        plots.per_task([record(seed=seed) for seed in range(2)], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_settings_of_the_user_stay(tmp_path):
    with matplotlib.rc_context({"font.size": 17, "legend.frameon": True}):
        plots.per_task([record()], tmp_path / "a.png")
        assert matplotlib.rcParams["font.size"] == 17 and matplotlib.rcParams["legend.frameon"]


def test_matplotlib_comes_late_and_pyplot_never(tmp_path):
    code = (
        "import sys\nfrom benchmarks import plots\nassert 'matplotlib' not in sys.modules\n"
        "run = dict(method='ewc', config_hash='0', seed=0, accuracy=[[1, 0], [0, 1]])\n"
        f"plots.accuracy_over_tasks({{'class': [run]}}, {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
