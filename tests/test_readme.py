"""The README's code runs, its tables are those of the committed results, and its commands exist."""

import pathlib
import re

import pytest

from benchmarks import suite, tables
from neuroml.methods import methods
from paper_repro import checking, claims
from paper_repro.plasticity import leads, together

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the README's Python leaves behind, block after block as a reader would run it."""
    first: dict = {}
    exec(BLOCKS[0], first)
    second = dict(first)
    exec(BLOCKS[1], second)
    return first, second


def test_the_first_example_runs_and_remembers(names):
    assert len(BLOCKS) == 2
    names, _ = names
    digits, predict, params = names["digits"], names["predict"], names["params"]
    old, new = ((predict(params, x).argmax(1) == digits.test_y).mean() for x in (digits.test_x, digits.test_x[:, ::-1]))
    assert old > 0.8 and new > 0.8  # the optimizer alone keeps 0.72 of the old


def test_the_flagship_keeps_all_tasks_under_one_head(names):
    _, names = names
    predict, params = names["predict"], names["params"]
    accuracy = names["stream"].evaluate(lambda batch: predict(params, batch.x), phase=4)
    assert accuracy.mean() > 0.9 and accuracy.min() > 0.8


def test_the_tables_are_those_of_the_result_files():
    found = tables.by_name(ROOT / "paper_repro" / "results")
    shown = {name: text for name, text in found.items() if f"<!-- results:{name} -->" in README}
    assert shown, "the README shows no results"
    assert not tables.stale(ROOT / "README.md", shown), "run `make tables`"


@pytest.mark.parametrize("folder", ["condensates", "growth", "plasticity", "repair"])
def test_the_tables_of_the_reproductions_are_those_of_their_result_files(folder):
    home = ROOT / "paper_repro" / folder
    found = tables.by_name(home / "results")
    assert found and not tables.stale(home / "README.md", found), "run `make tables`"


def test_the_leads_of_homeostasis_are_those_of_the_result_files():
    assert not tables.stale(leads.PAGE, {"leads": leads.table()}), "run `make tables`"


def test_the_table_of_both_together_is_that_of_the_result_files():
    assert not tables.stale(together.PAGE, {"together": together.table()}), "run `make tables`"


@pytest.mark.parametrize("name", re.findall(r"<!-- results:(\S+) -->", README))
def test_every_table_has_a_result_file(name):
    assert (ROOT / "paper_repro" / "results" / f"{name}.jsonl").exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_every_link_leads_somewhere(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"benchmarks run (\w+)", README))))
def test_every_suite_in_the_readme_exists(name):
    assert suite.load(name).name == name


def test_pages_count_the_published_numbers_that_pass_and_name_those_that_fail():
    found = {name: [row for row in checking.verdicts(claims.load(name)) if row.checked] for name in claims.names()}
    rows = [row for some in found.values() for row in some]
    page = (ROOT / "paper_repro" / "README.md").read_text()
    for text in (README, page):
        assert f"{sum(row.passes for row in rows)} of {len(rows)} " in text
    for name, some in found.items():
        failed = [row.cell.name for row in some if not row.passes]
        told = f"- [{name}]({name}/README.md): {' and '.join(failed)}."
        assert (told in page) == bool(failed), told


def test_tuned_values_are_those_that_were_chosen():
    import json

    for path in (ROOT / "paper_repro").rglob("results/tuning/*.json"):
        record = json.loads(path.read_text())
        one = suite.load(record["suite"])
        for trial in record["methods"]:
            given, names = one.given(trial["method"], record["scenario"]), trial["hyperparameter"].split(", ")
            used = [given.get(name, getattr(one, name, None)) for name in names]  # the suite's own, too
            assert used == (trial["chosen"] if len(names) > 1 else [trial["chosen"]]), f"{path.name}: {trial['method']}"


def test_repair_runs_with_the_settings_that_its_trials_chose():
    import json

    record = json.loads((ROOT / "paper_repro" / "repair" / "results" / "trials.json").read_text())
    one = suite.load("injury_recovery")
    for method, chosen in record["chosen"].items():
        usual = {**methods[method].hyperparameters, **methods[method].options, **one.given(method, "domain")}
        assert {name: usual[name] for name in chosen} == chosen


def test_tests_of_one_group_run_in_one_process(request):
    """xdist names them by their group; where it cannot, as with pytest 9.2, the tests take minutes more."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("tests run in one process")
    assert request.node.nodeid.endswith("@readme"), "pytest-xdist did not name the groups: it needs pytest below 9.2"
