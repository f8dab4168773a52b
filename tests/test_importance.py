"""Fisher diagonals and sensitivities against loops over single examples, and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuroml
from neuroml.errors import MissingWordError, UsageError
from neuroml.losses import mask_outputs

N, INPUTS, CLASSES = 7, 4, 3
X = jax.random.normal(jax.random.key(1), (N, INPUTS))
Y = jnp.array([0, 2, 1, 1, 0, 2, 2])


def weights(hidden=5):
    first, second = jax.random.split(jax.random.key(2))
    return {"in": jax.random.normal(first, (INPUTS, hidden)), "out": jax.random.normal(second, (hidden, CLASSES))}


def mlp(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def softmax_regression(params, x):
    return x @ params["kernel"] + params["bias"]


REGRESSION = {"kernel": jax.random.normal(jax.random.key(3), (INPUTS, CLASSES)), "bias": jnp.array([0.5, -0.5, 0.0])}
P = np.asarray(jax.nn.softmax(softmax_regression(REGRESSION, X)))


def close(tree, expected, rtol=1e-4, atol=1e-6):
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tree))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), tree, expected)


def brute_force(weighted_labels):
    """Returns mean_x sum_y weight * (d log p(y | x) / d params)^2, one jax.grad for each x and y."""
    slope = jax.jit(jax.grad(lambda params, x, y: jax.nn.log_softmax(mlp(params, x[None])[0])[y]))
    total = jax.tree.map(np.zeros_like, weights())
    for x, labels in zip(X, weighted_labels, strict=True):
        for y, weight in labels:
            total = jax.tree.map(lambda t, g, w=weight: t + w * np.asarray(g) ** 2 / N, total, slope(weights(), x, y))
    return total


@pytest.mark.parametrize("labels", ["all", "sample", "true", "true_weighted", "predicted"])
def test_fisher_is_the_mean_of_squared_gradients_of_single_examples(labels, key):
    logits = mlp(weights(), X)
    given = {
        "all": [list(enumerate(p)) for p in np.asarray(jax.nn.softmax(logits))],
        "sample": [[(int(y), 1.0)] for y in jax.random.categorical(key, logits)],
        "true": [[(int(y), 1.0)] for y in Y],
        "true_weighted": [[(int(y), float(p[y]))] for y, p in zip(Y, jax.nn.softmax(logits), strict=True)],
        "predicted": [[(int(y), 1.0)] for y in logits.argmax(1)],
    }[labels]
    close(neuroml.fisher(mlp, weights(), X, labels=labels, targets=Y, key=key, chunk=4), brute_force(given))


def test_fisher_of_softmax_regression():
    """d log p(y) / d kernel_ij = x_i (1[y = j] - p_j); under the model its mean square is x_i^2 p_j (1 - p_j)."""
    exact = {"kernel": np.mean(X[:, :, None] ** 2 * (P * (1 - P))[:, None, :], 0), "bias": np.mean(P * (1 - P), 0)}
    close(neuroml.fisher(softmax_regression, REGRESSION, X), exact)
    error = np.eye(CLASSES)[Y] - P
    empirical = {"kernel": np.mean(X[:, :, None] ** 2 * error[:, None, :] ** 2, 0), "bias": np.mean(error**2, 0)}
    close(neuroml.fisher(softmax_regression, REGRESSION, X, labels="true", targets=Y), empirical)


def test_sampled_labels_are_an_unbiased_estimate_of_all_labels(key):
    """Each of 14 weights within 5 standard errors of the mean over 2000 keys; a wrong label misses by far."""
    draw = lambda k: neuroml.fisher(softmax_regression, REGRESSION, X, labels="sample", key=k)
    draws = jax.jit(jax.vmap(draw))(jax.random.split(key, 2000))
    exact = neuroml.fisher(softmax_regression, REGRESSION, X)
    z = jax.tree.map(lambda d, e: (d.mean(0) - e) / (d.std(0) / np.sqrt(2000)), draws, exact)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(z)) < 5
    wrong = neuroml.fisher(softmax_regression, REGRESSION, X, labels="predicted")
    miss = jax.tree.map(lambda d, w: (d.mean(0) - w) / (d.std(0) / np.sqrt(2000)), draws, wrong)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(miss)) > 20


def test_it_is_the_mean_of_squares_not_the_square_of_the_mean():
    """Each of n examples moves a weight of its own: the square of the mean gradient is n times too small."""
    n, zeros = 4, jnp.zeros(4)
    predict = lambda w, x: jnp.stack([x @ w, jnp.zeros(x.shape[0])], axis=1)
    each = neuroml.fisher(predict, zeros, jnp.eye(n), labels="true", targets=jnp.zeros(n, int))
    batch = jax.grad(lambda w: -jax.nn.log_softmax(predict(w, jnp.eye(n)))[:, 0].mean())(zeros) ** 2
    np.testing.assert_allclose(each, np.full(n, 0.5**2 / n))
    np.testing.assert_allclose(each, n * batch)
    # and two examples that pull in opposite directions do not cancel
    opposite = jnp.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    both = neuroml.fisher(predict, zeros, opposite, labels="true", targets=Y[:2] * 0)
    assert both.tolist() == [0.25, 0, 0, 0]


def test_chunks_that_do_not_divide_the_examples_change_nothing():
    for estimate, terms in ((neuroml.fisher, N * CLASSES), (neuroml.sensitivity, N)):
        whole = estimate(mlp, weights(), X, chunk=terms)
        for chunk in (1, 5, 1000):
            close(estimate(mlp, weights(), X, chunk=chunk), whole, rtol=1e-5)


def largest_array(function, *args):
    """Returns the size of the largest array that a traced function makes on its way."""

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (int(np.prod(out.aval.shape)) for out in equation.outvars)
            for inner in jax.tree.leaves(list(equation.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                yield from sizes(inner) if hasattr(inner, "eqns") else ()

    return max(sizes(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.mark.parametrize("estimate", [neuroml.fisher, neuroml.sensitivity])
def test_memory_is_bounded_by_a_chunk_of_gradients(estimate):
    n, chunk, params = 64, 4, weights(hidden=100)
    x = jnp.zeros((n, INPUTS))
    largest = max(leaf.size for leaf in jax.tree.leaves(params))
    bounded = largest_array(lambda p, x: estimate(mlp, p, x, chunk=chunk), params, x)
    assert chunk * largest <= bounded <= n * 100  # the hidden layer on all inputs; gradients would be n * 400
    assert largest_array(lambda p, x: estimate(mlp, p, x, chunk=n), params, x) >= n * largest


def test_bfloat16_weights_give_a_float32_fisher():
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), REGRESSION)
    close(neuroml.fisher(softmax_regression, half, X), neuroml.fisher(softmax_regression, REGRESSION, X), 0.05, 0.002)


def test_labels_are_drawn_in_float32(key):
    """Noise drawn in bfloat16 is coarse: a label of probability .0025 would come at a rate of .0017."""
    n, predict = 300_000, lambda w, x: jnp.stack([x * w, 0 * x], axis=1)
    w, x = jnp.bfloat16(-6.0), jnp.ones(n, jnp.bfloat16)
    drawn = neuroml.fisher(predict, w, x, labels="sample", key=key, chunk=n)
    p = 1 / (1 + np.exp(6.0))  # the gradient is 1 - p for the rare label, -p for the other
    assert abs(drawn - p * (1 - p)) < 5 * np.sqrt(p * (1 - p) / n) + 0.01 * p


def test_inputs_may_be_a_tree():
    predict = lambda params, batch: mlp(params, batch["x"] * batch["scale"][:, None])
    batch = {"x": X / 2, "scale": jnp.full(N, 2.0)}
    close(neuroml.fisher(predict, weights(), batch), neuroml.fisher(mlp, weights(), X), rtol=1e-5)
    close(neuroml.sensitivity(predict, weights(), batch), neuroml.sensitivity(mlp, weights(), X), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("estimate", [neuroml.fisher, neuroml.sensitivity])
def test_outputs_that_are_switched_off_contribute_nothing(estimate, dtype):
    active = jnp.array([True, False, True])
    params = jax.tree.map(lambda p: p.astype(dtype), REGRESSION)
    masked = estimate(lambda p, x: mask_outputs(softmax_regression(p, x), active), params, X.astype(dtype))
    without = jax.tree.map(lambda p: p[..., active], params)
    expected = estimate(softmax_regression, without, X.astype(dtype))
    close(jax.tree.map(lambda leaf: leaf[..., active], masked), expected, rtol=1e-2 if dtype == jnp.bfloat16 else 1e-5)
    assert all((leaf[..., 1] == 0).all() for leaf in jax.tree.leaves(masked))


def test_sensitivity_is_the_mean_absolute_gradient_of_the_squared_outputs():
    slope = jax.jit(jax.grad(lambda params, x: jnp.sum(mlp(params, x[None]) ** 2)))
    each = [slope(weights(), x) for x in X]
    expected = jax.tree.map(lambda *g: np.mean(np.abs(g), axis=0), *each)
    close(neuroml.sensitivity(mlp, weights(), X, chunk=4), expected)


def test_targets_may_be_traced_or_stand_outside_of_what_is_traced():
    expected = neuroml.fisher(mlp, weights(), X, labels="true", targets=Y)
    estimate = lambda targets: neuroml.fisher(mlp, weights(), X, labels="true", targets=targets)
    close(jax.jit(estimate)(Y), expected)
    close(jax.jit(lambda: estimate(Y))(), expected)


def test_a_mistake_says_what_is_missing():
    with pytest.raises(UsageError, match="'exact'.* Known: all, predicted, sample, true"):
        neuroml.fisher(mlp, weights(), X, labels="exact")
    with pytest.raises(MissingWordError, match="`key=`"):
        neuroml.fisher(mlp, weights(), X, labels="sample")
    with pytest.raises(MissingWordError, match="`targets=`"):
        neuroml.fisher(mlp, weights(), X, labels="true")
    with pytest.raises(UsageError, match=r"targets have shape \(3,\), and there are 7 inputs"):
        neuroml.fisher(mlp, weights(), X, labels="true", targets=Y[:3])
    for wrong in (-1, CLASSES):
        with pytest.raises(UsageError, match=r"targets are in 0\.\.2, and these range from"):
            neuroml.fisher(mlp, weights(), X, labels="true", targets=Y.at[0].set(wrong))
    for estimate in (neuroml.fisher, neuroml.sensitivity):
        with pytest.raises(UsageError, match="no examples"):
            estimate(mlp, weights(), X[:0])
        with pytest.raises(UsageError, match="chunk=0"):
            estimate(mlp, weights(), X, chunk=0)
