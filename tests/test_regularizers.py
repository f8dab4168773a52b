"""Regularizers of activity: their equations in numpy, their gradients at the hard places, and what descends them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml import regularizers
from neuroml.errors import UsageError

KEY = jax.random.key(0)
ACTIVITY = {"layers": {0: jax.random.normal(KEY, (12, 6)), 1: jax.random.normal(KEY, (3, 2, 2, 5))}, "head": KEY}
ACTIVITY["head"] = jax.nn.relu(jax.random.normal(jax.random.fold_in(KEY, 1), (12, 4)))
PATHS = {"layers/0": ACTIVITY["layers"][0], "layers/1": ACTIVITY["layers"][1], "head": ACTIVITY["head"]}

ALL = {
    "activity_rate": lambda activity, **words: regularizers.activity_rate(activity, 0.3, **words),
    "sparsity": regularizers.sparsity,
    "effective_rank": regularizers.effective_rank,
}
each = pytest.mark.parametrize("name", ALL)


def numpy_version(name, rows):
    rows = np.asarray(rows, np.float64).reshape(-1, rows.shape[-1])
    if name == "activity_rate":
        return ((np.abs(rows).mean(0) - 0.3) ** 2).mean()
    if name == "sparsity":
        some = rows[(rows != 0).any(1)]
        return (np.abs(some).mean(1) ** 2 / (some**2).mean(1)).sum() / len(rows)
    values = np.linalg.svd(rows, compute_uv=False)
    share = values[values > 0] / values.sum()
    return -np.exp(-(share * np.log(share)).sum())


@each
@pytest.mark.parametrize("layers", [None, ["head"], ["layers/1", "head"]])
def test_it_is_its_equation(name, layers):
    expected = np.mean([numpy_version(name, PATHS[home]) for home in layers or PATHS])
    np.testing.assert_allclose(ALL[name](ACTIVITY, layers=layers), expected, rtol=1e-5)


@each
def test_its_gradient_is_that_of_finite_differences(name):
    rows, direction = PATHS["layers/0"], jax.random.normal(jax.random.fold_in(KEY, 2), (12, 6))
    slope = jnp.vdot(jax.grad(ALL[name])(rows), direction)
    ahead, behind = (numpy_version(name, np.asarray(rows) + step * np.asarray(direction)) for step in (1e-4, -1e-4))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-4, rtol=1e-3)


@each
@pytest.mark.parametrize(
    "rows",
    [np.zeros((3, 4)), np.eye(4), np.ones((5, 3)), np.diag([1.0, 1e-30, 0.0]), 1e-15 * np.eye(2), 1e15 * np.eye(2)],
    ids=["silent", "equal", "rank one", "tiny and zero", "small", "large"],
)
def test_values_and_gradients_are_finite_at_the_hard_places(name, rows):
    value, gradient = jax.value_and_grad(ALL[name])(jnp.asarray(rows, jnp.float32))
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    if not rows.any() and name != "activity_rate":
        assert value == 0 and not gradient.any()


@pytest.mark.parametrize("name", ["sparsity", "effective_rank"])
def test_the_size_of_answers_does_not_matter(name):
    np.testing.assert_allclose(ALL[name](ACTIVITY), ALL[name](jax.tree.map(lambda h: 7 * h, ACTIVITY)), rtol=1e-5)


@each
def test_a_network_can_descend_it(name):
    network = neuroml.mlp(4, [16], 2)
    params, _ = network.init(KEY)
    x = jax.random.normal(KEY, (32, 4))
    loss = lambda params: ALL[name](network.capture(params, {}, x)[2], layers=["head"])
    start, slope = loss(params), jax.jit(jax.grad(loss))
    for _ in range(100):
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, slope(params))
    assert loss(params) < start - 0.02 * abs(start)


@each
def test_what_cannot_be_measured_raises(name):
    with pytest.raises(UsageError, match="unknown layer 'heads'.*Did you mean 'head'"):
        ALL[name](ACTIVITY, layers=["heads"])
    with pytest.raises(UsageError, match="no layer to measure"):
        ALL[name]({})
    with pytest.raises(UsageError, match="no layer to measure"):
        ALL[name](ACTIVITY, layers=[])
    with pytest.raises(UsageError, match=r"give layers=\['head'\]"):
        ALL[name](ACTIVITY, layers="head")


def test_the_control_draws_the_mean_of_a_layer_to_the_target():
    rows = PATHS["layers/0"]
    measure = lambda pooled: jax.value_and_grad(lambda h: regularizers.activity_rate(h, 0.3, pooled=pooled))(rows)
    (_, own), (value, control) = measure(False), measure(True)
    away = np.abs(rows).mean() - 0.3
    np.testing.assert_allclose(value, away**2, rtol=1e-5)
    np.testing.assert_allclose(control, 2 * away * np.sign(rows) / rows.size, rtol=1e-4)
    assert not np.allclose(own, control, rtol=0.1)


def test_a_negative_mean_answer_is_no_target():
    with pytest.raises(UsageError, match=r"a `target` in \[0, inf\), but target=-1.0"):
        regularizers.activity_rate(ACTIVITY, -1.0)
