import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx

import neuroml
from neuroml.errors import UsageError
from neuroml.modules.network import Network, from_linen, from_nnx

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (8, 3))


@pytest.fixture(autouse=True)
def nnx_mode(request):
    """Runs a test of NNX in graph mode and in tree mode."""
    graph = getattr(request, "param", True)
    with nnx.set_graph_mode(graph), nnx.set_graph_updates(graph):
        yield


class Noisy(nnx.Module):
    """All that makes a state: running statistics, random streams, a list of layers."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x, train=True):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        x = self.norm(x, use_running_average=not train)
        return self.head(self.dropout(x, deterministic=not train))


class LinenNoisy(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5)(linen.relu(linen.Dense(4)(x)))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=not train)(x))


def nnx_network():
    return from_nnx(Noisy)


def linen_network():
    return from_linen(LinenNoisy(), X, train=False)


MODES = pytest.mark.parametrize("nnx_mode", [True, False], ids=["graph", "tree"], indirect=True)
MAKERS = pytest.mark.parametrize(
    ("make", "nnx_mode"),
    [(nnx_network, True), (nnx_network, False), (linen_network, True)],
    ids=["graph", "tree", "linen"],
    indirect=["nnx_mode"],
)


def is_plain(tree):
    return isinstance(tree, jax.Array) or (type(tree) is dict and all(map(is_plain, tree.values())))


def keywords(network, key):
    """Linen takes its random numbers per call; NNX has them in its state."""
    return {"rngs": {"dropout": key}} if "batch_stats" in network.init(KEY)[1] else {}


@MAKERS
def test_everything_is_a_plain_dictionary_of_arrays(make):
    network = make()
    params, model_state = network.init(KEY)
    _, new_state = network.apply(params, model_state, X, train=False)
    assert is_plain(params) and is_plain(model_state) and is_plain(new_state)
    assert jax.tree.structure(new_state) == jax.tree.structure(model_state)


@MAKERS
def test_apply_computes_what_the_model_computes(make):
    network = make()
    params, model_state = network.init(KEY)
    outputs, _ = network.apply(params, model_state, X, train=False)
    if make is linen_network:
        expected = LinenNoisy().apply({"params": params, **model_state}, X, train=False)
    else:
        expected = Noisy(nnx.Rngs(KEY))(X, train=False)
    np.testing.assert_array_equal(outputs, expected)


@MAKERS
def test_train_updates_statistics_and_evaluation_leaves_them(make):
    network = make()
    params, state = network.init(KEY)

    def statistics(state):
        return state["norm"] if "norm" in state else state["batch_stats"]["BatchNorm_0"]

    _, trained = network.apply(params, state, X, **keywords(network, KEY))
    _, evaluated = network.apply(params, state, X, train=False)
    assert not np.allclose(statistics(trained)["mean"], statistics(state)["mean"])
    np.testing.assert_array_equal(statistics(evaluated)["mean"], statistics(state)["mean"])


@MAKERS
def test_vmap_grad_jit_and_scan_train_several_seeds(make):
    network, tx, steps = make(), optax.sgd(0.1), 5

    def step(carry, key):
        params, model_state, opt_state = carry

        def loss(params):
            outputs, new_state = network.apply(params, model_state, X, **keywords(network, key))
            return jnp.mean((outputs - 1.0) ** 2), new_state

        (value, model_state), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return (optax.apply_updates(params, updates), model_state, opt_state), value

    def run(key):
        params, model_state = network.init(key)
        carry = (params, model_state, tx.init(params))
        return jax.lax.scan(step, carry, jax.random.split(key, steps))

    (params, _, _), losses = jax.jit(jax.vmap(run))(jax.random.split(KEY, 3))
    assert losses.shape == (3, steps) and bool((losses[:, -1] < losses[:, 0]).all())
    assert len({float(loss) for loss in losses[:, 0]}) == 3
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(params))


@MODES
def test_init_is_the_same_eagerly_jitted_and_vmapped():
    init, keys = nnx_network().init, jax.random.split(KEY, 2)
    params = init(keys[1])[0]
    for other in (jax.jit(init)(keys[1])[0], jax.tree.map(lambda leaf: leaf[1], jax.vmap(init)(keys)[0])):
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6), params, other)


@MODES
def test_dropout_draws_anew_at_each_call_and_by_seed():
    network = from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs))
    x = jnp.ones(64)
    states = [network.init(jax.random.key(seed))[1] for seed in (0, 0, 1)]
    (first, state), (again, _), (other, _) = [network.apply({}, state, x) for state in states]
    second, _ = network.apply({}, state, x)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first != second).any()


@MODES
def test_wider_weights_pass_through_the_same_network():
    network = from_nnx(lambda rngs: nnx.Linear(3, 2, use_bias=False, rngs=rngs))
    outputs, _ = network.apply({"kernel": jnp.ones((3, 5))}, {}, X)
    assert outputs.shape == (8, 5)


@MODES
def test_arrays_of_another_model_are_refused_by_name():
    network = nnx_network()
    params, model_state = network.init(KEY)
    with pytest.raises(UsageError, match="another model.*tail"):
        network.apply({**params, "tail": params["head"]}, model_state, X)
    with pytest.raises(UsageError, match=r"not there: \['head'\]\['bias'\]"):
        network.apply({**params, "head": {"kernel": params["head"]["kernel"]}}, model_state, X)


@MODES
def test_variables_born_in_a_call_stay_out_of_the_state():
    class Sower(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            self.seen = nnx.Variable(x)
            return self.linear(x)

    network = from_nnx(Sower)
    params, model_state = network.init(KEY)
    assert network.apply(params, model_state, X)[1] == model_state == {}


def test_what_a_linen_module_sows_does_not_pile_up():
    class Sower(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Dense(2)(x)
            for number in (1, 2):
                self.sow("losses", "size", number * x.sum())
            return x

    network = from_linen(Sower(), X)
    params, start = network.init(KEY)
    step = lambda state, x: (network.apply(params, state, x)[1], None)
    last, _ = jax.lax.scan(step, start, jnp.stack([X, X + 1, 2 * X]))
    outputs, captured, _ = network.capture(params, start, 2 * X)
    for state in (last, captured):
        np.testing.assert_allclose(state["losses"]["size"], (outputs.sum(), 2 * outputs.sum()), rtol=1e-5)
    assert jax.tree.structure(last) == jax.tree.structure(start)


@MODES
@pytest.mark.parametrize("wrap", [nnx.Variable, nnx.data])
def test_buffers_are_state_and_bare_arrays_are_refused(wrap):
    class Scaled(nnx.Module):
        def __init__(self, wrap):
            self.scale = wrap(2 * jnp.ones(3))

        def __call__(self, x):
            return self.scale * x

    network = from_nnx(lambda rngs: Scaled(wrap))
    params, model_state = jax.jit(network.init)(KEY)
    outputs, _ = network.apply(params, model_state, X)
    np.testing.assert_array_equal(outputs, 2 * X)
    with pytest.raises(UsageError, match="scale is a bare array"):
        from_nnx(lambda rngs: Scaled(lambda array: array))


def test_a_checkpoint_keeps_the_integer_keys_of_a_list(tmp_path):
    params, _ = nnx_network().init(KEY)
    with warnings.catch_warnings(), ocp.StandardCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # Orbax has deprecations of its own
        checkpointer.save(tmp_path / "params", params)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "params", jax.tree.map(jnp.zeros_like, params))
        without_target = nnx.restore_int_paths(checkpointer.restore(tmp_path / "params"))
    for tree in (restored, without_target):
        assert list(tree["layers"]) == [0, 1]
        jax.tree.map(np.testing.assert_array_equal, tree, params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert "['layers'][1]['kernel']" in paths


def test_string_keys_of_a_restored_list_are_accepted():
    network = nnx_network()
    params, model_state = network.init(KEY)
    strings = {**params, "layers": {str(key): value for key, value in params["layers"].items()}}
    jax.tree.map(
        np.testing.assert_array_equal,
        network.apply(strings, model_state, X, train=False)[0],
        network.apply(params, model_state, X, train=False)[0],
    )


@MODES
def test_building_computes_nothing():
    calls = []
    with jax.checking_leaks():
        from_nnx(lambda rngs: calls.append(type(rngs.params())) or nnx.Linear(2, 2, rngs=rngs))
    assert issubclass(calls[0], jax.core.Tracer)


@MODES
def test_the_wrapper_adds_no_operation():
    model = Noisy(nnx.Rngs(KEY))
    network = nnx_network()
    params, model_state = network.init(KEY)

    def operations(function, *args):
        return [equation.primitive.name for equation in jax.make_jaxpr(function)(*args).eqns]

    wrapped = operations(lambda *args: network.apply(*args, train=False)[0], params, model_state, X)
    assert wrapped == operations(lambda x: model(x, train=False), X)


def test_a_network_made_by_hand_has_no_capture():
    network = Network(init=lambda key: ({}, {}), apply=lambda params, state, x: (x, state))
    with pytest.raises(UsageError, match="from_nnx"):
        network.capture({}, {}, X)


def test_standardized_inputs_reach_the_same_weights():
    plain = neuroml.mlp((4, 4, 1), [8], 3)
    moved = neuroml.standardized(plain, 0.1, 0.3)
    params, state = plain.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (5, 4, 4, 1))
    np.testing.assert_array_equal(moved.apply(params, state, x)[0], plain.apply(params, state, (x - 0.1) / 0.3)[0])
    seen = moved.capture(params, state, x)[2]
    np.testing.assert_array_equal(
        jax.tree.leaves(seen)[0], jax.tree.leaves(plain.capture(params, state, (x - 0.1) / 0.3)[2])[0]
    )
    assert neuroml.standardized(plain, 0.0, 1.0) is plain
    with pytest.raises(UsageError, match=r"deviation=0\.0"):
        neuroml.standardized(plain, 0.1, 0.0)
