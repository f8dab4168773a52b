"""A condensate memory as an NNX module: alone, in a model, under every transformation, in a checkpoint."""

import copy
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import neuroml
from neuroml import condensate
from neuroml.errors import UsageError

X = jax.random.normal(jax.random.key(0), (24, 4))
Y = jax.nn.one_hot(jnp.argmax(X[:, :3], axis=1), 3)
OWN = {"count": 3, "maps": "own", "radius": 2.0, "shell_rate": 0.5}


@pytest.fixture(autouse=True, params=[True, False], ids=["graph", "tree"])
def nnx_mode(request):
    """Runs every test in NNX's graph mode and in its tree mode."""
    with nnx.set_graph_mode(request.param), nnx.set_graph_updates(request.param):
        yield request.param


class Model(nnx.Module):
    """A user's own: a memory between an encoder and a readout."""

    def __init__(self, rngs, **settings):
        self.encoder = nnx.Linear(4, 4, rngs=rngs)
        self.memory = neuroml.CondensateMemory(4, 3, **settings)
        self.readout = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.readout(self.memory(self.encoder(x)))


def variables(model):
    return nnx.to_pure_dict(nnx.state(model))


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def close(one, two):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, two)


@pytest.mark.parametrize("settings", [{}, OWN], ids=["shared", "own"])
def test_it_does_what_the_pure_functions_do(settings):
    memory, pure = neuroml.CondensateMemory(4, 3, **settings), condensate.make(4, 3, **settings)
    state = pure.init()
    same(memory.state, state)
    for change in (
        lambda m, s: (m.absorb(X, Y), pure.absorb(s, X, Y))[1],
        lambda m, s: (m.consolidate(), pure.consolidate(s))[1],
        lambda m, s: (m.absorb(X[:2], Y[:2], X[2:4]), pure.absorb(s, X[:2], Y[:2], X[2:4]))[1],
        lambda m, s: (m.coarsen(5.0), pure.coarsen(s, 5.0))[1],
    ):
        state = change(memory, state)
        same(memory.state, state)
        same(memory(X), pure.read(state, X))
        same(memory.slots, state.slots)


def test_it_learns_in_numpy_too():
    memory = neuroml.CondensateMemory(4, 3)
    memory.absorb(np.asarray(X), np.asarray(Y))
    memory.consolidate()
    assert (memory(np.asarray(X)).argmax(1) == Y.argmax(1)).mean() > 0.8


@pytest.mark.parametrize("settings", [{}, OWN], ids=["shared", "own"])
def test_under_nnx_jit_it_changes_in_place(settings):
    memory, plain = (neuroml.CondensateMemory(4, 3, **settings) for _ in range(2))

    @nnx.jit
    def learn(memory, x, y):
        memory.absorb(x, y)
        memory.consolidate()
        return memory(x)

    for _ in range(2):
        answer = learn(memory, X, Y)
        plain.absorb(X, Y)
        plain.consolidate()
        close(answer, plain(X))
    close(variables(memory), variables(plain))
    assert memory.seen[...] == 48


def test_in_a_plain_loop_it_compiles_once(caplog):
    for number in range(3):
        memory = neuroml.CondensateMemory(4, 3, **OWN)
        with jax.log_compiles(number > 0):
            memory.absorb(X, Y)
            memory.consolidate()
            memory(X)
    assert not [record for record in caplog.records if "ompil" in record.message]


def test_under_plain_jit_it_is_split_and_merged():
    memory, traces = neuroml.CondensateMemory(4, 3, **OWN), []

    @jax.jit
    def learn(graph, state, x, y):
        traces.append(None)
        memory = nnx.merge(graph, state)
        memory.absorb(x, y)
        memory.consolidate()
        return nnx.state(memory)

    for _ in range(2):
        nnx.update(memory, learn(*nnx.split(memory), X, Y))
    assert memory.seen[...] == 48 and memory.slots.mass.sum() == 48
    other = neuroml.CondensateMemory(4, 3, **OWN)  # made alike: compiled already
    nnx.update(other, learn(*nnx.split(other), X, Y))
    assert len(traces) == 1


def test_in_a_model_the_optimizer_leaves_it_alone_and_gradients_pass_through():
    for settings in ({}, OWN):
        model = Model(nnx.Rngs(0), **settings)
        model.memory.absorb(model.encoder(X), Y)
        model.memory.consolidate()
        optimizer = nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)
        before, params = variables(model.memory), nnx.to_pure_dict(nnx.state(model, nnx.Param))

        @nnx.jit
        def train_step(model, optimizer, x, y):
            graph, params, rest = nnx.split(model, nnx.Param, ...)
            loss = lambda params: optax.softmax_cross_entropy(nnx.merge(graph, params, rest)(x), y).mean()
            value, grads = jax.value_and_grad(loss)(params)
            optimizer.update(model, grads)
            return value

        losses = [float(train_step(model, optimizer, X, Y)) for _ in range(30)]
        assert losses[-1] < 0.7 * losses[0]
        same(variables(model.memory), before)
        moved = jax.tree.map(lambda a, b: bool((a != b).all()), nnx.to_pure_dict(nnx.state(model, nnx.Param)), params)
        assert all(jax.tree.leaves(moved)) and set(moved) == {"encoder", "readout"}


def test_nnx_grad_differentiates_the_params_in_graph_mode_and_all_in_tree_mode(nnx_mode):
    model = Model(nnx.Rngs(0))
    model.memory.absorb(model.encoder(X), Y)
    model.memory.consolidate()
    grad = nnx.grad(lambda model: model(X).sum())
    if not nnx_mode:
        with pytest.raises(TypeError, match="real- or complex-valued"):  # counters have no gradient
            grad(model)
        return
    grads = nnx.to_pure_dict(grad(model))
    assert set(grads) == {"encoder", "readout"} and (grads["encoder"]["kernel"] != 0).any()


def test_absorbing_inside_a_step_that_trains():
    """What the encoder makes of a batch is absorbed in the compiled step that trains the encoder."""
    model = Model(nnx.Rngs(0), shell_rate=0.5)
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, x, y):
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        grads = jax.grad(lambda params: ((nnx.merge(graph, params, rest)(x) - y) ** 2).mean())(params)
        model.memory.absorb(model.encoder(x), y)
        optimizer.update(model, grads)

    for at in range(0, 24, 8):
        train_step(model, optimizer, X[at : at + 8], Y[at : at + 8])
    assert model.memory.seen[...] == 24 and (model.memory.shell[...] != 0).any()


def test_as_a_network_its_variables_are_model_state():
    network = neuroml.from_nnx(lambda rngs: Model(rngs))
    params, model_state = network.init(jax.random.key(0))
    assert set(params) == {"encoder", "readout"}
    assert jax.tree.structure(model_state["memory"]) == jax.tree.structure(variables(neuroml.CondensateMemory(4, 3)))
    outputs, after = jax.jit(network.apply)(params, model_state, X)
    assert outputs.shape == (24, 3)
    same(after, model_state)


def test_an_orbax_checkpoint_brings_it_back(tmp_path):
    memory, fresh = (neuroml.CondensateMemory(4, 3, **OWN) for _ in range(2))
    memory.absorb(X, Y)
    memory.consolidate()
    state = variables(memory)
    assert all(isinstance(leaf, jax.Array) for leaf in state.values()) and len(state) == 12
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "memory", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "memory", variables(fresh))
    target = nnx.state(fresh)
    nnx.replace_by_pure_dict(target, restored)
    nnx.update(fresh, target)
    same(fresh.state, memory.state)
    same(fresh(X), memory(X))
    for one in (fresh, memory):
        one.absorb(X[:5], Y[:5])
    same(fresh.state, memory.state)


@pytest.mark.parametrize("again", [copy.deepcopy, nnx.clone, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_copies_stand_alone(again):
    memory = neuroml.CondensateMemory(4, 3)
    memory.absorb(X, Y)
    other = again(memory)
    same(other.state, memory.state)
    other.absorb(X, Y)
    assert (memory.seen[...], other.seen[...]) == (24, 48)


def test_what_is_broken_is_refused_and_counted():
    memory = neuroml.CondensateMemory(4, 3)
    memory.absorb(X.at[3].set(jnp.nan), Y)
    memory.consolidate()
    assert (memory.seen[...], memory.refused[...]) == (23, 1)
    assert jnp.isfinite(memory(X)).all()


def test_its_arguments_are_those_of_make():
    made = (neuroml.CondensateMemory.__init__, condensate.make)
    ours, theirs = ([(p.name, p.default) for p in inspect.signature(one).parameters.values()] for one in made)
    assert ours[1:] == theirs  # after `self`


def test_mistakes_are_told_in_words():
    with pytest.raises(UsageError, match="kind of maps"):
        neuroml.CondensateMemory(4, 3, maps="onw")
    with pytest.raises(UsageError, match="x has shape"):
        neuroml.CondensateMemory(4, 3)(X[:, :2])
