"""Deepening: the same function at first, and all that was known of the old layers is still known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import neuroml
from neuroml import growing
from neuroml.errors import UsageError

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(7), (20, 3))
Y = jnp.sin(3 * X[:, :2])


def network(*sizes, key=KEY):
    """Layers named so that the new one, in the middle, shifts the names of those behind it."""
    keys = jax.random.split(key, len(sizes))
    shapes = list(zip(sizes, sizes[1:], strict=False))
    layer = lambda key, shape: {"kernel": jax.random.normal(key, shape), "bias": 0.1 * jnp.ones(shape[1])}
    return {f"l{i}": layer(keys[i], shape) for i, shape in enumerate(shapes)}


def capture(params, x=X):
    activity = {}
    for home, layer in params.items():
        activity[home] = x
        x = x @ layer["kernel"] + layer["bias"]
        x = jax.nn.relu(x) if home != list(params)[-1] else x
    return x, activity


def loss(params):
    return ((capture(params)[0] - Y) ** 2).mean()


def train(tx, params, state, steps):
    @jax.jit
    def step(params, state, key):
        updates, state = tx.update(jax.grad(loss)(params), state, params, activity=capture(params)[1], key=key)
        return optax.apply_updates(params, updates), state

    for i in range(steps):
        params, state = step(params, state, jax.random.fold_in(KEY, i))
    return params, state


SMALL, DEEPER = network(3, 6, 5, 2), network(3, 6, 6, 5, 2, key=jax.random.key(1))
NEW, MOVED = {"l1": "l2"}, {"l0": "l0", "l1": "l2", "l2": "l3"}  # a new layer behind the first, which moves the others


@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(1e-2),
        optax.chain(neuroml.ewc(strength=3.0), optax.adam(1e-2), neuroml.condensate_projector()),
    ],
    ids=["adam", "ewc, adam and projector"],
)
def test_the_function_stays_and_the_optimizer_remembers(tx):
    params, state = train(tx, SMALL, tx.init(SMALL), 5)
    state = neuroml.consolidate(state, params, importance=jax.tree.map(jnp.square, params))
    deeper, after = neuroml.deepen(tx, params, state, DEEPER, NEW)
    np.testing.assert_allclose(capture(deeper)[0], capture(params)[0], rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(after) == jax.tree.structure(tx.init(DEEPER))
    for old, now in MOVED.items():
        jax.tree.map(np.testing.assert_array_equal, deeper[now], params[old])
    known = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(after)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        names = [key for key in path if isinstance(key, jax.tree_util.DictKey) and key.key in MOVED]
        renamed = [jax.tree_util.DictKey(MOVED[key.key]) if key in names else key for key in path]
        np.testing.assert_array_equal(known[jax.tree_util.keystr(tuple(renamed))], leaf)
    trained, _ = train(tx, deeper, after, 20)
    assert loss(trained) < loss(deeper)
    assert (trained["l1"]["kernel"] != deeper["l1"]["kernel"]).any(), "the new layer learns"


def test_a_new_layer_holds_what_its_reader_held():
    tx = neuroml.condensate_projector(scale=1e-3)
    rng = np.random.default_rng(0)
    _, state = tx.update(jax.tree.map(jnp.zeros_like, SMALL), tx.init(SMALL), SMALL, activity=capture(SMALL, X[:2])[1])
    state = neuroml.consolidate(state, SMALL)
    deeper, after = neuroml.deepen(tx, SMALL, state, DEEPER, NEW)
    gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), deeper)
    updates, _ = tx.update(gradient, after, deeper, activity=capture(deeper)[1])
    changed = optax.apply_updates(deeper, jax.tree.map(lambda step: 0.1 * step, updates))
    held, free = (np.abs(capture(changed, x)[0] - capture(deeper, x)[0]).mean() for x in (X[:2], X[2:]))
    assert held < 0.02 * free, (held, free)


def test_neurons_in_reserve_get_partners_in_reserve():
    wiring = neuroml.wiring.chain(SMALL, ["l0", "l1", "l2"])
    longer = neuroml.wiring.chain(DEEPER, ["l0", "l1", "l2", "l3"])
    params = growing.reserve(SMALL, wiring, alive=3)
    make = lambda names: neuroml.renewal(optax.adam(1e-2), neuroml.growth(names, when="steps", patience=3), names)
    _, state = train(make(wiring), params, make(wiring).init(params), 2)
    deeper, after = neuroml.deepen(make(longer), params, state, DEEPER, NEW, populations={"hidden_1": "hidden_2"})
    living = growing.living(growing.growable("test", longer, deeper), deeper)
    assert {name: int(which.sum()) for name, which in living.items()} == {"hidden_0": 3, "hidden_1": 3, "hidden_2": 3}
    mature = {name: share[after.rule.neurons[name].alive].tolist() for name, share in after.rule.maturities().items()}
    assert mature == {name: [1, 1, 1] for name in living}, "what the new layer does was learnt before"
    known = {name: int(one.alive.sum()) for name, one in after.rule.neurons.items()}
    assert known == {"hidden_0": 3, "hidden_1": 3, "hidden_2": 3}
    np.testing.assert_allclose(capture(deeper)[0], capture(params)[0], rtol=1e-5, atol=1e-6)


def test_a_stock_sequence_whose_numbers_move():
    def model(*sizes):
        layers = lambda rngs: [nnx.Linear(a, b, rngs=rngs) for a, b in zip(sizes, sizes[1:], strict=False)]
        between = lambda rngs: [part for layer in layers(rngs) for part in (layer, nnx.relu)][:-1]
        return neuroml.from_nnx(lambda rngs: nnx.Sequential(*between(rngs)))

    small, deep = model(3, 6, 2), model(3, 6, 6, 2)
    params, deeper = small.init(KEY)[0], deep.init(KEY)[0]
    tx = optax.adam(1e-2)
    grown, state = neuroml.deepen(tx, params, tx.init(params), deeper, {"layers/2": "layers/4"})
    np.testing.assert_allclose(deep.apply(grown, {}, X)[0], small.apply(params, {}, X)[0], rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(deeper))


def test_numbers_in_names_are_counted():
    """As text, l10 would come before l2, and eleven layers of one shape would be mixed up in silence."""
    small, deeper = network(*[3] * 11), network(*[3] * 12)
    tx = optax.sgd(0.1)
    grown, _ = neuroml.deepen(tx, small, tx.init(small), deeper, {"l5": "l6"})
    for place in range(10):
        np.testing.assert_array_equal(grown[f"l{place + (place >= 5)}"]["kernel"], small[f"l{place}"]["kernel"])


def test_two_new_layers_in_a_row_whatever_arrays_are_called():
    named = lambda tree: {home: {"w": layer["kernel"], "b": layer["bias"]} for home, layer in tree.items()}
    small = network(3, 4, 2)
    small["l1"]["kernel"] = small["l1"]["kernel"].at[2].set(0.0)  # in reserve: nobody hears neuron 2
    tx = optax.sgd(0.1)
    args = named(small), tx.init(named(small)), named(network(3, 4, 4, 4, 2))
    grown, _ = neuroml.deepen(tx, *args, {"l1": "l3", "l2": "l3"})
    for home in ("l1", "l2"):
        np.testing.assert_array_equal(grown[home]["w"], np.diag([1, 1, 0, 1]))
    with pytest.raises(UsageError, match="l2 cannot have read the inputs of l1 until now"):
        neuroml.deepen(tx, *args, {"l1": "l2", "l2": "l3"})


def test_a_convolution_hands_on_at_its_centre():
    layer = lambda *shape: {"kernel": jax.random.normal(KEY, shape)}
    small, deeper = ({"a": layer(3, 3, 1, 4), "z": layer(3, 3, 4, 2)} for _ in range(2))
    deeper["b"] = layer(3, 3, 4, 4)
    tx = optax.sgd(0.1)
    grown, _ = neuroml.deepen(tx, small, tx.init(small), deeper, {"b": "z"})
    x = jax.nn.relu(jax.random.normal(KEY, (1, 5, 5, 4)))
    numbers = ("NHWC", "HWIO", "NHWC")
    np.testing.assert_allclose(
        jax.lax.conv_general_dilated(x, grown["b"]["kernel"], (1, 1), "SAME", dimension_numbers=numbers), x, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"behind": jnp.tanh}, "relu changes answers of tanh, so a new layer"),
        ({"new": {"l9": "l2"}}, "unknown layer of the deeper network 'l9'"),
        ({"new": {}}, "`new` must name all new layers"),
        ({"activation": jnp.tanh}, "tanh changes its own answers"),
        ({"deeper": network(3, 6, 7, 5, 2)}, "l1 has a kernel of shape .6, 7. and cannot hand on"),
        ({"deeper": network(4, 6, 6, 5, 2)}, "no weights at l0/kernel of shape .3, 6."),
        ({"tx": optax.sgd(0.1)}, "make `tx` as it was"),
    ],
)
def test_bad_input_is_named(given, message):
    tx = optax.adam(1e-2)
    call = {"tx": tx, "params": SMALL, "opt_state": tx.init(SMALL), "deeper": DEEPER, "new": NEW} | given
    with pytest.raises(UsageError, match=message):
        neuroml.deepen(**call)
