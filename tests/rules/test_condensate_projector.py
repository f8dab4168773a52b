"""Condensate projector: the ridge projector in closed form, and what the core holds, binds and lets go."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroml
from neuroml.activity import patches
from neuroml.errors import UsageError

KEY = jax.random.key(0)
AXES = jnp.eye(4)


def square(inputs=4):
    return {"kernel": jnp.zeros((inputs, inputs))}


def learn(rule, state, params, *batches):
    for x in batches:
        _, state = rule.update(params, state, params, activity=x)
    return neuroml.consolidate(state, params)


def after(rule, *contexts, params=None):
    """The state after contexts of one batch each."""
    params = square() if params is None else params
    state = rule.init(params)
    for x in contexts:
        state = learn(rule, state, params, x)
    return state


def projector(rule, state, inputs=4):
    """What a step of the identity becomes."""
    step, _ = rule.update({"kernel": jnp.eye(inputs)}, state, square(inputs), activity=jnp.zeros((1, inputs)))
    return step["kernel"]


def along(*energies):
    """A batch whose second moment is diagonal, with these energies first."""
    return jnp.sqrt(4 * jnp.array([*energies, 0, 0, 0, 0][:4])) * AXES


def grips(state):
    """How firmly each axis is held."""
    basis = state.layers[""].basis
    return jnp.diag(basis * state.grip()[""] @ basis.T)


def test_full_rank_is_the_ridge_projector():
    one, two = (jax.random.normal(jax.random.key(i), (2, 8, 4)) * jnp.array([3, 1, 0.3, 0.1]) for i in (1, 2))
    rule = neuroml.condensate_projector(0.8, scale=0.05)
    state = learn(rule, learn(rule, rule.init(square()), square(), *one), square(), *two)
    moment = lambda batches: np.asarray(batches, np.float64).reshape(16, 4).T @ batches.reshape(16, 4) / 16
    core, unit = moment(one) + moment(two), np.trace(moment(one)) / 4
    expected = np.linalg.inv(np.eye(4) + core / (0.05 * unit))
    np.testing.assert_allclose(projector(rule, state), 0.2 * np.eye(4) + 0.8 * expected, atol=1e-5)
    np.testing.assert_allclose(state.report()["held "], 0.8 * (4 - np.trace(expected)) / 4, rtol=1e-4)


def test_a_low_rank_keeps_the_strongest():
    rule = neuroml.condensate_projector(scale=0.1, rank=2)
    state = after(rule, along(4.0, 1.0, 9.0, 2.0))
    np.testing.assert_allclose(state.layers[""].energy, [9, 4], rtol=1e-5)
    held = np.array([4, 9]) / (np.array([4, 9]) + 0.1 * 4)  # unit is the mean eigenvalue, 16 / 4
    np.testing.assert_allclose(grips(state), [held[0], 0, held[1], 0], atol=1e-6)
    state = learn(rule, state, square(), along(0.0, 6.0))  # the second axis had 1 before
    np.testing.assert_allclose(state.layers[""].energy, [9, 6], rtol=1e-5)  # what was let go is not remembered
    with pytest.raises(UsageError, match="scale=-0.5"):
        neuroml.condensate_projector(scale=-0.5)
    with pytest.raises(UsageError, match="rank=0"):
        neuroml.condensate_projector(rank=0)


@pytest.mark.parametrize("max_bytes", [700, 1000, 3000])
def test_cores_take_no_more_than_max_bytes(max_bytes):
    params = {"small": {"kernel": jnp.zeros((3, 2))}, "large": {"kernel": jnp.zeros((20, 2)), "bias": jnp.zeros(2)}}
    layers = neuroml.condensate_projector(max_bytes=max_bytes).init(params).layers
    cores = [(one.basis, one.energy, one.valence, one.occupancy) for one in layers.values()]
    used = sum(leaf.nbytes for leaf in jax.tree.leaves(cores))
    assert used <= max_bytes and (used > 0.7 * max_bytes or used == 4 * (3 * 6 + 21 * 24))
    with pytest.raises(UsageError, match="max_bytes=99 is too little"):
        neuroml.condensate_projector(max_bytes=99).init(params)


def test_evaporation_frees_weak_directions():
    """The ridge is 0.5 * 4 / 4: the second axis lies below it, the others above."""
    contexts = along(3.0, 0.3, 0.7), along(0.0, 0.0, 0.0, 3.0)
    kept = after(neuroml.condensate_projector(scale=0.5), *contexts)
    np.testing.assert_allclose(grips(kept), [3 / 3.5, 0.3 / 0.8, 0.7 / 1.2, 3 / 3.5], rtol=1e-4)
    freed = after(neuroml.condensate_projector(scale=0.5, evaporation=1.0), *contexts)
    np.testing.assert_allclose(grips(freed), [3 / 3.5, 0, 0.7 / 1.2, 3 / 3.5], rtol=1e-4, atol=1e-6)
    half = after(neuroml.condensate_projector(scale=0.5, evaporation=0.5), *contexts)
    np.testing.assert_allclose(grips(half)[1], 0.15 / 0.65, rtol=1e-4)


def test_a_direction_that_two_contexts_recruited_binds_harder():
    contexts = along(1.0, 2.2), along(1.0, 0.0)  # the first axis has less energy in all, and is met twice
    plain = grips(after(neuroml.condensate_projector(scale=0.1), *contexts))
    bound = grips(after(neuroml.condensate_projector(scale=0.1, binding=2.0), *contexts))
    assert plain[0] < plain[1] < bound[1] < bound[0]
    ridge = 0.1 * 3.2 / 4
    valence = [2.2 / (2.2 + ridge), 2 / (1 + ridge)]  # by energy; a context counts as far as it uses the direction
    energy, ridges = np.array([2.2, 2.0]), ridge * np.exp(-2 * np.array(valence))
    np.testing.assert_allclose(bound[:2][::-1], energy / (energy + ridges), rtol=1e-4)


def test_hardness_holds_directions_wholly_or_not_at_all():
    context, ridge = along(9.0, 0.6, 0.2), 0.25 * 9.8 / 4
    soft = np.array([9 / (9 + ridge), 0.6 / (0.6 + ridge), 0.2 / (0.2 + ridge), 0])
    states = {h: after(neuroml.condensate_projector(scale=0.25, hardness=h), context) for h in (0.0, 0.5, 1.0)}
    np.testing.assert_allclose(grips(states[0.0]), soft, rtol=1e-4)
    hard = np.asarray(grips(states[1.0]))
    assert hard[0] > 0.999 and 0.4 < soft[1] < 0.6 and hard[1:].max() < 0.05
    np.testing.assert_allclose(grips(states[0.5]), (soft + hard) / 2, atol=1e-5)


def test_a_condensed_direction_stays_condensed_when_its_energy_falls():
    """Hysteresis: a grip of 0.4 would not condense a direction, and does not dissolve one."""
    rule = neuroml.condensate_projector(scale=0.25, hardness=1.0)
    state = after(rule, along(1.0, 1.1))
    core, nothing_new = state.layers[""], along(1e-6)
    np.testing.assert_allclose(core.occupancy, [1, 1, 0, 0], atol=1e-3)
    for occupancy, expected in ((core.occupancy, 1), (0 * core.occupancy, 0)):
        weak = core._replace(energy=jnp.array([2 / 3, 2 / 3, 0, 0]) * 0.25 * core.unit, occupancy=occupancy)
        later = learn(rule, state._replace(layers={"": weak}), square(), nothing_new)
        np.testing.assert_allclose(grips(later)[:2], expected, atol=0.1)


def test_kept_lets_the_tail_go():
    state = after(neuroml.condensate_projector(kept=0.85), along(8.0, 1.0, 0.6, 0.4))
    np.testing.assert_allclose(state.layers[""].energy, [8, 1, 0, 0], atol=1e-5)


def test_a_full_core_stops_all_learning():
    rule = neuroml.condensate_projector(scale=1e-9)
    state = after(rule, *(jax.random.normal(jax.random.key(i), (20, 4)) for i in range(5)))
    assert jnp.abs(projector(rule, state)).max() < 1e-5  # and no NaN
    np.testing.assert_allclose(state.report()["held "], 1, atol=1e-5)


def test_constant_inputs_hold_one_direction():
    rule, x = neuroml.condensate_projector(scale=1e-6), jnp.array([3.0, 0.0, 4.0, 0.0])
    state = after(rule, jnp.tile(x, (5, 1)), jnp.tile(x, (5, 1)))
    expected = np.eye(4) - np.outer(x, x) / 25
    np.testing.assert_allclose(projector(rule, state), expected, atol=1e-4)


def test_a_single_example_is_enough():
    rule = neuroml.condensate_projector(scale=1e-6)
    np.testing.assert_allclose(projector(rule, after(rule, AXES[:1])), np.diag([0, 1, 1, 1]), atol=1e-4)


def test_inputs_of_nothing_but_zeros_hold_nothing():
    rule = neuroml.condensate_projector()
    np.testing.assert_array_equal(projector(rule, after(rule, jnp.zeros((3, 4)))), np.eye(4))
    state = after(rule, jnp.zeros((3, 4)), AXES[:1])  # the unit is that of the first inputs that there were
    assert state.layers[""].unit == 0.25


def test_to_consolidate_without_a_batch_changes_nothing():
    rule = neuroml.condensate_projector(evaporation=1.0, scale=1.0)
    state = after(rule, along(2.0, 0.1))
    jax.tree.map(np.testing.assert_array_equal, neuroml.consolidate(state, square()), state)


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf, 1e20])
def test_a_batch_that_is_not_finite_is_refused(wrong):
    """By all layers, and the state is as if it had never come."""
    rule = neuroml.condensate_projector()
    params = {"one": square(), "two": square()}
    good = {"one": AXES, "two": 2 * AXES}
    _, state = rule.update(params, learn(rule, rule.init(params), params, good), params, activity=good)
    step, refused = rule.update(params, state, params, activity={"one": AXES, "two": AXES.at[1, 2].set(wrong)})
    jax.tree.map(np.testing.assert_array_equal, refused, state)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(step))


def test_every_consolidates_it():
    rule, batches = neuroml.condensate_projector(), jax.random.normal(KEY, (5, 3, 4))
    scheduled = neuroml.every(rule, 4)
    state = scheduled.init(square())
    for x in batches:
        _, state = scheduled.update(square(), state, square(), activity=x)
    by_hand = learn(rule, rule.init(square()), square(), *batches[:4])
    np.testing.assert_allclose(grips(state.inner), grips(by_hand), rtol=1e-5)
    assert state.inner.layers[""].batches == 1 and grips(by_hand).min() > 0.1


def test_surprise_consolidates_what_came_before():
    rule = neuroml.on_surprise(neuroml.condensate_projector(scale=1e-6), neuroml.surprise(patience=3))
    state = rule.init(square())
    for i, value in enumerate([0.1] * 6 + [9.0]):
        x = AXES[:2] if i < 6 else AXES[2:]
        step, state = rule.update({"kernel": jnp.eye(4)}, state, square(), activity=x, value=jnp.float32(value))
    assert state.consolidations == 1
    np.testing.assert_allclose(step["kernel"], np.diag([0, 0, 1, 1]), atol=1e-4)  # the new inputs are free


def test_convolutions_are_projected_by_patches():
    params = {"kernel": jnp.zeros((2, 2, 1, 3)), "bias": jnp.zeros(3)}
    images = jax.random.normal(KEY, (4, 5, 5, 1))
    rule = neuroml.condensate_projector(scale=0.1, windows={"": (2, "VALID")})
    state = after(rule, images, params=params)
    rows = np.asarray(patches(images, (2, 2), 2, "VALID"), np.float64).reshape(-1, 4)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    moment = rows.T @ rows / len(rows)
    matrix = jax.random.normal(jax.random.key(1), (5, 3))
    step = {"kernel": matrix[:4].reshape(2, 2, 1, 3), "bias": matrix[4]}
    step, _ = rule.update(step, state, params, activity=images)
    expected = np.linalg.inv(np.eye(5) + moment / (0.1 * np.trace(moment) / 5)) @ matrix
    np.testing.assert_allclose(step["kernel"].reshape(4, 3), expected[:4], atol=1e-5)
    np.testing.assert_allclose(step["bias"], expected[4], atol=1e-5)


def test_the_shuffled_control_holds_as_much_of_something_else():
    rules = [neuroml.condensate_projector(scale=1e-6, shuffled=shuffled) for shuffled in (False, True)]
    plain, control = (after(rule, jnp.eye(8)[:3], params=square(8)) for rule in rules)
    np.testing.assert_allclose(control.layers[""].energy, plain.layers[""].energy, atol=1e-6)
    np.testing.assert_allclose(grips(plain), [1, 1, 1, 0, 0, 0, 0, 0], atol=1e-4)
    assert grips(control)[3:].max() > 0.999


@pytest.mark.parametrize("place", ["last", "first"])
def test_answers_to_old_inputs_stay_while_new_ones_are_learnt(place):
    """With momentum, Adam's scaling and weight decay, as these come before the rule; not where they come after it."""
    old, new = AXES[:2], AXES[2:]
    base, rule = optax.adamw(0.1, weight_decay=0.1), neuroml.condensate_projector(scale=1e-6)
    tx = optax.chain(base, rule) if place == "last" else optax.chain(rule, base)
    params = {"kernel": jax.random.normal(KEY, (4, 2))}
    loss = lambda params, x: jnp.mean((x @ params["kernel"] - 1) ** 2)

    def step(carry, x):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, x), state, params, activity=x)
        return (optax.apply_updates(params, updates), state), None

    carry, _ = jax.lax.scan(step, (params, tx.init(params)), jnp.tile(old, (5, 1, 1)))
    params, state = carry[0], neuroml.consolidate(carry[1], carry[0])
    before = old @ params["kernel"]
    (params, _), _ = jax.lax.scan(step, (params, state), jnp.tile(new, (100, 1, 1)))
    moved = jnp.abs(old @ params["kernel"] - before).max()
    assert moved < 1e-3 if place == "last" else moved > 0.1
    assert jnp.abs(new @ params["kernel"] - 1).max() < 0.1


def test_bfloat16_weights_get_bfloat16_steps():
    rule = neuroml.condensate_projector(scale=1e-6)
    params = {"kernel": jnp.zeros((4, 4), jnp.bfloat16)}
    state = after(rule, AXES[:2].astype(jnp.bfloat16), params=params)
    step, _ = rule.update({"kernel": jnp.eye(4, dtype=jnp.bfloat16)}, state, params, activity=AXES)
    assert step["kernel"].dtype == jnp.bfloat16 and state.layers[""].basis.dtype == jnp.float32
    np.testing.assert_allclose(step["kernel"].astype(jnp.float32), np.diag([0, 0, 1, 1]), atol=1e-2)


def test_vmap_over_the_scale():
    x = jax.random.normal(KEY, (6, 4))
    run = lambda scale: projector(rule := neuroml.condensate_projector(scale=scale), after(rule, x, x[:2]))
    scales = jnp.array([1e-3, 0.03, 1.0])
    together = jax.vmap(run)(scales)
    for scale, one in zip(scales, together, strict=True):
        np.testing.assert_allclose(one, run(float(scale)), rtol=1e-3, atol=1e-5)
    assert jnp.trace(together[0]) < jnp.trace(together[1]) < jnp.trace(together[2])


@pytest.mark.parametrize("name", ["evaporation", "hardness", "kept"])
def test_a_share_above_one_is_refused(name):
    with pytest.raises(UsageError, match=f"`{name}` in .0, 1., but {name}=1.5"):
        neuroml.condensate_projector(**{name: 1.5})


def test_all_is_kept_however_sums_are_rounded():
    axes, _ = jnp.linalg.qr(jax.random.normal(KEY, (50, 50)))
    x = (axes * jnp.sqrt(50 * jnp.logspace(3, -4, 50))).T
    assert (after(neuroml.condensate_projector(), x, params=square(50)).layers[""].energy > 0).all()


@pytest.mark.parametrize("settings", [{}, {"hardness": 0.5, "binding": 0.3}, {"strength": 0.5}], ids=str)
def test_rows_that_are_held_get_no_steps_and_the_others_those_that_they_had(settings):
    """Not a core without these rows, which would hold more of the others: what is free loses rows and columns."""
    rule = neuroml.condensate_projector(scale=0.5, **settings)
    state = after(rule, jax.random.normal(KEY, (6, 4)), jax.random.normal(jax.random.key(1), (3, 4)))
    rows = jnp.array([False, True, False, False])
    before = projector(rule, state)
    changed = projector(rule, rule_held := state.hold({"": rows}))
    strength = settings.get("strength", 1.0)
    tolerance = 0.2 if settings.get("hardness") else 1e-3  # occupancies are only seen along the new directions
    np.testing.assert_allclose(changed[~rows][:, ~rows], before[~rows][:, ~rows], atol=tolerance)
    np.testing.assert_allclose(changed[rows][:, rows], 1 - strength, atol=2e-3)
    np.testing.assert_allclose(changed[rows][:, ~rows], 0, atol=tolerance)
    later = learn(rule, rule_held, square(), AXES[:1])
    np.testing.assert_allclose(projector(rule, later)[rows][:, rows], 1 - strength, atol=2e-3)


def test_nobody_is_held_without_rows_or_before_a_consolidation():
    rule = neuroml.condensate_projector()
    state, none = after(rule, AXES[:2]), jnp.zeros(4, bool)
    jax.tree.map(np.testing.assert_array_equal, state.hold({"": none}), state)
    blank = rule.init(square())
    jax.tree.map(np.testing.assert_array_equal, blank.hold({"": ~none}), blank)
