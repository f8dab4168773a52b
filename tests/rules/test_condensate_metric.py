"""Condensate metric: its equation in numpy, and the two rules that it joins as its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml.errors import UsageError

SIZE = 4
SPREAD = jnp.array([3.0, 1.0, 0.3, 0.1])  # of the inputs along the axes
ROWS = [jax.random.normal(jax.random.key(i), (8, SIZE)) * jnp.roll(SPREAD, i) for i in range(3)]
ZEROS = {"kernel": jnp.zeros((SIZE, SIZE))}


def met(rule, *contexts):
    """The state after contexts of one batch each, and after one more batch that is not consolidated."""
    state = rule.init(ZEROS)
    for i, x in enumerate(contexts):
        _, state = rule.update(ZEROS, state, ZEROS, activity=x)
        state = neuroml.consolidate(state, ZEROS) if i + 1 < len(contexts) else state
    return state


def matrix(rule, state, x=ROWS[2]):
    """What a step of the identity becomes."""
    return rule.update({"kernel": jnp.eye(SIZE)}, state, ZEROS, activity=x)[0]["kernel"]


def moment(x):
    return np.asarray(x, np.float64).T @ np.asarray(x, np.float64) / len(x)


def test_it_is_the_equation():
    strength, scale, decorrelation, decay = 0.8, 0.3, 0.6, 0.5
    rule = neuroml.condensate_metric(strength, scale=scale, decorrelation=decorrelation, decay=decay, every=1)
    now = np.zeros((SIZE, SIZE))
    for x in [*ROWS, ROWS[2]]:
        now = decay * now + (1 - decay) * moment(x)
    held = moment(ROWS[0]) + moment(ROWS[1])
    now = (1 - decay**4) * now / (np.trace(now) / SIZE) + decay**4 * np.eye(SIZE)
    total = (1 - decorrelation) * np.eye(SIZE) + decorrelation * now
    inverse = np.linalg.inv(total + held / (scale * np.trace(moment(ROWS[0])) / SIZE))
    expected = np.eye(SIZE) + strength * (inverse - np.eye(SIZE))
    np.testing.assert_allclose(matrix(rule, met(rule, *ROWS)), expected, rtol=1e-4, atol=1e-6)


def test_without_decorrelation_it_is_the_projector():
    rules = neuroml.condensate_metric(0.7, scale=0.2, decorrelation=0.0), neuroml.condensate_projector(0.7, scale=0.2)
    metric, projector = (matrix(rule, met(rule, *ROWS)) for rule in rules)
    np.testing.assert_allclose(metric, projector, atol=1e-5)
    mine, its = (met(rule, *ROWS).report()["held "] for rule in rules)
    np.testing.assert_allclose(mine, its, rtol=1e-4)


@pytest.mark.parametrize("contexts", [ROWS[:1], ROWS], ids=["no consolidation", "an infinite scale"])
def test_where_nothing_is_held_it_is_decorrelation(contexts):
    ridge = 0.25
    metric = neuroml.condensate_metric(scale=jnp.inf, decorrelation=1 / (1 + ridge), decay=0.0, every=1)
    plain = neuroml.decorrelation(ridge=ridge, decay=0.0, every=1)
    ours, theirs = (matrix(rule, met(rule, *contexts)) for rule in (metric, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_step_goes_down_the_gradient_and_the_two_rules_in_turn_may_not():
    lowest = lambda turned: np.linalg.eigvalsh((turned + turned.T) / 2).min()
    before, now = jnp.eye(SIZE)[:1], jnp.array([[1.0, 1.0, 0.0, 0.0]])
    metric = neuroml.condensate_metric(scale=0.01, decorrelation=0.9, decay=0.0, every=1)
    ours = matrix(metric, met(metric, before, now), now)
    first = neuroml.decorrelation(ridge=1 / 9, decay=0.0, every=1)
    then = neuroml.condensate_projector(scale=0.01)
    in_turn = matrix(then, met(then, before, now), now) @ matrix(first, met(first, now), now)
    assert lowest(in_turn) < -0.01 and lowest(ours) > 0.001
    np.testing.assert_allclose(ours, ours.T, atol=1e-5)


def test_what_was_used_is_kept_also_where_it_is_rare_now():
    """A direction that is half held: decorrelation alone would multiply its step by ten, the metric does not."""
    before, now = jnp.eye(SIZE), jnp.eye(SIZE)[:1]
    rule = neuroml.condensate_metric(scale=1.0, decorrelation=0.9, decay=0.0, every=1)
    steps = jnp.diag(matrix(rule, met(rule, before, now), now))
    np.testing.assert_allclose(steps, [1 / (0.1 + 0.9 * SIZE + 1)] + [1 / (0.1 + 1)] * 3, rtol=1e-5)


def test_inputs_count_as_white_until_enough_are_known():
    rule = neuroml.condensate_metric(scale=jnp.inf, decorrelation=0.9, decay=0.99, every=1)
    first, state = (matrix(rule, rule.init(ZEROS), jnp.eye(SIZE)[:1]), rule.init(ZEROS))
    update = jax.jit(rule.update)
    for _ in range(300):
        _, state = update(ZEROS, state, ZEROS, activity=jnp.eye(SIZE)[:1])
    np.testing.assert_allclose(jnp.diag(first), [1 / 1.027] + [1 / 0.991] * 3, rtol=1e-5)
    seen = 1 - 0.99**301
    now = seen * np.array([SIZE, 0, 0, 0]) + 1 - seen
    np.testing.assert_allclose(jnp.diag(matrix(rule, state, jnp.eye(SIZE)[:1])), 1 / (0.1 + 0.9 * now), rtol=1e-3)


def test_the_control_holds_as_much_of_something_else():
    rule, control = (neuroml.condensate_metric(decorrelation=0.0, shuffled=shuffled) for shuffled in (False, True))
    kept, other = (met(one, *ROWS).layers[""].core for one in (rule, control))
    np.testing.assert_allclose(np.linalg.eigvalsh(kept), np.linalg.eigvalsh(other), rtol=1e-4, atol=1e-5)
    assert np.abs(matrix(rule, met(rule, *ROWS)) - matrix(control, met(control, *ROWS))).max() > 0.1


@pytest.mark.parametrize("scale", [1e-4, 1e-9])
def test_however_firmly_it_holds_what_is_free_stays_free(scale):
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))
    rule = neuroml.condensate_metric(scale=scale, decorrelation=0.0)
    turned = matrix(rule, met(rule, jnp.asarray(2 * axes[:2], jnp.float32), ROWS[2]))
    np.testing.assert_allclose(turned, axes[2:].T @ axes[2:], atol=1e-3)


def test_inputs_that_are_zero_or_not_finite_change_nothing():
    rule = neuroml.condensate_metric(decorrelation=0.9, every=1)
    blank = met(rule, jnp.zeros((2, SIZE)))
    np.testing.assert_array_equal(matrix(rule, blank, jnp.zeros((1, SIZE))), jnp.eye(SIZE))
    state = met(rule, *ROWS)
    for bad in (jnp.nan, jnp.inf, 1e30):
        _, after = rule.update(ZEROS, state, ZEROS, activity=jnp.full((2, SIZE), bad))
        for name in ("moment", "shell", "batches", "core"):
            np.testing.assert_array_equal(getattr(after.layers[""], name), getattr(state.layers[""], name))
    again = neuroml.consolidate(neuroml.consolidate(state, ZEROS), ZEROS)
    np.testing.assert_array_equal(again.layers[""].core, neuroml.consolidate(state, ZEROS).layers[""].core)


@pytest.mark.parametrize(
    ("name", "value"), [("strength", 1.5), ("scale", 0.0), ("decorrelation", 1.0), ("decay", 1.0), ("every", 0)]
)
def test_numbers_that_mean_nothing_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name}={value}"):
        neuroml.condensate_metric(**{name: value})
