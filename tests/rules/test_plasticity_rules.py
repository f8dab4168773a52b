"""L2 Init, weight clipping, shrink and perturb, UPGD and decorrelation against their equations in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import activity_of, batch_of, init_params, loss, words_of

import neuroml
from neuroml.errors import UsageError
from neuroml.noise import noise_like


def moved(params, seed=5):
    noise = noise_like(jax.random.key(seed), params)
    return jax.tree.map(lambda p, n: p + n, params, noise)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


ZERO = jax.tree.map(jnp.zeros_like, init_params())


# --- L2 Init ---


def test_l2_init_draws_each_weight_back_to_its_own_start():
    params, rule = init_params(), neuroml.l2_init(0.3)
    state, away = rule.init(params), moved(params)
    step, _ = rule.update(ZERO, state, away)
    np.testing.assert_allclose(flat(step), 0.3 * (flat(away) - flat(params)), rtol=1e-5)
    np.testing.assert_allclose(state.penalty(away), 0.15 * ((flat(away) - flat(params)) ** 2).sum(), rtol=1e-5)


def test_the_wasserstein_form_holds_the_distribution_and_not_the_places():
    params, rule = init_params(), neuroml.l2_init(0.3, form="wasserstein")
    state = rule.init(params)
    shuffled = jax.tree.map(lambda leaf: jnp.flip(leaf), params)
    assert float(state.penalty(shuffled)) == 0 < float(neuroml.l2_init(0.3).init(params).penalty(shuffled))
    away = moved(params)
    expected = sum(
        ((np.sort(np.ravel(a)) - np.sort(np.ravel(p))) ** 2).sum()
        for a, p in zip(jax.tree.leaves(away), jax.tree.leaves(params), strict=True)
    )
    np.testing.assert_allclose(state.penalty(away), 0.15 * expected, rtol=1e-5)


def test_the_control_draws_each_weight_to_the_start_of_another_one():
    params, rule = {"kernel": jax.random.normal(jax.random.key(0), (6, 5))}, neuroml.l2_init(0.3, form="shuffled")
    initial = rule.init(params).initial["kernel"]
    np.testing.assert_array_equal(np.sort(initial, axis=None), np.sort(params["kernel"], axis=None))
    assert (initial != params["kernel"]).all()
    away = moved(params)
    step, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), away)
    np.testing.assert_allclose(step["kernel"], 0.3 * (away["kernel"] - initial), rtol=1e-5)


def test_the_control_without_an_anchor_is_plain_decay():
    params, rule = init_params(), neuroml.l2_init(0.3, form="zero")
    step, _ = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), moved(params))
    jax.tree.map(lambda new, w: np.testing.assert_allclose(new, 1 + 0.3 * w, rtol=1e-6), step, moved(params))


def test_an_unknown_form_is_named():
    with pytest.raises(UsageError, match="'manhattan'"):
        neuroml.l2_init(1.0, form="manhattan")


# --- weight clipping ---


def test_no_weight_leaves_its_range_and_those_inside_go_where_they_would():
    params, rule = init_params(), neuroml.weight_clipping(1.0)
    step, _ = rule.update(moved(ZERO), rule.init(params), params)
    after, free = optax.apply_updates(params, step), optax.apply_updates(params, moved(ZERO))
    for layer, inputs in (("hidden", 4), ("head", 5)):
        for name in ("kernel", "bias"):
            expected = np.clip(free[layer][name], -(inputs**-0.5), inputs**-0.5)
            np.testing.assert_allclose(after[layer][name], expected, atol=1e-6)
    assert (flat(after) != flat(free)).any()


# --- shrink and perturb ---


def test_shrinking_and_noise_have_the_size_they_are_given(key):
    params = {"kernel": jnp.full((200, 300), 2.0)}
    rule = neuroml.shrink_perturb(0.1, noise=0.5)
    step, _ = rule.update({"kernel": jnp.zeros((200, 300))}, rule.init(params), params, key=key)
    assert abs(float(step["kernel"].mean()) + 0.2) < 0.01 and abs(float(step["kernel"].std()) - 0.5) < 0.01


def test_it_happens_every_so_many_steps(key):
    params, rule = init_params(), neuroml.shrink_perturb(0.1, noise=0.1, every=3)
    state, quiet = rule.init(params), []
    for _ in range(7):
        step, state = rule.update(ZERO, state, params, key=key)
        quiet.append(not flat(step).any())
    assert quiet == [True, True, False, True, True, False, True]
    with pytest.raises(UsageError, match="every=0"):
        neuroml.shrink_perturb(every=0)


# --- UPGD ---


def test_upgd_is_its_equation(key):
    params, decay = init_params(), 0.8
    rule = neuroml.upgd(noise=0.0, decay=decay)
    state, utility = rule.init(params), np.zeros(flat(params).size)
    for count in range(1, 6):
        params = moved(params, count)
        gradient = jax.grad(loss)(params, batch_of(jax.random.fold_in(key, count)))
        step, state = rule.update(gradient, state, params, key=key)
        utility = decay * utility - (1 - decay) * flat(gradient) * flat(params)
        corrected = utility / (1 - decay**count)
        gate = 1 - 1 / (1 + np.exp(-corrected / corrected.max()))
        np.testing.assert_allclose(flat(step), flat(gradient) * gate, rtol=1e-4, atol=1e-7)


def test_the_most_useful_weight_is_held_most_and_the_constant_gate_holds_all_alike(key):
    params = init_params()
    gradient = jax.grad(loss)(params, batch_of(key))
    share = {}
    for gate in ("utility", "constant"):
        rule = neuroml.upgd(noise=0.0, decay=0.0, gate=gate)
        share[gate] = flat(rule.update(gradient, rule.init(params), params, key=key)[0]) / flat(gradient)
    useful = np.argmax(-flat(gradient) * flat(params))
    assert share["utility"].argmin() == useful and share["utility"][useful] < 0.3
    np.testing.assert_allclose(share["constant"], 0.5, rtol=1e-5)
    with pytest.raises(UsageError, match="'utilty'"):
        neuroml.upgd(gate="utilty")


def test_noise_is_held_back_by_the_same_gate(key):
    params = {"kernel": jnp.ones((300, 300))}
    rule = neuroml.upgd(noise=0.2)
    step, _ = rule.update({"kernel": jnp.zeros((300, 300))}, rule.init(params), params, key=key)
    assert abs(float(step["kernel"].std()) - 0.1) < 0.005  # no utility yet: half of it


def test_a_gradient_that_is_no_number_leaves_the_utility_of_its_weight_as_it_was(key):
    params, rule = init_params(), neuroml.upgd(noise=0.0, decay=0.5)
    gradient = jax.tree.map(jnp.ones_like, params)
    _, state = rule.update(gradient, rule.init(params), params, key=key)
    broken = {**gradient, "head": {**gradient["head"], "kernel": gradient["head"]["kernel"].at[1, 2].set(jnp.nan)}}
    _, after = rule.update(broken, state, params, key=key)
    assert after.utility["head"]["kernel"][1, 2] == state.utility["head"]["kernel"][1, 2] != 0
    step, after = rule.update(gradient, after, params, key=key)
    assert np.isfinite(flat(step)).all() and np.isfinite(flat(after.utility)).all()


def test_where_all_utilities_are_negative_nothing_is_held(key):
    rule, w = neuroml.upgd(noise=0.0, decay=0.0), jnp.array([1.0, 2.0])
    step, _ = rule.update(jnp.ones(2), rule.init(w), w, key=key)
    assert step.tolist() == [1, 1]


# --- decorrelation ---


@pytest.mark.parametrize("n", [1, 6])
def test_decorrelation_is_the_inverse_second_moment_times_the_gradient(key, n):
    params, ridge, decay = init_params(), 0.2, 0.7
    rule = neuroml.decorrelation(ridge=ridge, decay=decay, every=1)
    state, moments = rule.init(params), {"hidden": np.zeros((5, 5)), "head": np.zeros((6, 6))}
    for i in range(4):
        batch = batch_of(jax.random.fold_in(key, i), n)
        activity = activity_of(params, batch)
        gradient = jax.grad(loss)(params, batch)
        step, state = rule.update(gradient, state, params, activity=activity)
    for i in range(4):
        activity = activity_of(params, batch_of(jax.random.fold_in(key, i), n))
        for layer, x in activity.items():
            rows = np.concatenate([x, np.ones((n, 1))], axis=1)
            moments[layer] = decay * moments[layer] + (1 - decay) * rows.T @ rows / n
    for layer, moment in moments.items():
        unit = np.trace(moment) / len(moment)
        inverse = (1 + ridge) * np.linalg.inv(moment / unit + ridge * np.eye(len(moment)))
        matrix = np.concatenate([gradient[layer]["kernel"], gradient[layer]["bias"][None]])
        expected = inverse @ matrix
        np.testing.assert_allclose(step[layer]["kernel"], expected[:-1], rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(step[layer]["bias"], expected[-1], rtol=2e-3, atol=1e-5)


def test_whitened_inputs_are_left_alone():
    params = {"kernel": jnp.zeros((4, 2))}
    rule, x = neuroml.decorrelation(ridge=0.1, decay=0.0, every=1), 2.0 * jnp.eye(4)
    gradient = {"kernel": jnp.arange(8.0).reshape(4, 2)}
    step, _ = rule.update(gradient, rule.init(params), params, activity=x)
    np.testing.assert_allclose(step["kernel"], gradient["kernel"], rtol=1e-5)


def test_the_control_has_the_eigenvalues_of_the_inverse_and_not_its_directions(key):
    params, words = init_params(), words_of(key, init_params())
    rules = [neuroml.decorrelation(every=1, decay=0.0, shuffled=shuffled) for shuffled in (False, True)]
    own, other = (rule.update(params, rule.init(params), params, **words)[1].layers["hidden"].inverse for rule in rules)
    np.testing.assert_allclose(np.linalg.eigvalsh(other), np.linalg.eigvalsh(own), rtol=1e-3)
    assert np.abs(other - own).max() > 0.1


def test_layers_that_are_too_large_and_inputs_that_are_no_numbers(key):
    params = init_params()
    rule = neuroml.decorrelation(largest=5, decay=0.5, every=1)
    state = rule.init(params)
    assert list(state.layers) == ["hidden"]
    words = words_of(key, params)
    step, after = rule.update(params, state, params, **words)
    np.testing.assert_array_equal(step["head"]["kernel"], params["head"]["kernel"])
    broken = jax.tree.map(lambda x: x.at[0, 0].set(jnp.nan), words["activity"])
    _, kept = rule.update(params, after, params, activity=broken)
    np.testing.assert_array_equal(kept.layers["hidden"].moment, after.layers["hidden"].moment)
    with pytest.raises(UsageError, match="largest=2"):
        neuroml.decorrelation(largest=2).init(params)
    with pytest.raises(UsageError, match="every=0"):
        neuroml.decorrelation(every=0)
