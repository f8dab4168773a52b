"""The scripts of the claims: their options, what they count and compare, and their pictures."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

import neuroml
from benchmarks import results, suite
from benchmarks.jobs import Job
from benchmarks.styles import method_style, method_styles
from neuroml.errors import DataError
from neuroml.streams.sources import load
from paper_repro import comparing, scripts
from paper_repro.buzzega_2020_rotated import angles
from paper_repro.condensates import ablation, frontier, phase_diagram
from paper_repro.condensates import compare as condensate_compare
from paper_repro.growth import compare as growth_compare
from paper_repro.growth import composed, course, front, ridges, zeros
from paper_repro.growth import raster as growth_raster
from paper_repro.plasticity import ablation as plasticity_ablation
from paper_repro.plasticity import compare as plasticity_compare
from paper_repro.plasticity import leads, raster, speed, together
from paper_repro.repair import curves, trials, with_condensates, without_copies

SEEDED = (ablation, frontier, phase_diagram, plasticity_ablation, curves, ridges, zeros, composed)
SEEDED = (*SEEDED, without_copies, with_condensates)
WRITING = (*SEEDED, raster, speed, together, growth_raster, front, course, trials, angles)


@pytest.fixture
def no_work(monkeypatch):
    for script in WRITING:
        monkeypatch.setattr(script, "work", lambda **_: pytest.fail("it began"))


@pytest.mark.parametrize("script", SEEDED, ids=lambda script: script.__name__)
def test_no_seeds_are_refused_before_anything_is_written(script, no_work, tmp_path, capsys):
    assert script.main(["--seeds", "0", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == "error: --seeds 0: at least 1 is needed.\n" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("script", WRITING, ids=lambda script: script.__name__)
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(script, no_work, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert script.main(["--out", str(tmp_path / "file" / "x")]) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot write to {tmp_path / 'file' / 'x'}")


def test_a_mistake_is_one_line_and_the_folder_is_there_when_work_begins(tmp_path, capsys):
    def work(out, tasks):
        assert out.is_dir() and tasks == 3
        raise DataError("the data set is missing.")

    assert scripts.main(work, "Help.", ["--out", str(tmp_path / "a" / "b")], out=tmp_path, tasks=3) == 2
    assert capsys.readouterr().err == "error: the data set is missing.\n"
    assert scripts.main(lambda: None, "Help.", []) == 0


def record(method="growth", seed=0, accuracy=0.5, diverged=None, hidden=(100, 100), **given):
    """Returns a result with these hyperparameters; `protocol` adds to its protocol."""
    protocol = {"hidden": list(hidden), **given.pop("protocol", {})}
    config = {"method": method, "protocol": protocol, "hyperparameters": given}
    identity = {"config": config, "config_hash": results.config_hash(config), "method": method, "seed": seed}
    size = sum(hidden) * 1000
    found = {"metrics": {"accuracy": accuracy, "recovery_steps": 10.0}, "diverged": diverged, "bytes": size}
    return identity | found | {"accuracy": [[0.9, 0.1], [0.8, accuracy]], "report": {}}


PLAIN = {name: value for name, value in front.PLAIN.items() if name != "apoptosis"}
LOST = {"phase": 0, "step": 1}


def write(path, rows):
    results.append(path, rows)
    return path


def test_two_configurations_under_one_name_are_refused(tmp_path):
    rows = [record(**PLAIN), record(**PLAIN, learning_rate=0.1), record("fixed")]
    for use in (front.by_name, course.chosen):
        with pytest.raises(DataError, match="growth.* is the name of 2 configurations"):
            use(rows)
    with pytest.raises(DataError, match="is the name of 2 configurations"):
        growth_compare.lines(write(tmp_path / "a.jsonl", rows))


def test_a_comparison_leaves_out_seeds_that_diverged_and_says_how_many_are_left(tmp_path):
    ours = [record(seed=seed, accuracy=0.6 + 0.01 * seed, **PLAIN) for seed in range(3)]
    ours.append(record(seed=3, accuracy=0.1, diverged=LOST, **PLAIN))
    fixed = [record("fixed", seed=seed) for seed in range(4)]
    (line,) = growth_compare.lines(write(tmp_path / "a.jsonl", ours + fixed))
    assert line.startswith("100 neurons: growth - fixed = 11.00 [") and line.endswith("3 of 4 seeds")
    assert front.accuracy(ours).mean == pytest.approx(61)


def test_neurogenesis_is_held_against_fixed_networks_growth_and_lots(tmp_path):
    given = front.OURS
    rows = [record(*one, **PLAIN) for one in (("growth", 0, 0.5), ("growth", 1, 0.6))]
    rows += [record("neurogenesis", seed, 0.7, **given) for seed in range(2)] + [record("fixed", s) for s in range(2)]
    rows += [record("neurogenesis", seed, 0.4, **given | {"by_lot": True}) for seed in range(2)]
    told = growth_compare.lines(write(tmp_path / "a.jsonl", rows))
    ours = [line for line in told if ": neurogenesis - " in line]
    assert [line.split(" = ")[0].split(" - ")[1] for line in ours] == ["fixed", "growth", "neurogenesis by_lot=True"]
    assert [line.split(" = ")[1].split(" ")[0] for line in ours] == ["20.00", "15.00", "30.00"]


def test_neurogenesis_is_held_against_the_least_fixed_network_of_as_many_bytes(tmp_path):
    ours = {**record("neurogenesis", accuracy=0.7, **front.OURS), "bytes": 217_000}
    ours = [ours, {**ours, "seed": 1}]
    fixed = [record("fixed", seed, hidden=(n, n)) for n in (100, 108, 109, 110) for seed in range(2)]
    told = growth_compare.lines(write(tmp_path / "a.jsonl", ours + fixed))
    assert [line.split(" = ")[0] for line in told] == [
        "100 neurons: neurogenesis - fixed",
        "100 neurons: neurogenesis - fixed of 109 neurons, as many bytes",
    ]
    few = growth_compare.lines(write(tmp_path / "b.jsonl", ours + fixed[:4] + fixed[6:]))  # 110: 1.4 % more
    assert [line.split(" = ")[0] for line in few] == ["100 neurons: neurogenesis - fixed"]


def test_rivals_are_held_against_the_projector_on_the_seeds_that_both_have(tmp_path):
    ours = [record("condensate_projector", seed=seed, accuracy=0.9 + 0.01 * seed) for seed in range(4)]
    rows = ours + [record("gpm", seed=seed, accuracy=0.8) for seed in range(3)]
    (line,) = condensate_compare.lines(write(tmp_path / "a.jsonl", rows))
    assert line.startswith("condensate_projector - gpm = 11.00 [") and line.endswith("3 of 3 seeds")


def test_both_together_are_held_against_what_each_alone_is_for(tmp_path):
    named = {"condensate_projector": (0.6, 0.5), "homeostasis": (0.1, 0.9), "condensate_shell": (0.7, 0.8)}
    metrics = lambda seed, kept, learnt: {"accuracy": kept + 0.01 * seed, "online_accuracy": learnt + 0.02 * seed}
    rows = [
        record(name, seed=seed) | {"metrics": metrics(seed if name == "condensate_shell" else 0, *both)}
        for name, both in named.items()
        for seed in range(3)
    ]
    found = plasticity_compare.lines(write(tmp_path / "a.jsonl", rows))
    assert [line.split(" [")[0] for line in found] == [
        "accuracy: condensate_shell - condensate_projector = 11.00",
        "accuracy: condensate_shell - homeostasis = 61.00",
        "online_accuracy: condensate_shell - condensate_projector = 32.00",
        "online_accuracy: condensate_shell - homeostasis = -8.00",
    ]


def test_each_method_is_held_against_its_own_control_alone():
    metrics = lambda value: {"metrics": {"online_accuracy": value}}
    online = lambda name, value: [record(name, seed=seed) | metrics(value + 0.01 * seed) for seed in range(3)]
    ours, theirs = {"cbp": online("cbp", 0.8), "sgd": online("sgd", 0.7)}, {"cbp (choose=random)": online("cbp", 0.75)}
    theirs["cbp (choose=random)"][2]["metrics"]["online_accuracy"] += 0.03
    (line,) = plasticity_compare.against(ours, theirs, lambda one, other: one == other)
    assert line.startswith("online_accuracy: cbp - cbp (choose=random) = 4.00 [") and line.endswith("3 of 3 seeds")


def test_the_lead_is_that_on_the_best_rival_over_all_tasks_and_in_the_first_and_last_tenth(tmp_path, monkeypatch):
    def run(method, seed, first, later, last):
        tasks = [online + 0.01 * seed for online in (first, *18 * [later], last)]
        place = {"suite": "input_permuted_mnist", "scenario": "domain", "online_by_task": tasks}
        return record(method, seed=seed, protocol={"standardized": [0.1, 0.3]}) | place

    online = {"homeostasis": (0.9, 0.8, 0.7), "upgd": (0.7, 0.808, 0.8), "sgd": (0.6, 0.5, 0.5)}
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "input_permuted_mnist.domain.json").write_text('{"tasks": 12}')
    runs = [run(name, seed, *parts) for name, parts in online.items() for seed in range(2)]
    lost = [run(name, 2, 0.1, 0.1, 0.1) | {"diverged": {"phase": 0, "step": 1}} for name in ("homeostasis", "adamw")]
    write(tmp_path / "a.jsonl", runs + lost)
    monkeypatch.setattr(leads, "HOME", tmp_path)
    monkeypatch.setattr(leads, "TUNING", tmp_path / "tuning")
    found = dict(zip(leads.HEADER, leads.row(leads.Stream("all of it", "a.jsonl", "a.jsonl")), strict=True))
    assert found["tasks run"] == "20 of 200" and found["tuned on"] == "12" and found["rivals' inputs"] == "standardized"
    assert (
        found["homeostasis"] == "80.5" and found["best rival"] == "upgd 80.7" and found["optimizer alone"] == "sgd 51.0"
    )
    ahead = [found[name].split(" [")[0] for name in ("ahead of the best rival", "first tenth", "last tenth")]
    assert ahead == ["-0.22", "9.60", "-5.40"] and found["seeds"] == "2"


def test_both_together_stand_against_each_alone_on_the_seeds_that_both_finished(tmp_path):
    named = {"condensate_projector": (0.7, 0.8), "homeostasis": (0.6, 0.7), "condensate_shell": (0.72, 0.9)}
    metrics = lambda seed, kept, learnt: {"accuracy": kept + 0.01 * seed, "online_accuracy": learnt + 0.02 * seed}
    rows = [record(name, seed) | {"metrics": metrics(seed, *both)} for name, both in named.items() for seed in range(3)]
    rows += [record("condensate_homeostasis", seed, diverged=LOST if seed else None) for seed in range(3)]
    rows[-3]["metrics"] = metrics(0, 0.75, 0.85)
    fast = {"learning_rate": 0.03, "anchoring": 0.001}
    rows += [record("homeostasis", seed, **fast) | {"metrics": metrics(seed, 0.3, 0.9)} for seed in range(3)]
    found = {cells[1]: dict(zip(together.HEADER, cells, strict=True)) for cells in rows_of(tmp_path, rows)}
    assert list(found) == [
        "condensates alone",
        "homeostasis alone",
        "homeostasis alone, by larger steps",
        "both, one after the other",
        "both, in two networks",
    ]
    online, kept = together.HEADER[4:6]
    shell, product = found["both, in two networks"], found["both, one after the other"]
    assert (shell["online"], shell["at the end"]) == ("92.0", "73.0")
    assert (shell[online], shell[kept]) == ("0.00 [0.00, 0.00]", "2.00 [2.00, 2.00]") and shell["seeds"] == "3"
    assert (product[online], product[kept], product["seeds"]) == ("-5.00", "5.00", "1, 2 diverged")
    assert found["homeostasis alone, by larger steps"][online] == found["condensates alone"][kept] == "–"
    assert found["homeostasis alone"][online] == "-20.00 [-20.00, -20.00]"  # behind what learns best of it


def rows_of(folder, rows):
    groups = together.own_groups(write(folder / "a.jsonl", rows))
    together.picture(folder / "a.png", {"a stream": groups, "again": groups})
    assert (folder / "a.png").stat().st_size > 10_000
    return together.rows_of("a stream", groups)


def test_zeros_runs_only_what_its_file_lacks_and_all_of_it_for_another_number_of_seeds(tmp_path, monkeypatch):
    ran = []
    row = lambda seeds: {"accuracy": [80.0 + seed for seed in range(seeds)]}
    trial = lambda data, width, method, changes, silent, seeds: (ran.append((width, method)), row(seeds))[1]
    monkeypatch.setattr(zeros, "trial", trial)
    monkeypatch.setattr(zeros.sources, "load", lambda name: load("digits"))
    zeros.work(3, tmp_path)
    every = len(ran)
    assert every == len(zeros.WIDTHS) * (len(zeros.SILENT) + len(zeros.GROWTH))
    kept = json.loads((tmp_path / "zeros.json").read_text())
    del kept["found"]["25"]["growth"]
    (tmp_path / "zeros.json").write_text(json.dumps(kept))
    zeros.work(3, tmp_path)
    assert ran[every:] == [(25, "growth")]
    zeros.work(2, tmp_path)
    assert len(ran) == 2 * every + 1


def test_ridges_runs_only_what_its_file_lacks(tmp_path, monkeypatch):
    ran = []
    found = {"accuracy": [60.0], "learnt": [70.0]}
    monkeypatch.setattr(ridges, "trial", lambda data, width, *rest: (ran.append((width, *rest[:2])), found)[1])
    monkeypatch.setattr(ridges.sources, "load", lambda name: load("digits"))
    ridges.work(1, tmp_path)
    every = len(ran)
    kept = json.loads((tmp_path / "ridges.json").read_text())
    del kept["found"]["100"]["fixed"]["1.2"]
    (tmp_path / "ridges.json").write_text(json.dumps(kept))
    ridges.work(1, tmp_path)
    assert every == len(set(ran)) == 4 * 2 and ran[every:] == [(100, "fixed", 1.2)]


def test_no_comparison_where_no_seed_is_common():
    assert comparing.compared({0: 1.0}, {1: 1.0}) is None and comparing.compared({0: None}, {0: 1.0}) is None


def test_a_control_has_the_colour_of_its_method_and_a_look_of_its_own():
    groups = {name: {89610: [record(name.split(" ")[0]), record(seed=1, diverged=LOST)]} for name in front.DRAWN}
    fixed, growth, born, control = front.styles_of([groups, {"fixed": groups["fixed"]}]).values()
    assert born["color"] == control["color"] == method_style("neurogenesis")["color"] != fixed["color"]
    assert len({born["marker"], control["marker"], growth["marker"]}) == 3
    assert growth["label"] == "growth (diverged 1/2)" != fixed["label"]


def test_pictures_of_growth_leave_out_what_diverged(tmp_path, monkeypatch, capsys):
    rows = [record("fixed", seed) for seed in range(2)] + [record("fixed", 2, float("nan"), LOST), record(**PLAIN)]
    path = write(tmp_path / "growth_100.domain.jsonl", rows)
    for script in (front, course):
        monkeypatch.setattr(script, "HOME", tmp_path)
    monkeypatch.setattr(front, "PANELS", {"2 permutations": tmp_path, "again": tmp_path})
    assert front.main(["--out", str(tmp_path)]) == course.main(["--out", str(tmp_path)]) == 0
    assert "2 permutations: fixed" in (out := capsys.readouterr().out) and "50.0 +- 0.0 %" in out
    assert path.with_name("front.png").exists() and path.with_name("course.png").exists()


def test_the_frontier_draws_both_networks_and_only_what_was_asked_for(tmp_path, monkeypatch):
    base = dataclasses.replace(suite.load("split_mnist_online"), ordered=False)
    small, large = (Job(dataclasses.replace(base, hidden=hidden), "class", "er") for hidden in ((50, 50), (100, 100)))
    stale = Job(frontier.with_options(base, "er", capacity=7), "class", "er")
    row = lambda job, seed: record("er", seed) | {"config": job.config, "config_hash": results.config_hash(job.config)}
    rows = [row(job, seed) for job in (small, large, stale) for seed in range(3)]
    found = frontier.kept(rows, [small, large], 2)
    assert [(one["seed"], frontier.name_of(one)) for one in found] == [
        (seed, name) for name in ("er, 50-50", "er, 100-100") for seed in range(2)
    ]
    drawn = []
    monkeypatch.setattr(frontier, "method_styles", lambda panels: drawn.append(method_styles(panels)) or drawn[0])
    frontier.draw({"1MB": found}, tmp_path / "a.png")
    assert set(drawn[0]) == {"er, 50-50", "er, 100-100"} and (tmp_path / "a.png").exists()


def test_a_recovery_curve_of_a_seed_that_diverged_is_no_number(monkeypatch):
    accuracy, diverged = np.ones((2, 1, curves.BEFORE + curves.AFTER)), np.array([[-1, -1], [0, 5]])
    found = types.SimpleNamespace(online_accuracy=accuracy, diverged=diverged)
    monkeypatch.setattr(curves, "run", lambda *_, **__: found)
    one = dataclasses.replace(suite.load("injury_recovery"), injury_at=curves.BEFORE)
    values = curves.recovery(Job(one, "domain", "none"), load("digits"), 2)
    assert (values[0] == 1).all() and np.isnan(values[1]).all()
    assert curves.titled("none", values) == "none (diverged 1/2)" and curves.titled("none", values[:1]) == "none"


def test_the_second_half_of_a_silenced_population_alone_hands_on_nothing(key):
    usual = neuroml.mlp((8, 8, 1), (5, 4), 10)
    before, after = usual.init(key)[0], zeros.silenced(usual, ("hidden_0",)).init(key)[0]
    kernel = before["layers"][1]["kernel"]
    expected = {**before, "layers": {**before["layers"], 1: {**before["layers"][1], "kernel": kernel.at[3:].set(0)}}}
    jax.tree.map(np.testing.assert_array_equal, after, expected)


def test_a_network_that_forgets_does_worse_the_further_the_given_angles_lie_apart():
    small = {"data": "digits", "tasks": 3, "hidden": (20,), "epochs": 20, "batch_size": 32}
    job = Job(dataclasses.replace(suite.load("rotated_mnist_20"), **small), "domain", "naive")
    near, far = (angles.at_angles(job, load("digits"), degrees, seeds=1)[0] for degrees in ((0, 0, 0), (0, 90, 180)))
    assert near > far + 10


def test_a_recovery_curve_falls_at_the_injury():
    steps = {"data": "digits", "tasks": 2, "examples": 14_080, "injury_at": 600, "injury": 0.9, "hidden": (20, 20)}
    job = Job(dataclasses.replace(suite.load("injury_recovery"), **steps), "domain", "none")
    curve = curves.recovery(job, load("digits"), 1)[0]
    windows = curves.BEFORE // curves.WINDOW
    assert curve.shape == ((curves.BEFORE + curves.AFTER) // curves.WINDOW,)
    assert curve[windows] < np.mean(curve[:windows]) - 0.2


@pytest.mark.parametrize("budget", frontier.BUDGETS)
def test_at_equal_bytes_replay_is_the_suites_and_the_memory_fits_with_the_images_that_it_holds_back(
    budget, monkeypatch
):
    held = lambda options: 800 * (options.get("held_back", 0) + options.get("capacity", 0))
    monkeypatch.setattr(frontier, "bytes_of", lambda job, data: held(job.options) + 5000 * job.options.get("width", 1))
    base = suite.load("split_mnist_online")
    replay, memory = {}, None
    for job in frontier.jobs(budget, base, None):
        replay |= {job.name: job.options["replay_batch"]} if job.name != "condensate_memory" else {}
        memory = job if job.name == "condensate_memory" else memory
    assert replay == {"er": 0, "derpp": base.options["derpp"]["replay_batch"]}
    assert frontier.BUDGETS[budget] / 2 < frontier.bytes_of(memory, None) <= frontier.BUDGETS[budget]
    assert memory.options["held_back"] == min(2000, frontier.BUDGETS[budget] // 3200)
    assert 784 * memory.batch_size <= frontier.BUDGETS[budget] / 10
