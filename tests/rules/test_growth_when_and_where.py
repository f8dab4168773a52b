"""When growth is due, and which layer grows."""

import jax
import jax.numpy as jnp
import numpy as np
from growing_network import FULL, KEY, NAMES, SMALL, X, capture, same, still

import neuroml
from neuroml import ground, growing


def losses(tx, values, params=SMALL):
    """Returns the updates at which something was born."""
    state, born = tx.init(params), []
    run = jax.jit(lambda state, value, key: still(tx, state, params=params, value=value, key=key)[1])
    for i, value in enumerate(values):
        state = run(state, value, jax.random.fold_in(KEY, i))
        born += [i] if any(which.any() for which in state.renewed.values()) else []
    return born


def reference(values, when, threshold, patience, target=0.0):
    """Returns the updates at which growth is due."""
    fast = slow = wait = heard = 0
    due = []
    for i, value in enumerate(values):
        if np.isfinite(value):
            heard += 1
            fast += max(0.1, 1 / heard) * (value - fast)
            slow += max(0.01, 1 / heard) * (value - slow)
        wait += 1
        call = fast >= (1 - threshold) * slow and fast > target if when == "plateau" else fast > (1 + threshold) * slow
        if wait >= patience and call:
            due.append(i)
            wait = 0
    return due


def test_a_plateau_and_a_surprise_are_those_of_a_plain_loop():
    noise = np.asarray(jax.random.normal(KEY, (150,))) * 0.02
    values = np.concatenate([np.exp(-np.arange(50) / 15), np.full(50, 0.04), np.full(50, 0.5)]) + np.abs(noise)
    values[70] = np.nan
    for when, threshold in (("plateau", 0.1), ("surprise", 0.8)):
        tx = neuroml.growth(NAMES, when=when, threshold=threshold, patience=12, number=1)
        due = reference(values, when, threshold, 12)
        assert losses(tx, jnp.asarray(values, jnp.float32)) == due[:5] and len(due) > 1
    assert reference(values, "surprise", 0.8, 12)[0] > 100
    tx = neuroml.growth(NAMES, when="plateau", threshold=0.1, patience=12, target=0.3)
    assert losses(tx, jnp.asarray(values, jnp.float32)) == reference(values, "plateau", 0.1, 12, 0.3)[:5]


def test_the_controls_grow_at_fixed_and_at_random_times():
    assert losses(neuroml.growth(NAMES, when="steps", patience=7), jnp.zeros(30)) == [6, 13, 20, 27]
    tx = neuroml.growth(NAMES, when="random", patience=5, number=1)

    @jax.jit
    @jax.vmap
    def births(key):
        run = lambda state, key: (still(tx, state, key=key)[1], None)
        return jax.lax.scan(run, tx.init(SMALL), jax.random.split(key, 10))[0].births

    counts = np.asarray(births(jax.random.split(KEY, 200)))
    assert abs(np.minimum(counts, 9).mean() - 2) < 0.25 and len(set(counts.tolist())) > 3  # binomial, cut at 5 places


def test_rank_is_exhausted_when_what_was_consolidated_fills_the_readers_inputs():
    def grown(scale, activity):
        tx = neuroml.growth(NAMES, when="rank", threshold=0.5, patience=1, scale=scale)
        _, state = still(tx, tx.init(SMALL), activity=activity)
        assert int(state.births) == 0, "nothing is occupied before the first consolidation"
        return still(tx, neuroml.consolidate(state, SMALL), activity=activity)[1]

    wide = jnp.zeros((20, 5)).at[:, :3].set(jax.random.normal(KEY, (20, 3)))
    line = jnp.zeros((20, 6)).at[:, 0].set(1.0)  # in the first population all but one direction stays free
    activity = {"a": X, "b": line, "c": wide}
    state = grown(1e-3, activity)
    assert state.renewed["second"].sum() == 1 and not state.renewed["first"].any()
    assert int(grown(1e3, activity).births) == 0  # a ridge so large that nothing is held


def test_free_share_leaves_neurons_in_reserve_out():
    rows = jnp.concatenate([jax.random.normal(KEY, (50, 2)), jnp.zeros((50, 6))], axis=1)
    one = ground.settled(ground.felt(ground.bare(8), rows, jnp.array(True)), 1e-5)
    assert float(ground.free_share(one, 6)) < 0.01 and abs(float(ground.free_share(one, 0)) - 0.75) < 0.01
    same(ground.settled(one, 1e-5), one, atol=0)
    more = jax.random.normal(jax.random.key(1), (30, 8))
    both = ground.settled(ground.felt(one, more, jnp.array(True)), 0.1)
    moments = rows.T @ rows / 50 + more.T @ more / 30
    same(both.free, np.linalg.inv(np.eye(8) + moments / (0.1 * one.unit)), rtol=1e-3, atol=1e-4)
    bad = ground.felt(ground.bare(8), rows.at[0, 0].set(jnp.nan), jnp.array(False))
    same(ground.settled(bad, 1.0), ground.bare(8), atol=0)


# where


def test_it_grows_where_the_steps_are_largest_for_the_weights_of_a_neuron():
    wide = {**FULL, "c": {"kernel": jnp.ones((5, 20)), "bias": jnp.ones(20)}}
    tx, params = neuroml.growth(NAMES, when="steps", patience=1), growing.reserve(wide, NAMES, 3)
    # a neuron of `first` has 3 + 1 + 5 weights, one of `second` 6 + 1 + 20: three times as many
    for factor, name in ((0.8, "first"), (1.2, "second")):
        steps = jax.tree.map(jnp.zeros_like, wide)
        steps["b"]["kernel"] = jnp.full((6, 5), -0.1)  # 0.5 a neuron, also of those in reserve, who must not count
        steps["b"]["kernel"] = steps["b"]["kernel"].at[3:].set(9.0)
        steps["c"]["kernel"] = jnp.full((5, 20), 3 * factor * 0.5 / 20)
        words = {"activity": capture(SMALL)[1], "key": KEY}
        _, state = tx.update(steps, tx.init(params), params, **words)
        assert [n for n, which in state.renewed.items() if which.any()] == [name]


def test_it_grows_elsewhere_when_the_first_choice_is_full_and_by_lot_anywhere():
    full = growing.reserve(FULL, NAMES, {"first": 6, "second": 3})
    tx = neuroml.growth(NAMES, when="steps", patience=1)
    _, state = still(tx, tx.init(full), params=full)
    assert state.renewed["second"].any() and not state.renewed["first"].any()
    tx = neuroml.growth(NAMES, when="steps", patience=1, where="random")
    places = jax.jit(jax.vmap(lambda key: still(tx, tx.init(SMALL), key=key)[1].renewed["first"].any()))
    assert 0.35 < places(jax.random.split(KEY, 200)).mean() < 0.65
