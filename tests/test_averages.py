"""Averages: what is not finite is passed over, and where all is finite nothing changes by a bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml import averages

VALUES = jax.random.normal(jax.random.key(0), (40, 3))


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_running_mean_is_that_of_the_finite_values_alone(wrong):
    """Entry 0 misses the first values, entry 1 some later ones, entry 2 none."""
    missing = np.zeros(VALUES.shape, bool)
    missing[:3, 0] = missing[7:9, 1] = True
    mean = jnp.zeros(3)
    count = averages.begin(mean)
    for row in jnp.where(missing, wrong, VALUES):
        mean, count = averages.after(mean, count, row, 0.9)
    for entry in range(3):
        expected, met = 0.0, VALUES[~missing[:, entry], entry]
        for number, value in enumerate(met):
            expected += max(0.1, 1 / (number + 1)) * (value - expected)
        np.testing.assert_allclose(mean[entry], expected, rtol=1e-4, atol=1e-5)
        assert count[entry] == len(met)


def test_the_mean_of_finite_values_is_the_mean_to_the_bit_where_all_are():
    for row in VALUES.T:
        assert averages.of_finite(row) == row.mean()
    assert averages.of_finite(jnp.array([jnp.nan, jnp.inf])) == 0


def test_old_entries_stay_where_the_new_ones_are_not_finite():
    old, new = {"a": jnp.arange(3.0)}, {"a": jnp.array([jnp.nan, 5.0, -jnp.inf])}
    assert averages.where_finite(new, old)["a"].tolist() == [0.0, 5.0, 2.0]
