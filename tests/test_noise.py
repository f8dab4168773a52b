"""Noise from a table must be what noise drawn anew would be: normal, white, without ties between weights or steps."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from neuroml import noise

KEY = jax.random.key(0)
TREE = {"a": jnp.zeros((300, 100)), "b": jnp.zeros(300), "c": jnp.zeros(())}
SMALL = {"a": jnp.zeros((10, 5)), "b": jnp.zeros(10), "c": jnp.zeros(())}


def test_it_has_the_shapes_of_the_tree_in_float32():
    found = noise.noise_like(KEY, jax.tree.map(lambda x: x.astype(jnp.bfloat16), TREE))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: (x.shape, jnp.float32), TREE)


def test_the_numbers_of_one_step_are_normal():
    assert stats.kstest(noise.noise_like(KEY, TREE)["a"].ravel(), "norm").pvalue > 0.01


def test_the_numbers_that_one_weight_sees_are_normal_and_white():
    keys = jax.random.split(KEY, 4000)
    series = np.asarray(jax.vmap(lambda key: noise.noise_like(key, SMALL)["a"][7, 3])(keys))
    assert stats.kstest(series, "norm").pvalue > 0.01
    assert abs(np.corrcoef(series[:-1], series[1:])[0, 1]) < 4 / len(series) ** 0.5


def test_weights_and_arrays_are_not_tied():
    keys = jax.random.split(KEY, 4000)
    pick = lambda tree: jnp.stack([tree["a"][0, 0], tree["a"][0, 1], tree["b"][0], tree["c"]])
    seen = np.asarray(jax.vmap(lambda key: pick(noise.noise_like(key, SMALL)))(keys))
    assert np.abs(np.corrcoef(seen.T) - np.eye(4)).max() < 4 / len(seen) ** 0.5


def test_an_array_that_the_table_cannot_hold_gets_numbers_of_its_own(monkeypatch):
    monkeypatch.setattr(noise, "LARGEST", 10)
    np.testing.assert_array_equal(
        noise.noise_like(KEY, [jnp.zeros(11)])[0], jax.random.normal(jax.random.split(KEY, 1)[0], (11,))
    )
