"""A learner of one's own: it prepares on the examples that it then sees first, and pays for holding them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy_experiments import DATA, OUTPUTS, PIXELS, make, price

import neuroml
from neuroml import cost
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, StepInfo
from neuroml.method import Method
from neuroml.streams import scenarios

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")

HELD = 6  # a batch and a half


def _watching(at, given):
    """A learner that learns nothing, and remembers what it was shown before the first step and since."""
    pixels, shown = at.example.x.size, 4 * 40

    def init(key):
        del key
        none = lambda number: jnp.full(number, -1)
        blank = lambda number: {"x": jnp.zeros((number, pixels)), "y": none(number), "task": none(number)}
        return LearnerState({"before": blank(given["held"]), "since": blank(shown)}, (jnp.int32(0), jnp.int32(0)))

    def prepare(state, examples, key):
        del key
        prepared, steps = state.opt_state
        return LearnerState(state.params | {"before": flat(examples)}, (prepared + 1, steps))

    def step(state, batch, key):
        del key
        prepared, steps = state.opt_state
        add = lambda all_of_them, now: jax.lax.dynamic_update_slice_in_dim(all_of_them, now, steps * len(now), 0)
        since = jax.tree.map(add, state.params["since"], flat(batch))
        info = StepInfo(jnp.float32(0), jnp.float32(0))
        return LearnerState(state.params | {"since": since}, (prepared, steps + 1)), info

    def flat(batch):
        return {"x": batch.x.reshape(-1, pixels).astype(jnp.float32), "y": batch.y, "task": batch.task}

    def report(state):
        before, since = state.params["before"], state.params["since"]
        alike = [(a == b[: len(a)]).all() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(since), strict=True)]
        prepared, steps = state.opt_state
        return {"alike": jnp.stack(alike).all(), "prepared": prepared, "steps": steps}

    silent = lambda state, batch: jnp.zeros(batch.active.shape)
    return Learner(init, step, lambda state, *_: state, silent, prepare=prepare, report=report)


WATCHING = Method("looks on", learner=_watching, options={"held": HELD}, prepares=lambda given: given["held"])


def watching(**changed):
    return make(method=WATCHING, epochs=None, iterations=7, **changed)


def test_a_learner_prepares_on_the_examples_that_it_then_sees_first():
    state = toy.trained_by_hand(watching(), toy.SEED).state
    before, since = state.params["before"], state.params["since"]
    for name in ("x", "y", "task"):
        np.testing.assert_array_equal(before[name], since[name][:HELD])
    found = [toy.numbers(DATA)[np.asarray(x).astype(np.uint8).tobytes()] for x in before["x"]]
    assert len(set(found)) == HELD and {part for part, *_ in found} == {"train"}
    assert not before["task"].any() and since["task"].max() == 2  # of the first phase, and all three were seen
    assert tuple(map(int, state.opt_state)) == (1, 21)


@pytest.mark.parametrize("window", [None, 8])
def test_a_compiled_run_prepares_likewise_for_each_seed(window):
    maker = scenarios.split(3) if window is None else scenarios.blended(scenarios.split(3), window)
    given = {"hyperparameters": {"learning_rate": 0.1}, "seeds_mode": "vmap"}
    result = neuroml.run(watching(maker=maker), DATA, seeds=[0, 1], **given)
    np.testing.assert_array_equal(result.report["alike"], np.ones((2, 3), bool))
    np.testing.assert_array_equal(result.report["prepared"], np.ones((2, 3)))  # once, before the first phase
    np.testing.assert_array_equal(result.report["steps"], [[7, 14, 21]] * 2)


def test_who_holds_nothing_back_does_not_prepare():
    experiment = watching(options={"held": 0})
    _, state = experiment.begin(jax.random.key(0), toy.numbers_of(experiment), DATA)
    assert state.opt_state == (0, 0) and state.params["before"]["x"].shape == (0, PIXELS)


def test_a_method_needs_a_transform_or_a_learner():
    experiment = make(method=Method("empty-handed"))
    with pytest.raises(UsageError, match="'empty-handed' has neither a transform nor a learner"):
        jax.eval_shape(experiment.begin, jax.random.key(0), toy.numbers_of(experiment), DATA)


def test_examples_that_are_held_back_are_paid_for_beside_the_state():
    held, none = watching(), watching(options={"held": 0})
    state = lambda one: cost.tree_bytes(jax.eval_shape(one.begin, jax.random.key(0), toy.numbers_of(one), DATA)[1])
    assert price(none)[0] == state(none)
    assert price(held)[0] - state(held) == HELD * (PIXELS + 4 + 4 + OUTPUTS)  # uint8 image, label, task, active outputs
