"""The code of the tutorial pages runs as a reader would run it, block after block, and does what the page says."""

import ast
import pathlib
import re

import jax
import pytest

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("tutorials")

PAGE = pathlib.Path(__file__).parent.parent / "paper_repro" / "growth" / "tutorial.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What each block leaves behind."""
    known, after = {}, []
    for block in BLOCKS:
        exec(block, known)
        after.append({**known, "compilations": known["step"]._cache_size()})
    return after


def accuracy(names):
    scores = names["net"].apply(names["params"], {}, names["digits"].test_x.reshape(-1, 64) / 16.0)[0]
    return float((scores.argmax(1) == names["digits"].test_y).mean())


def test_a_stock_network_grows_in_under_25_lines(names):
    lines = {node.lineno for node in ast.walk(ast.parse(BLOCKS[0])) if isinstance(node, ast.stmt)}
    assert len(lines) < 25
    report = names[0]["neuroml"].core.report(names[0]["opt_state"])
    assert report["born"] > 3 and report["alive hidden_0"] == 2 + report["born"]
    assert accuracy(names[0]) > 0.9  # two neurons alone: 0.74


def test_it_goes_on_with_more_room(names):
    assert names[1]["params"]["layers"][0]["kernel"].shape == (64, 32)
    assert accuracy(names[1]) > 0.9
    assert [after["compilations"] for after in names[:2]] == [1, 2]


def test_it_gets_a_whole_new_layer(names):
    assert names[2]["params"]["layers"][2]["kernel"].shape == (32, 32)
    assert accuracy(names[2]) > 0.9
    assert names[2]["compilations"] == 3


def test_it_remembers_beside_another_rule(names):
    assert accuracy(names[3]) > 0.9
    rule = names[3]["opt_state"].rule
    assert float(rule.ground["layers/0"].unit) > 0
    assert all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(names[3]["opt_state"]))


def test_neurons_are_born_for_a_context_that_looks_different(names):
    last = names[-1]
    agent, state, digits = last["agent"], last["state"], last["digits"]
    found = agent.report(state)
    assert (int(found["contexts used"]), int(found["alive hidden_0"])) == (2, 43)
    for number, order in enumerate(last["orders"]):
        batch = last["as_batch"](jax.numpy.float32(digits.test_x.reshape(-1, 64)[:, order]), digits.test_y)
        assert float((agent.context(state, batch) == number).mean()) > 0.95
        assert float((agent.predict(state, batch).argmax(1) == digits.test_y).mean()) > 0.8
