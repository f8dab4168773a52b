"""Claims: published numbers, what runs their protocol, and the comparison."""

import pathlib

import pytest
import yaml

from benchmarks import results, tables
from paper_repro import checking, claims, cli, running
from paper_repro.claims import Cell

HERE = {name: claims.load(name) for name in claims.names()}
CELL = {"published": 50.0, "seeds": 4, "seen": "first-hand"}


def cell(**changed):
    return Cell(name="ER", **{**CELL, **changed})


@pytest.mark.parametrize("name", HERE)
def test_every_cell_has_a_protocol_that_can_run_or_a_reason(name):
    claim = HERE[name]
    assert len({one.name for one in claim.cells}) == len(claim.cells) > 1
    for one in claim.cells:
        assert 0 < one.published <= 100 and one.seeds > 0
        if one.not_run is None:
            assert one.job().method.summary
        else:
            assert len(one.not_run) > 10


@pytest.mark.parametrize("name", HERE)
def test_the_page_of_a_claim_shows_its_verdicts_as_they_are(name):
    page = claims.HOME / name / "README.md"
    assert not tables.stale(page, {"check": checking.table(checking.verdicts(HERE[name]), name)}), (
        f"python -m paper_repro check {name} --write"
    )


def test_the_tolerance_is_two_combined_standard_errors_and_the_floor():
    values = [50.0, 52.0, 54.0, 56.0]  # mean 53, standard deviation 2.582, SEM 1.291
    assert checking.verdict(cell(error=0.5), values).allowed == pytest.approx(
        2 * (1.291**2 + 0.25) ** 0.5 + 0.3, abs=1e-3
    )
    assert checking.verdict(cell(), values).allowed == pytest.approx(2 * (2 * 1.291**2) ** 0.5 + 0.3, abs=1e-3)
    for published, passes in ((49.2, True), (48.9, False), (56.8, True), (57.1, False)):  # 53 -+ 3.951
        assert checking.verdict(cell(published=published), values).passes is passes


def test_what_is_from_memory_or_of_one_seed_is_shown_and_not_checked():
    memory = checking.verdict(cell(seen="from memory"), [1.0, 1.1])
    alone = checking.verdict(cell(), [50.0])
    assert not memory.checked and not alone.checked
    text = checking.table([memory, alone], "paper")
    assert "not checked (from memory)" in text and "| not run |" in text and "0 of 0 checked" in text


@pytest.mark.parametrize("finished", [[], [50.0], [50.0, 50.1]])
def test_a_cell_of_which_a_seed_diverged_fails_and_says_so(finished):
    found = checking.verdict(cell(), finished, diverged=2)
    assert found.checked and not found.passes
    text, count = checking.table([found], "paper"), len(finished) + 2
    assert f"| **diverged** | {count} (diverged 2/{count}) |" in text and "0 of 1 checked" in text
    assert "paper_repro run" not in text, "it was run"
    assert checking.verdict(cell(), [50.0, 50.1]).passes


def write(folder, **changed):
    folder.mkdir(exist_ok=True)
    claim = {
        "title": "A table",
        "source": "nobody",
        "protocol": "digits",
        "minutes": "none",
        "seeds": 2,
        "published_seeds": 10,
        "seen": "first-hand",
        "suite": "split_digits",
        "scenario": "class",
        "cells": [
            {"name": "naive", "published": 19.5, "method": "naive", "settings": {"iterations": 30}},
            {"name": "magic", "published": 99.0, "not_run": "nobody has it"},
        ],
    }
    (folder / "claim.yaml").write_text(yaml.safe_dump(claim | changed))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HOME", tmp_path)
    monkeypatch.setattr(checking, "HOME", tmp_path)
    return tmp_path


def test_a_claim_is_run_resumed_checked_and_written(home, capsys):
    write(home / "paper")
    assert cli.main(["check"]) == 1, "nothing has been run"
    assert cli.main(["run", "paper"]) == 0
    lines = (home / "paper" / "results" / "split_digits.class.jsonl").read_text()
    assert cli.main(["run", "paper"]) == 0
    assert (home / "paper" / "results" / "split_digits.class.jsonl").read_text() == lines, "it ran again"
    (home / "paper" / "README.md").write_text("<!-- results:check -->\n<!-- /results:check -->\n")
    (found,) = [v for v in checking.verdicts(claims.load("paper")) if v.seeds]
    right, wrong = [
        {"name": "naive", "published": number, "method": "naive", "settings": {"iterations": 30}}
        for number in (found.mean + 0.2, found.mean + 60)
    ]
    write(home / "paper", cells=[right])
    assert cli.main(["check", "paper", "--write"]) == 0
    assert "| pass | 2 |" in (home / "paper" / "README.md").read_text()
    write(home / "paper", cells=[wrong])
    assert cli.main(["check", "paper"]) == 1 and "not explained: naive" in capsys.readouterr().err


def test_seeds_that_diverged_are_counted_from_the_file(home, capsys):
    write(home / "paper")
    one = claims.load("paper")
    job = one.cells[0].job()
    rows = [
        {"config_hash": results.config_hash(job.config), "method": job.name, "seed": seed, "seconds": 1.0}
        | {"metrics": {"accuracy": 0.195}, "diverged": {"phase": 0, "step": 3} if seed < 8 else None}
        for seed in range(10)
    ]
    results.append(running.file_of(one.results, job, job.suite.data), rows)
    assert cli.main(["check"]) == 1
    printed = capsys.readouterr()
    assert "10 (diverged 8/10)" in printed.out and "not explained: naive" in printed.err


def test_where_nothing_can_be_run_nothing_failed(home):
    write(home / "paper", cells=[{"name": "magic", "published": 99.0, "not_run": "nobody has it"}])
    assert cli.main(["check", "paper"]) == 0


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_runs(home, capsys, monkeypatch):
    write(home / "paper")
    monkeypatch.setattr(running.runner, "run_job", lambda *_: pytest.fail("it ran"))
    (home / "file").touch()
    assert cli.main(["run", "paper", "--out", str(home / "file" / "x")]) == 2
    assert f"cannot write to {home / 'file' / 'x'}" in capsys.readouterr().err


def test_failures_that_are_explained_are_allowed_up_to_a_tenth(home):
    write(home / "paper")
    cli.main(["run", "paper"])
    mean = checking.verdicts(claims.load("paper"))[0].mean
    one = {"method": "naive", "settings": {"iterations": 30}}
    good = [{"name": f"good {i}", "published": mean, **one} for i in range(9)]
    bad = {"name": "bad", "published": mean + 60, "explained": "they had another optimizer", **one}
    write(home / "paper", cells=[*good, bad])
    assert cli.main(["check"]) == 0
    write(home / "paper", cells=[*good[:8], bad])
    assert cli.main(["check"]) == 1


def test_a_claim_that_runs_nothing_says_where_the_reasons_are(home, capsys):
    write(home / "paper", cells=[{"name": "magic", "published": 99.0, "not_run": "nobody has it"}])
    assert cli.main(["run", "paper"]) == 2
    assert "paper runs nothing; `python -m paper_repro check paper`" in capsys.readouterr().err


def test_mistakes_are_named(home, capsys):
    for changed, words in (
        ({"seen": "somewhere"}, "somewhere"),
        ({"cells": [{"name": "x", "published": 1.0}]}, "needs a method"),
        ({"cells": [{"name": "x"}]}, "published"),
        ({"titel": "x"}, "titel"),
    ):
        write(home / "paper", **changed)
        assert cli.main(["list"]) == 2 and words in capsys.readouterr().err
    (home / "paper" / "claim.yaml").write_text("cells: [")
    assert cli.main(["check"]) == 2 and "is not a claim" in capsys.readouterr().err
    write(home / "paper")
    assert cli.main(["run", "papper"]) == 2 and "paper" in capsys.readouterr().err
    assert cli.main(["run", "paper", "--only", "ER"]) == 2 and "It runs: 'naive'." in capsys.readouterr().err
    assert cli.main(["run", "paper", "--only", "mag"]) == 2
    assert "'magic' is not run: nobody has it. It runs: 'naive'." in capsys.readouterr().err
    assert cli.main(["check", "--results", str(home)]) == 2
    capsys.readouterr()
    assert cli.main(["check", "paper", "--results", str(home / "nowhere")]) == 2
    printed = capsys.readouterr()
    assert not printed.out and f"--results {home / 'nowhere'} is no folder" in printed.err
    assert cli.main(["check", "paper", "--floor", "-1"]) == 2 and "--floor -1.0" in capsys.readouterr().err
    assert cli.main(["check", "paper", "--floor", "5", "--write"]) == 2 and "leave out" in capsys.readouterr().err


def test_a_few_seeds_on_real_images_come_near_the_paper(mnist, tmp_path, capsys):
    """The smoke version of the check: two seeds, a wide tolerance, and what replay does to forgetting must be there."""
    del mnist
    claim, there = "buzzega_2020_split", str(tmp_path)
    for name in ("SGD", "ER 200"):
        assert cli.main(["run", claim, "--only", name, "--seeds", "2", "--out", there]) == 0
    assert cli.main(["check", claim, "--results", there, "--floor", "3"]) == 0
    assert "2 of 2 checked numbers pass." in capsys.readouterr().out
    assert pathlib.Path(tmp_path / "split_mnist_online.class.csv").exists()
