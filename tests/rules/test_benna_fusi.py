"""The cascade against powers of a matrix, what it conserves, and how slowly it forgets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml.errors import UsageError


def matrix(depth, strength):
    """One update of all beakers without a step, as a matrix: capacities 2^(k-1), tubes 2^-(k+2) from k to k + 1."""
    change = np.zeros((depth, depth))
    for k in range(depth):
        for other, tube in ((k - 1, 2.0 ** -(k + 2)), (k + 1, 2.0 ** -(k + 3))):
            if 0 <= other < depth:
                change[k, other] += tube / 2**k
                change[k, k] -= tube / 2**k
    return np.eye(depth) + strength * change


def run(tx, steps, first=1.0):
    """The weight after one step and then only flow; and all beakers."""
    update = jax.jit(tx.update)
    w = jnp.float32(0.0)
    state, weights = tx.init(w), []
    for i in range(steps):
        step, state = update(jnp.float32(first if i == 0 else 0.0), state, w)
        w = w + step
        weights.append(float(w))
    return weights, [w, *state.beakers]


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_flow_is_that_of_the_matrix(depth, strength):
    _, beakers = run(neuroml.benna_fusi(strength, depth=depth), 30)
    expected = np.linalg.matrix_power(matrix(depth, strength), 29) @ np.eye(depth)[0]
    np.testing.assert_allclose(np.array(beakers), expected, rtol=1e-4, atol=1e-6)


def test_nothing_is_lost():
    _, beakers = run(neuroml.benna_fusi(depth=5), 200)
    assert np.dot(np.array(beakers), 2.0 ** np.arange(5)) == pytest.approx(1.0, rel=1e-4)


def test_more_beakers_forget_more_slowly_and_by_a_power_not_at_once():
    """After n updates about n^-1/2 is left; a single leak of the same first rate has forgotten all."""
    weights, _ = run(neuroml.benna_fusi(depth=8), 400)
    slope = np.log(weights[399] / weights[49]) / np.log(400 / 50)
    assert -0.75 < slope < -0.3
    assert weights[399] > 100 * (1 - 0.125) ** 399


def test_a_weight_is_drawn_back_to_where_it_has_been_for_long():
    tx = neuroml.benna_fusi(depth=3)
    weights, _ = run(tx, 300)
    assert 0 < weights[-1] < 0.2 and all(later <= earlier for earlier, later in zip(weights, weights[1:], strict=False))


def test_bad_input_is_named():
    with pytest.raises(UsageError, match="depth=1"):
        neuroml.benna_fusi(depth=1)
