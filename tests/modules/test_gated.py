"""Units that compete and dendrites that gate: their equations, their inert settings, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import neuroml
from neuroml import slots
from neuroml.errors import UsageError
from neuroml.modules.gated import winning

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (6, 10, 8))


@pytest.fixture(params=[True, False], ids=["graph", "tree"])
def nnx_mode(request):
    """Runs a test in NNX's graph mode and in its tree mode."""
    with nnx.set_graph_mode(request.param), nnx.set_graph_updates(request.param):
        yield request.param


# Where NNX itself carries the state of a layer; what a layer computes is the same in both.
in_both_modes = pytest.mark.usefixtures("nnx_mode")


def same(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), one, two)


def exactly(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


# k winners


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("winners", [1, 4, 9, 10])
def test_winning_is_what_a_stable_sort_finds(winners, dtype):
    rows = jax.random.normal(KEY, (50, 10)).astype(dtype)
    rows = jnp.concatenate([rows, jnp.round(rows), jnp.maximum(rows, 0), -jnp.round(rows), jnp.zeros((1, 10), dtype)])
    odd = jnp.array([[jnp.inf, -jnp.inf, 1e30, -1e30, 0.0, -0.0, 1e-30, -1e-30, jnp.inf, -jnp.inf]], dtype)
    blank = jnp.full((1, 10), jnp.nan, dtype)
    rows = jnp.concatenate([rows, odd, blank, odd.at[0, 3].set(jnp.nan), odd.at[0, 1].set(jnp.nan)])
    rank = np.argsort(np.argsort(-np.asarray(rows, np.float64), axis=-1, kind="stable"), axis=-1)  # NaN comes last
    for found in (winning(rows, winners), jax.jit(winning, static_argnums=1)(rows, winners)):
        np.testing.assert_array_equal(found, rank < winners)


@in_both_modes
def test_winners_are_those_of_numpy_and_excitability_is_their_running_share():
    layer, excitability = neuroml.KWinners(8, 3, strength=0.5, decay=0.7), np.zeros(8)
    moved = False
    for x in np.asarray(X):
        scores = x + 0.5 * excitability
        mask = scores >= np.sort(scores, axis=1)[:, -3:-2]
        exactly(layer(x), np.where(mask, x, 0))
        driven = x >= np.sort(x, axis=1)[:, -3:-2]
        moved |= (mask != driven).any()
        excitability = 0.7 * excitability + 0.3 * driven.mean(0)
        same(layer.excitability[...], excitability)
    assert moved, "excitability must have decided somewhere"
    exactly(layer(X[0], update=False), layer(X[0], update=False))


def test_with_equal_scores_exactly_k_win():
    assert winning(jnp.zeros((4, 8)), 3).sum(1).tolist() == [3] * 4
    assert winning(jnp.full((2, 8), -jnp.inf), 8).all()


def test_all_winners_are_the_identity():
    layer = neuroml.KWinners(8, 8, strength=3.0)
    for x in X:
        exactly(layer(x), x)


def test_gradients_pass_through_winners_only():
    layer = neuroml.KWinners(8, 3, strength=0.5)
    won = layer(X[0]) != 0
    gradient = jax.grad(lambda x: (layer(x, update=False) * 2).sum())(X[0])
    exactly(gradient, jnp.where(layer(X[0], update=False) != 0, 2.0, 0.0))
    assert won.sum() == 30


answer = nnx.jit(lambda layer, x: layer(x))


def met(layer, batches):
    """Shows a layer some batches, one after the other."""
    for x in batches:
        answer(layer, x)


def overlap(first, second, between, **settings):
    """Returns how many winners of `second` had won at `first`, with some batches in between."""
    layer = neuroml.KWinners(200, 20, decay=0.8, **settings)
    before = layer(first) != 0
    met(layer, between)
    return float((before & (layer(second) != 0)).sum(1).mean())


def test_memories_close_in_time_share_units_and_far_ones_do_not():
    first, second = (jax.random.normal(jax.random.key(seed), (1, 200)) for seed in (1, 2))
    others = jax.random.normal(jax.random.key(3), (40, 20, 200))
    near, far = overlap(first, second, [], strength=10.0), overlap(first, second, others, strength=10.0)
    plain, control = overlap(first, second, []), overlap(first, second, [], strength=10.0, shuffled=True)
    assert near > 2 * plain + 4, "linked"
    assert far < near / 2, "the link decays"
    assert control < near / 2, "excitability of the wrong units links nothing"


def test_excitability_does_not_keep_itself_up():
    layer = neuroml.KWinners(200, 20, strength=100.0, decay=0.8)
    first = layer(jax.random.normal(jax.random.key(1), (1, 200)))[0] != 0
    met(layer, jax.random.normal(jax.random.key(3), (40, 20, 200)))
    assert float(layer.excitability[...][first].mean()) < 0.2, "as much as others: the share of winners is 0.1"


def test_silent_units_do_not_become_excited():
    layer = neuroml.KWinners(5, 3, strength=1.0, decay=0.5)
    layer(jax.nn.relu(jnp.array([[-1.0, -1.0, -2.0, 0.1, -1.0], [-1.0, -2.0, 3.0, 0.1, -1.0]])))
    assert layer.excitability[...].tolist() == [0, 0, 0.25, 0.5, 0]


@in_both_modes
def test_kwinners_in_a_stock_model_under_jit_vmap_and_eval():
    network = neuroml.from_nnx(
        lambda rngs: nnx.Sequential(nnx.Linear(8, 8, rngs=rngs), neuroml.KWinners(8, 2, strength=1.0))
    )
    params, state = jax.vmap(network.init)(jax.random.split(KEY, 3))
    outputs, after = jax.jit(jax.vmap(network.apply, in_axes=(0, 0, None)))(params, state, X[0])
    one = jax.tree.map(lambda leaf: leaf[1], (params, state))
    expected, alone = network.apply(*one, X[0])
    same(outputs[1], expected)
    same(jax.tree.map(lambda leaf: leaf[1], after), alone)
    assert (outputs != 0).sum() == 3 * 10 * 2
    layer = neuroml.KWinners(8, 2)
    layer.eval()
    layer(X[0])
    assert not layer.excitability[...].any()
    layer.train()
    layer(X[0])
    assert layer.excitability[...].any()


@in_both_modes
def test_a_batch_without_examples_leaves_excitability_alone():
    layer = neuroml.KWinners(3, 1)
    layer(jnp.ones((2, 3)))
    before = layer.excitability[...]
    assert layer(jnp.zeros((0, 3))).shape == (0, 3)
    np.testing.assert_array_equal(layer.excitability[...], before)


def test_kwinners_that_cannot_be_raise():
    for winners in (0, 9):
        with pytest.raises(UsageError, match=f"winners={winners} must be at least 1 and at most size=8"):
            neuroml.KWinners(8, winners)
    with pytest.raises(UsageError, match="decay=1.0"):
        neuroml.KWinners(8, 2, decay=1.0)
    with pytest.raises(UsageError, match="strength=-5.0"):
        neuroml.KWinners(8, 2, strength=-5.0)
    with pytest.raises(UsageError, match="needs as many features"):
        neuroml.KWinners(8, 2)(jnp.ones((3, 7)))


# active dendrites

CENTRES = 10 * jnp.eye(3, 8)


def contexts_of(key, n=30):
    """Returns examples of three contexts, and which each is of."""
    true = jnp.arange(n) % 3
    return CENTRES[true] + jax.random.normal(key, (n, 8)), true


def dendritic(segments=4, contexts=5, **settings):
    return neuroml.ActiveDendrites(8, 6, segments, contexts, rngs=nnx.Rngs(0), **({"radius": 8.0} | settings))


def test_answers_are_gated_by_the_strongest_segment():
    layer = dendritic()
    x, _ = contexts_of(KEY)
    y = layer(x)
    context = np.eye(5)[np.asarray(layer.context(x))]
    kernel, bias = layer.linear.kernel[...], layer.linear.bias[...]
    drive = np.einsum("ujc,nc->nuj", np.asarray(layer.dendrites[...]), context).max(2)
    same(y, (np.asarray(x) @ kernel + bias) / (1 + np.exp(-drive)))
    assert len({tuple(row) for row in drive.tolist()}) == 3, "each context has gates of its own"


def test_without_segments_it_is_a_linear_layer():
    layer, linear = dendritic(segments=0), nnx.Linear(8, 6, rngs=nnx.Rngs(0))
    for x in X:
        exactly(layer(x), linear(x))
    assert sorted(nnx.to_pure_dict(nnx.state(layer, nnx.Param))) == ["linear"]


def test_contexts_are_inferred_without_being_told():
    layer = dendritic()
    x, true = contexts_of(KEY)
    layer(x)
    assert layer.prototypes.alive.sum() == 3
    fresh, true = contexts_of(jax.random.key(1))
    found = layer.context(fresh)
    assert (found == true).all()  # they nucleated in the order in which they came
    same(layer.prototypes.place[:3], jnp.stack([x[jnp.arange(30) % 3 == at].mean(0) for at in range(3)]), rtol=1e-4)


@in_both_modes
def test_prototypes_are_those_of_slots():
    layer, state = dendritic(nucleus=5, mobility=0.5), slots.empty(5, 8, 1)
    for seed in range(3):
        x, _ = contexts_of(jax.random.key(seed))
        layer(x)
        state, _ = slots.absorb(state, x, jnp.zeros((30, 1)), radius=8.0, nucleus=5, mobility=0.5)
        same(layer.prototypes, state)


def test_one_context_is_the_control():
    layer = dendritic(contexts=1)
    x, _ = contexts_of(KEY)
    y = layer(x)
    assert not layer.context(x).any()
    ratio = y / layer.linear(x)
    same(ratio, jnp.broadcast_to(ratio[0], ratio.shape), rtol=1e-3)
    real = dendritic()
    assert not np.allclose(real(x) / real.linear(x), jnp.broadcast_to(ratio[0], ratio.shape), rtol=1e-2)


def test_keys_say_where_the_context_comes_from():
    layer = dendritic(keys=3)
    keys = 20 * jnp.eye(3)[jnp.arange(10) % 3]
    layer(X[0], keys)
    assert layer.context(keys).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(UsageError, match="inferred from rows of 3 entries"):
        layer(X[0])


@in_both_modes
def test_nothing_is_learnt_when_it_is_told_so_and_before_the_first_example_the_context_is_the_first():
    layer = dendritic()
    assert not layer.context(X[0]).any()
    layer(X[0], update=False)
    layer.eval()
    layer(X[0])
    assert not layer.prototypes.alive.any()
    layer.train()
    layer(X[0])
    assert layer.prototypes.alive.any()


def test_what_is_not_finite_joins_no_prototype():
    layer = dendritic()
    x, _ = contexts_of(KEY)
    layer(x.at[4, 2].set(jnp.nan))
    assert layer.prototypes.mass.sum() == 29 and jnp.isfinite(layer.prototypes.place).all()


@in_both_modes
def test_a_context_learns_without_changing_the_gates_of_another():
    network = neuroml.from_nnx(lambda rngs: neuroml.ActiveDendrites(8, 6, 4, 5, radius=8.0, rngs=rngs))
    params, state = network.init(KEY)
    x, true = contexts_of(KEY)
    _, state = network.apply(params, state, x)
    of_one = x[true == 1]
    gradient = jax.grad(lambda params: (network.apply(params, state, of_one, update=False)[0] ** 2).sum())(params)
    assert (gradient["dendrites"] != 0).any((0, 1)).tolist() == [False, True, False, False, False]
    assert (gradient["dendrites"] != 0).any(2).sum() == 6, "one segment of each unit"


@in_both_modes
@pytest.mark.parametrize("rule", [neuroml.condensate_projector(), neuroml.decorrelation(every=1, strength=0.5)])
def test_rules_about_layers_leave_the_segments_alone(rule):
    make = lambda rngs: nnx.Sequential(
        neuroml.ActiveDendrites(8, 6, 4, 5, radius=8.0, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
    )
    network = neuroml.from_nnx(make)
    params, state = network.init(KEY)
    x, _ = contexts_of(KEY)
    _, _, activity = network.capture(params, state, x)
    words, ones = {"activity": activity, "key": KEY}, jax.tree.map(jnp.ones_like, params)
    _, opt_state = rule.update(ones, rule.init(params), params, **words)
    opt_state = neuroml.consolidate(opt_state, params)
    step, _ = rule.update(ones, opt_state, params, **words)
    exactly(step["layers"][0]["dendrites"], ones["layers"][0]["dendrites"])
    assert not np.allclose(step["layers"][0]["linear"]["kernel"], 1)
    assert not np.allclose(step["layers"][1]["kernel"], 1)


@in_both_modes
def test_dendrites_under_jit_vmap_and_capture():
    network = neuroml.from_nnx(lambda rngs: neuroml.ActiveDendrites(8, 6, 4, 5, radius=8.0, rngs=rngs))
    params, state = jax.vmap(network.init)(jax.random.split(KEY, 3))
    x, _ = contexts_of(KEY)
    outputs, after = jax.jit(jax.vmap(network.apply, in_axes=(0, 0, None)))(params, state, x)
    one = jax.tree.map(lambda leaf: leaf[1], (params, state))
    expected, alone = network.apply(*one, x)
    same(outputs[1], expected, rtol=1e-4, atol=1e-5)
    same(jax.tree.map(lambda leaf: leaf[1], after), alone)
    captured, _, activity = network.capture(*one, x)
    exactly(activity["linear"], x)
    same(captured, expected)


def test_dendrites_that_cannot_be_raise():
    with pytest.raises(UsageError, match="segments=-1 must be at least 0"):
        dendritic(segments=-1)
    with pytest.raises(UsageError, match="contexts=0"):
        dendritic(contexts=0)
    for number in ({"radius": -1.0}, {"mobility": 7.0}):
        with pytest.raises(UsageError, match=r"a slot needs a `\w+` in"):
            dendritic(**number)
    with pytest.raises(UsageError, match="10 examples do not split into groups of nucleus=4"):
        dendritic(nucleus=4)(X[0])
