"""The double well: where its threshold is, and that it remembers on which side it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml import double_well

BARRIERS = (0.5, 1.0, 2.0)


def settled(occupancy, share, barrier):
    """Returns where an occupancy ends under `share` times the spinodal, after a time that is long for any barrier."""
    drive = share * double_well.spinodal(barrier)
    return float(double_well.relax(occupancy, drive, barrier, steps=400, step_size=0.25 / barrier))


def test_the_spinodal_is_the_largest_slope_between_the_wells():
    occupancy = np.linspace(0, 0.5, 100_001)
    for barrier in BARRIERS:
        slope = 2 * barrier * occupancy * (1 - occupancy) * (1 - 2 * occupancy)
        np.testing.assert_allclose(double_well.spinodal(barrier), slope.max(), rtol=1e-6)
    np.testing.assert_allclose(double_well.spinodal(1.0), 0.19245, rtol=1e-5)


def test_a_step_descends_the_energy_and_is_clipped():
    energy = lambda occupancy, drive: 2.0 * occupancy**2 * (1 - occupancy) ** 2 - drive * occupancy
    at, drive = jnp.array([0.1, 0.4, 0.9]), jnp.array([0.3, -0.2, 0.0])
    expected = at - 0.1 * jax.vmap(jax.grad(energy))(at, drive)
    np.testing.assert_allclose(double_well.relax(at, drive, 2.0, steps=1, step_size=0.1), expected, rtol=1e-5)
    ends = double_well.relax(jnp.array([0.0, 1.0]), jnp.array([-1.0, 1.0]), 1.0, steps=1)
    assert ends.tolist() == [0, 1]


@pytest.mark.parametrize("barrier", BARRIERS)
def test_it_condenses_beyond_the_spinodal_only(barrier):
    assert settled(0.0, 1.1, barrier) == 1
    assert settled(0.0, 0.9, barrier) < 0.2  # a little, within the lower well
    assert settled(settled(0.0, 0.9, barrier), 0.0, barrier) < 1e-6  # and nothing stays of it


@pytest.mark.parametrize("barrier", BARRIERS)
def test_what_condensed_stays_until_it_is_driven_out(barrier):
    assert settled(1.0, 0.0, barrier) == 1
    assert settled(1.0, -0.9, barrier) > 0.8
    assert settled(settled(1.0, -0.9, barrier), 0.0, barrier) > 1 - 1e-6
    assert settled(1.0, -1.1, barrier) == 0


def test_the_default_steps_are_enough_at_a_tenth_beyond_the_spinodal():
    drive = 1.1 * double_well.spinodal(1.0)
    assert double_well.relax(0.0, drive, 1.0) == 1
    assert double_well.relax(1.0, -drive, 1.0) == 0


def test_without_a_barrier_nothing_holds_against_the_drive():
    assert double_well.relax(1.0, -0.1, 0.0) == 0
    assert double_well.relax(0.3, 0.0, 0.0) == jnp.float32(0.3)


def test_it_compiles_broadcasts_and_maps():
    occupancy, drive = jnp.zeros((3, 1)), jnp.array([0.1, 0.5])
    out = jax.jit(double_well.relax)(occupancy, drive, 1.0)
    assert out.shape == (3, 2)
    assert (out > 0.5).tolist() == [[False, True]] * 3
    each = jax.vmap(lambda barrier: double_well.relax(0.0, 0.25, barrier))(jnp.array([1.0, 2.0]))
    assert (each > 0.5).tolist() == [True, False]  # spinodals 0.19 and 0.38
