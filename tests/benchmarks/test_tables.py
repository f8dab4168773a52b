import math

import pytest
import toy_results

from benchmarks import results, suite, summaries, tables
from neuroml.errors import DataError, UsageError


def record(*given, scenario="class", config=None, **other):
    config = {"protocol": {"scenario": scenario}, **(config or {})}
    cost = {"bytes": 1_234_567, "flops": 2.5e9, "seconds": 12.34}
    return toy_results.record(*given, scenario=scenario, config=config, **cost | other)


def rows(*records):
    """The cells of the body of the only table."""
    return body(tables.markdown(summaries.summarize(records)))


def body(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_a_row_by_hand():
    # Three seeds: mean 0.8, half-width 4.302653 * 0.1 / sqrt(3) = 0.248.
    runs = [record(seed=seed, accuracy=accuracy) for seed, accuracy in enumerate([0.7, 0.8, 0.9])]
    assert rows(*runs) == [["ewc", "80.0 ± 24.8", "25.0 ± 0.0", "3", "1.23", "2.50", "12.3"]]


def test_undefined_values_are_dashes():
    run = record("joint", forgetting=math.nan, bytes=None, flops=None, seconds=None)
    assert rows(run) == [["joint", "75.0", "–", "1", "–", "–", "–"]]


def test_diverged_seeds_are_noted():
    stop = {"phase": 1, "step": 2}
    assert rows(record(seed=0), record(seed=1, diverged=stop))[0][1:4] == ["75.0", "25.0", "2 (diverged 1/2)"]
    assert rows(record(seed=0, diverged=stop))[0][1:4] == ["–", "–", "1 (diverged 1/1)"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0012345, "0.00123"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1234.0, "1230"),
        (0.0, "0.00"),
    ],
)
def test_three_digits(number, text):
    assert rows(record(seconds=number))[0][-1] == text


def test_no_negative_zero():
    assert rows(record(forgetting=-0.0001))[0][2] == "0.0"
    assert rows(record(forgetting=-0.01))[0][2] == "-1.0"


def test_one_unit_for_all_methods():
    text = tables.markdown(summaries.summarize([record("ewc", flops=5e11), record("er", flops=2e12)]))
    assert "| TFLOP |" in text and "GFLOP" not in text
    assert [row[5] for row in rows(record("ewc", flops=5e11), record("er", flops=2e12))] == ["0.500", "2.00"]


def test_the_caption_says_what_the_numbers_are():
    caption = tables.markdown(summaries.summarize([record(seed=seed) for seed in range(10)])).splitlines()[-2]
    assert caption.startswith("*split_mnist, mnist, class-incremental, 10 seeds.")
    assert "95 % Student-t interval" in caption
    uneven = tables.markdown(summaries.summarize([record(seed=0), record(seed=1), record("si")]))
    assert "1-2 seeds" in uneven


def online(metrics=("online_accuracy", "early_accuracy", "accuracy", "forgetting"), tasks=None, **other):
    config = {} if tasks is None else {"protocol": {"tasks": tasks}}
    return record(**other) | {"config": config, "metrics": dict.fromkeys(metrics, 0.5)}


def test_a_caption_names_only_columns_that_are_there():
    header, *_, caption = tables.of([online()]).split("\n\n")
    assert "| method | online accuracy | first 250 steps | at the end | forgetting | seeds |" in header
    assert caption.replace("\n", " ") == (
        "*split_mnist, mnist, class-incremental, 1 seed. Online accuracy (on each batch before it is learnt), the same "
        "in the first 250 steps of a task, accuracy of all tasks at the end and forgetting in %: "
        "mean ± half the 95 % Student-t interval. MB, GFLOP and seconds of one seed.*"
    )
    assert all(len(line) <= 120 for line in caption.splitlines())
    everything = tables.of([online(tables.ONLINE)]).replace("\n", " ")
    for words in (
        "before it is learnt), the same in the first 250 steps of a task, its slope in points per 100 tasks, last "
        "minus first tenth of the tasks, accuracy of all tasks at the end and forgetting in %: ",
        "interval. Dead units in %, dormant units in %, effective rank of the last layer and root mean square of all "
        "weights at the end. MB,",
        "seed. Lost: online accuracy of the 200 steps",
        "in %. Steps to recover: until",
    ):
        assert words in everything
    assert "interval. Effective rank of the last layer at the end." in tables.of(
        [online(("online_accuracy", "effective_rank"))]
    ).replace("\n", " ")


@pytest.mark.parametrize(("tasks", "there"), [(None, True), (10, True), (9, False)])
def test_streams_of_few_tasks_have_no_trends(tasks, there):
    text = tables.of([online(tables.ONLINE, tasks)])
    assert text.count("slope") == text.count("last - first tasks") + text.count("last minus first tenth") == 2 * there


def test_a_label_names_settings_that_are_not_those_of_the_suites_own_file():
    """As controls need it, which have a file of their own where nothing else differs."""
    of = lambda method, **settings: record(method, config={"hyperparameters": settings})
    label = lambda *records: [row[0] for row in body(tables.of(records))]
    assert label(of("er"), of("si", strength=7.5)) == ["er", "si (strength=7.5)"]
    assert label(of("er", keep="ring", nonsense=3)) == ["er (keep=ring)"], "and nothing that the method does not have"
    usual = suite.load("split_mnist").given("si", "class")
    assert label(of("si", **usual)) == ["si"]
    both = [of("er", learning_rate=rate, keep="ring") for rate in (0.5, 0.25)]
    assert label(*both) == [f"er (learning_rate={rate}, keep=ring)" for rate in (0.5, 0.25)], "once each"
    changes = [{}, {"damping": 0.5}, {"strength": 7.5, "damping": 0.5}]
    three = label(*(of("si", **{**usual, **change}) for change in changes))
    assert three == ["si", "si (damping=0.5)", "si (strength=7.5, damping=0.5)"], "of three what changes"
    young = [of("si", learning_rate=0.5, ceiling=0.1)]
    assert label(*young) == ["si (learning_rate=0.5, ceiling=0.1)"]
    assert label(of("er", keep="ring") | {"suite": "another"}) == ["er"]


def test_scenarios_never_share_a_table():
    text = tables.markdown(summaries.summarize([record(scenario=name) for name in ("task", "class")]))
    assert text.count("| method |") == 2
    assert text.index("task-incremental") < text.index("| method |", 10) < text.index("class-incremental")


def test_a_bar_in_a_label_does_not_break_the_row():
    runs = [record(config={"hyperparameters": {"mode": mode}}) for mode in ("a|b", "c")]
    assert r"ewc (mode=a\|b)" in tables.markdown(summaries.summarize(runs))


def test_directory_has_a_heading_for_each_file(tmp_path):
    results.append(tmp_path / "b.jsonl", [record(scenario="task"), record(scenario="class")])
    results.append(tmp_path / "inner" / "a.jsonl", [record("si"), record("si", accuracy=0.5)])
    text = tables.directory(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("#")] == ["### b", "### inner/a"]
    assert text.count("| method |") == 3
    assert "| si | 50.0 |" in text and "| si | 75.0 |" not in text  # the newest line counts


def test_directory_without_results(tmp_path):
    with pytest.raises(DataError, match="run the benchmark"):
        tables.directory(tmp_path)
    with pytest.raises(DataError, match="run the benchmark"):
        tables.directory(tmp_path / "missing")


README = """# Title
<!-- results:one -->
old
<!-- /results:one -->
Between.
<!-- results:two --><!-- /results:two -->
End.
"""


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README, encoding="utf-8")
    return path


def test_update_replaces_only_what_is_between_the_markers(readme):
    table = "| ± |\n\\1 \\g<0>"  # not a pattern for `re`
    assert tables.stale(readme, {"one": table, "two": "B"}) == ["one", "two"]
    assert tables.update_readme(readme, {"one": table, "two": "B"})
    assert readme.read_text(encoding="utf-8") == README.replace("old", table).replace(
        "<!-- results:two --><!-- /results:two -->", "<!-- results:two -->\nB\n<!-- /results:two -->"
    )
    assert tables.stale(readme, {"one": table, "two": "B"}) == []


def test_update_writes_nothing_when_nothing_changed(readme):
    tables.update_readme(readme, {"one": "A"})
    before = readme.stat().st_mtime_ns
    assert not tables.update_readme(readme, {"one": "A"})
    assert readme.stat().st_mtime_ns == before
    assert tables.stale(readme, {"one": "A", "two": "new"}) == ["two"]


@pytest.mark.parametrize("function", [tables.update_readme, tables.stale])
def test_a_missing_marker_is_an_error(readme, function):
    with pytest.raises(UsageError, match="<!-- results:three -->"):
        function(readme, {"one": "A", "three": "C"})
    assert readme.read_text(encoding="utf-8") == README


@pytest.mark.parametrize("text", ["<!-- results:one -->", "<!-- /results:one --> <!-- results:one -->"])
def test_half_a_pair_of_markers_is_an_error(readme, text):
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="add the lines"):
        tables.stale(readme, {"one": "A"})


def test_a_missing_readme(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        tables.update_readme(tmp_path / "README.md", {})
