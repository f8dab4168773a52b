"""Running means of rules: a first batch that is not finite is as if it had never come."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import WIRING, init_params

import neuroml

ONES = jax.tree.map(jnp.ones_like, init_params())
OF_ANSWERS = {
    "bcm": (neuroml.bcm, lambda state: [state.threshold["hidden"]]),
    "intrinsic_plasticity": (neuroml.intrinsic_plasticity, lambda state: [state.firing["hidden"]]),
    "synaptic_scaling": (neuroml.synaptic_scaling, lambda state: [state.mean["hidden"]]),
    "schwann": (neuroml.schwann, lambda state: [state.answers["hidden"]]),
    "maturity_lock": (neuroml.maturity_lock, lambda state: [state.nets["hidden"].fast, state.nets["hidden"].slow]),
    "growth": (neuroml.growth, lambda state: [state.neurons["hidden"].utility]),
}
OF_LOSSES = {
    "three_factor": (lambda _: neuroml.three_factor(), lambda state: [state.mean]),
    "surprise_rate": (lambda _: neuroml.surprise_rate(), lambda state: [state.fast, state.slow]),
    "maturity_lock": (neuroml.maturity_lock, lambda state: [state.fast, state.slow]),
    "growth": (neuroml.growth, lambda state: [state.fast, state.slow]),
}


def after(tx, answers, losses=(1.0, 1.0, 1.0), steps=(1.0, 1.0, 1.0)) -> Any:
    """Returns the state after some updates; `answers` are those of the first neuron, all others answer 1."""
    params = init_params()
    state = tx.init(params)
    for answer, loss, size in zip(answers, losses, steps, strict=False):
        activity = {"hidden": jnp.ones((1, 4)), "head": jnp.ones((1, 5)).at[0, 0].set(answer)}
        updates = jax.tree.map(lambda leaf, size=size: size * leaf, ONES)
        words = {"activity": activity, "value": jnp.float32(loss), "key": jax.random.key(0)}
        _, state = tx.update(updates, state, params, **words)
    return state


# An infinite answer is above 0: to intrinsic plasticity it is as good as any other.
WRONG = [(name, wrong) for name in OF_ANSWERS for wrong in (jnp.nan, jnp.inf)]
WRONG.remove(("intrinsic_plasticity", jnp.inf))


@pytest.mark.parametrize(("name", "wrong"), WRONG)
def test_first_answers_that_are_not_finite_do_not_count(name, wrong):
    make, means = OF_ANSWERS[name]
    found, expected = (means(after(make(WIRING), answers)) for answers in ((wrong, 1.0, -3.0), (1.0, -3.0)))
    for one, other in zip(found, expected, strict=True):
        assert one[0] == other[0] and other[0] != 0


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("name", OF_LOSSES)
def test_first_losses_that_are_not_finite_do_not_count(name, wrong):
    make, means = OF_LOSSES[name]
    found, expected = (means(after(make(WIRING), [1.0] * 3, losses)) for losses in ((wrong, 1.0, 3.0), (1.0, 3.0)))
    np.testing.assert_array_equal(found, expected)
    assert all(mean == 2 for mean in found)


def test_first_steps_that_are_not_finite_do_not_count():
    pull = lambda *steps: after(neuroml.growth(WIRING), [1.0] * 3, steps=steps).neurons["hidden"].pull
    assert pull(jnp.nan, 1.0, 3.0) == pull(1.0, 3.0) == 6  # to each of three readers
