"""Vital signs of networks whose ailments are known."""

import jax
import jax.numpy as jnp
import numpy as np

import neuroml
from neuroml.vitals import effective_rank, vitals

NETWORK = neuroml.mlp(6, [10, 20], 3)


def signs(change):
    params, _ = NETWORK.init(jax.random.key(0))
    params = change(params)
    x = jax.random.normal(jax.random.key(1), (200, 6))
    return vitals(NETWORK.wiring(params), params, NETWORK.capture(params, {}, x)[2])


def silence(params, share):
    bias = params["layers"][1]["bias"]
    params["layers"][1]["bias"] = bias.at[: int(share * bias.size)].set(-1e3)
    return params


def test_dead_units_are_counted_over_all_populations():
    assert float(signs(lambda params: params)["dead units"]) == 0
    np.testing.assert_allclose(signs(lambda params: silence(params, 0.5))["dead units"], 10 / 30)


def test_a_quiet_unit_is_dormant_and_not_dead():
    def quieten(params):
        for name in ("kernel", "bias"):
            params["layers"][1][name] = params["layers"][1][name].at[..., :5].multiply(1e-3)
        return params

    found = signs(quieten)
    assert float(found["dead units"]) == 0 and float(found["dormant units"]) >= 5 / 30


def test_effective_rank_is_between_one_and_the_rank():
    rows = jax.random.normal(jax.random.key(0), (50, 4)) @ jax.random.normal(jax.random.key(1), (4, 30))
    assert 2 < float(effective_rank(rows)) <= 4.001
    assert float(effective_rank(jnp.zeros((5, 3)))) == 0
    values = np.linalg.svd(np.asarray(rows), compute_uv=False)
    share = values[:4] / values.sum()
    np.testing.assert_allclose(effective_rank(rows), np.exp(-(share * np.log(share)).sum()), rtol=1e-3)


def test_weight_size_is_the_root_mean_square():
    found = signs(lambda params: jax.tree.map(lambda leaf: jnp.full(leaf.shape, -2.0), params))
    np.testing.assert_allclose(found["weight size"], 2.0, rtol=1e-6)
