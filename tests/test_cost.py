"""What a function computes is counted by hand; what an experiment computes and holds is charged."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
import toy
from toy_experiments import DATA, OUTPUTS, PIXELS, price

import neuroml
from neuroml import cost

# One process, so that what takes long is made once.
pytestmark = pytest.mark.xdist_group("experiments")


# --- of functions ---

A, B, V, S = jnp.zeros((3, 4)), jnp.zeros((4, 5)), jnp.zeros(4), jnp.eye(6)
solve, cho_factor, cho_solve = jax.lax.linalg.triangular_solve, jax.scipy.linalg.cho_factor, jax.scipy.linalg.cho_solve
PRODUCT = 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    "function, arguments, wanted",
    [
        (lambda a, b: jnp.tanh(a @ b) + 1, (A, B), PRODUCT),
        (lambda v: v @ v, (V,), 2 * 4),
        (lambda a, b: jnp.einsum("gij,gjk->gik", a, b), (jnp.zeros((7, 3, 4)), jnp.zeros((7, 4, 5))), 7 * PRODUCT),
        (jax.vmap(lambda a, b: a @ b, (0, None)), (jnp.zeros((7, 3, 4)), B), 7 * PRODUCT),
        (lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0, length=6), (A, B), 6 * PRODUCT),
        (lambda a, b: jax.lax.map(lambda row: row @ b, a), (A, B), PRODUCT),
        (lambda a, b: jax.lax.fori_loop(0, 6, lambda i, c: c + a @ b, jnp.zeros((3, 5))), (A, B), 6 * PRODUCT),
        (lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a @ b + (a @ b) ** 2), (A, B), 2 * PRODUCT),
        (lambda a, b: jax.jit(jax.checkpoint(lambda a, b: a @ b))(a, b), (A, B), PRODUCT),
        (jax.grad(lambda a, b: jnp.sum((a @ b) ** 2), argnums=(0, 1)), (A, B), 3 * PRODUCT),
        (lambda a: jnp.sin(a).sum(), (A,), 0),
        (jax.lax.linalg.cholesky, (S,), 6**3 / 3),
        (jax.vmap(jnp.linalg.cholesky), (jnp.zeros((7, 6, 6)),), 7 * 6**3 / 3),
        (lambda s, b: solve(s, b, left_side=True), (S, jnp.zeros((6, 5))), 5 * 6**2),
        (lambda s, b: solve(s, b, left_side=False), (S, jnp.zeros((5, 6))), 5 * 6**2),
        (lambda s, b: solve(s, b, left_side=True), (jnp.zeros((7, 6, 6)), jnp.zeros((7, 6, 5))), 7 * 5 * 6**2),
        (lambda s, v: jax.scipy.linalg.solve_triangular(s, v), (S, jnp.zeros(6)), 6**2),
        (lambda s, b: cho_solve(cho_factor(s), b), (S, jnp.zeros((6, 5))), 6**3 / 3 + 2 * 5 * 6**2),
    ],
)
def test_flops_of_small_functions(function, arguments, wanted):
    assert cost.flops(function, *arguments) == wanted


def test_flops_of_scans_in_scans():
    inner = lambda c, _: (c, A @ B)
    outer = lambda c, _: (c, jax.lax.scan(inner, 0, length=3))
    assert cost.flops(lambda: jax.lax.scan(outer, 0, length=5)) == 15 * PRODUCT


def test_flops_of_a_convolutional_network():
    network, n = neuroml.cnn((8, 8, 3), channels=(2, 5), hidden=(7,), outputs=4), 6
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    images = jnp.zeros((n, 8, 8, 3))
    apply = lambda params, x: network.apply(params, {}, x)[0]
    first, second, dense = 2 * n * 64 * 9 * 3 * 2, 2 * n * 16 * 9 * 2 * 5, 2 * n * (2 * 2 * 5 * 7 + 7 * 4)
    assert cost.flops(apply, params, images) == first + second + dense
    # Backwards: the weights' gradients cost what the layer costs, the inputs' too, but the images need none.
    backward = cost.flops(jax.grad(lambda p, x: apply(p, x).sum()), params, images) - (first + second + dense)
    assert backward == first + 2 * second + 2 * dense


# --- of experiments ---


def dense_flops(n, hidden=6):
    """Forwards, and a training step: two more products a layer, but for the gradient of the images."""
    first, head = 2 * n * PIXELS * hidden, 2 * n * hidden * OUTPUTS
    return first + head, 2 * first + 3 * head


def test_flops_of_training():
    assert price(toy.experiment(iterations=7))[1] == 3 * 7 * dense_flops(4)[1]
    assert price(toy.experiment("joint", iterations=7))[1] == 7 * dense_flops(4)[1]
    assert price(toy.experiment(epochs=2))[1] == math.ceil(39 * 2 / 4) * dense_flops(4)[1]


def test_every_phase_takes_whole_batches():
    alike = dataclasses.replace(toy.experiment(epochs=5), maker=neuroml.streams.permuted(3))
    assert price(alike)[1] == 3 * math.ceil(39 * 5 / 4) * dense_flops(4)[1]


def test_flops_of_replay_and_of_the_fisher_information():
    assert price(toy.experiment("er", iterations=7))[1] == 2 * 3 * 7 * dense_flops(4)[1]
    gradients = 8 * OUTPUTS  # one for each of 8 samples and each output, on CPUs one at a time
    weighted_sum = 2 * gradients * (PIXELS * 6 + 6 + 6 * OUTPUTS + OUTPUTS)
    fisher = dense_flops(8)[0] + dense_flops(gradients)[1] + weighted_sum
    assert price(toy.experiment("ewc", iterations=7))[1] == 3 * (7 * dense_flops(4)[1] + fisher)


@pytest.mark.parametrize("method", ["naive", "ewc", "si", "mas", "er", "si_on_surprise"])
def test_bytes_are_those_of_the_real_state(method):
    experiment = toy.experiment(method)
    state = experiment.begin(jax.random.key(0), toy.numbers_of(experiment), DATA)[1]
    assert price(experiment)[0] == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    weights = PIXELS * 6 + 6 + 6 * OUTPUTS + OUTPUTS
    assert price(experiment)[0] >= 3 * 4 * weights  # the weights, and two means of Adam


def test_er_pays_for_what_it_stores():
    sizes = [price(dataclasses.replace(toy.experiment("er"), options={"capacity": c}))[0] for c in (100, 101)]
    assert sizes[1] - sizes[0] == PIXELS + 4 + 4 + OUTPUTS + 4  # uint8 image, label, task, active outputs, stamp
