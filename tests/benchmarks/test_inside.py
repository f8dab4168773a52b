"""Pictures of what happens inside a method: panels for what was reported, and phase diagrams."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import inside, results
from benchmarks.statistics import mean_interval
from benchmarks.styles import method_style
from neuroml.errors import UsageError

HELD = {"held layers/0": [0.1, 0.2, 0.4], "held head": [0.0, 0.1, 0.1]}
SLOTS = {"slots": [2, 3, 4], "largest slot": [5.0, 9.0, 9.0], "purity": [1.0, 0.8, 0.75]}
DIAGRAM = {"linker": [0.1, 0.2, 0.4], "binding": [0.0, 0.5], "retention": [[0.1, 0.2, 0.3], [0.4, 0.9, None]]}


def record(method="owm", seed=0, report=HELD, **other):
    config = {"protocol": {"scenario": "class"}, "hyperparameters": other.pop("hyperparameters", {})}
    return {
        "suite": "split_mnist",
        "data": "mnist",
        "scenario": "class",
        "method": method,
        "seed": seed,
        "config": config,
        "config_hash": results.config_hash(config),
        "accuracy": [[0.9, 0.0, 0.0]] * 3,
        "diverged": None,
        **({} if report is None else {"report": report}),
        **other,
    }


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


def is_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and len(image.getcolors(1 << 20)) > 10  # not an empty sheet


# --- reports ---


@pytest.mark.parametrize("report", [None, {}, {"temperature": [1.0, 2.0, 3.0]}])
def test_where_nothing_is_reported_no_file_is_written(tmp_path, report):
    path = tmp_path / "new" / "a.png"
    assert inside.reports([record("naive", report=report), record("er", report=report)], path) is False
    assert not list(tmp_path.iterdir())


def test_panels_are_for_what_is_there_and_shares_in_per_cent(tmp_path, drawn):
    assert inside.reports([record("naive", report={}), record()], tmp_path / "a.png") is True
    (ax,) = drawn[0].axes
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("share of input space held (%)", "tasks trained")
    first, head = ax.lines
    np.testing.assert_allclose(first.get_xydata(), [[1, 10], [2, 20], [3, 40]])
    np.testing.assert_allclose(head.get_ydata(), [0, 10, 10])
    assert ax.get_ylim()[0] == 0
    assert legend(drawn[0]) == ["owm: held layers/0", "owm: held head"]
    assert is_picture(tmp_path / "a.png")


def test_each_kind_has_a_panel_of_its_own(tmp_path, drawn):
    assert inside.reports([record(), record("condensate_head", report=SLOTS)], tmp_path / "a.png")
    axes = {ax.get_ylabel(): ax for ax in drawn[0].axes}
    kinds = ("held", "slots", "largest", "purity")
    assert list(axes) == [inside.PANELS[kind] for kind in kinds]
    ends = {name: [line.get_ydata()[-1] for line in ax.lines] for name, ax in axes.items()}
    np.testing.assert_allclose(ends["share of input space held (%)"], [40, 10])
    assert ends["slots"] == [4] and ends["examples in the largest slot"] == [9]  # numbers stay as they are
    np.testing.assert_allclose(ends["mass in its slot's main class (%)"], [75])


def test_names_that_no_panel_takes_are_not_in_the_legend(tmp_path, drawn):
    inside.reports([record(report={"temperature": [1.0, 2.0, 3.0], **HELD})], tmp_path / "a.png")
    assert legend(drawn[0]) == ["owm: held layers/0", "owm: held head"]


def test_a_method_has_one_colour_and_its_names_have_dashes(tmp_path, drawn):
    inside.reports([record(), record("gpm")], tmp_path / "a.png")
    lines = drawn[0].axes[0].lines
    colours = [method_style(method)["color"] for method in ("owm", "owm", "gpm", "gpm")]
    assert [line.get_color() for line in lines] == colours
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]


def test_configurations_of_a_method_look_different(tmp_path, drawn):
    runs = [record(hyperparameters={"alpha": alpha}) for alpha in range(9)]
    inside.reports(runs, tmp_path / "a.png")
    looks = [(one.get_marker(), one.get_linestyle(), str(one._dash_pattern)) for one in drawn[0].axes[0].lines]
    assert len(set(looks)) == 18  # two names each


def test_runs_that_lack_a_name_are_left_out_of_its_line(tmp_path, drawn):
    less = {"held head": HELD["held head"]}
    for runs in ([record(), record(seed=1, report=less)], [record(seed=1, report=less), record()]):
        assert inside.reports(runs, tmp_path / "a.png")
        lines = {line.get_linestyle(): line.get_ydata() for line in drawn[-1].axes[0].lines}
        assert sorted(ys[-1] for ys in lines.values()) == [10, 40]


def test_the_axis_is_as_long_as_the_longest_line(tmp_path, drawn):
    longer = {"held head": [0.1] * 5}
    runs = [record(report=longer, hyperparameters={"tasks": 5}), record()]
    inside.reports(runs, tmp_path / "a.png")
    assert drawn[0].axes[0].get_xlim()[1] == 5.15


def test_seeds_give_mean_and_interval(tmp_path, drawn):
    other = {"held layers/0": [0.3, 0.2, 0.6], "held head": [0.0, 0.1, 0.1]}
    inside.reports([record(), record(seed=1, report=other)], tmp_path / "a.png")
    ax = drawn[0].axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [20, 20, 50])
    points = ax.collections[0].get_paths()[0].vertices
    _, low, high = mean_interval([40, 60])
    at_the_end = points[points[:, 0] == 3, 1]
    np.testing.assert_allclose((at_the_end.min(), at_the_end.max()), (low, high))


def test_runs_that_diverged_or_say_nothing_are_in_no_mean(tmp_path, drawn):
    lost = {name: [9.0] * 3 for name in HELD}
    runs = [
        record(seed=0, report=lost, diverged={"phase": 1, "step": 2}),
        record(seed=1),
        record(seed=2, report=None),  # written by an older version
    ]
    assert inside.reports(runs, tmp_path / "a.png")
    np.testing.assert_allclose(drawn[0].axes[0].lines[0].get_ydata(), [10, 20, 40])
    assert not inside.reports(runs[:1], tmp_path / "b.png")


def test_null_in_a_report_leaves_a_gap(tmp_path, drawn):
    assert inside.reports([record(report={"purity": [None, 0.5, 1.0]})], tmp_path / "a.png")
    np.testing.assert_allclose(drawn[0].axes[0].lines[0].get_ydata(), [np.nan, 50, 100])


def test_reports_of_two_settings_are_not_mixed(tmp_path):
    with pytest.raises(UsageError, match="choose"):
        inside.reports([record(), record() | {"scenario": "task"}], tmp_path / "a.png")


# --- phase diagram ---


def test_a_phase_diagram_names_its_axes(tmp_path, drawn):
    inside.phase_diagram(DIAGRAM, tmp_path / "a.png")
    ax, bar = drawn[0].axes
    assert ax.get_xlabel().startswith("linker length") and ax.get_ylabel() == "binding by valence"
    assert bar.get_ylabel() == "accuracy on the first task, end over start"
    assert ax.get_xscale() == "log" and ax.get_xlim()[0] > 0.01  # all cells are seen
    (mesh,) = ax.collections
    np.testing.assert_allclose(mesh.get_array().filled(np.nan), [[0.1, 0.2, 0.3], [0.4, 0.9, np.nan]])
    assert mesh.get_clim()[0] == 0
    assert is_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    "draw, what",
    [(inside.reports, [record(), record("gpm", seed=1)]), (inside.phase_diagram, DIAGRAM)],
    ids=["reports", "phase diagram"],
)
def test_equal_inputs_are_equal_files(tmp_path, draw, what):
    for name in ("a.png", "b.png"):
        draw(what, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
