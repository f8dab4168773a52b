"""Condensate memory: nothing later takes away what came before, and nothing broken gets in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml import condensate, slots
from neuroml.errors import UsageError

random = np.random.default_rng(0)
X = jnp.asarray(random.normal(size=(48, 5)), jnp.float32)
LABELS = np.asarray(jnp.argmax(X[:, :3], axis=1))
Y = jax.nn.one_hot(LABELS, 3)
WHOLE = jnp.round(3 * X)  # their sums are exact, in whatever order


@functools.cache
def make(features=5, outputs=3, **settings):
    """A memory with its functions compiled, the same for the same arguments."""
    made = condensate.make(features, outputs, **settings)
    return made._replace(
        absorb=jax.jit(made.absorb),
        consolidate=jax.jit(made.consolidate),
        coarsen=jax.jit(made.coarsen),
        read=jax.jit(made.read),
    )


def learnt(memory, x=X, y=Y, keys=None, batch_size=12, state=None):
    """Returns the state after a stream, consolidated."""
    return memory.consolidate(streamed(memory, x, y, keys, batch_size, state))


def streamed(memory, x=X, y=Y, keys=None, batch_size=12, state=None):
    state = memory.init() if state is None else state
    for at in range(0, len(x), batch_size):
        now = slice(at, at + batch_size)
        state = memory.absorb(state, x[now], y[now], None if keys is None else keys[now])
    return state


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def close(one, two, tolerance=1e-6):
    np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * float(jnp.abs(two).max()))


def dtypes(tree):
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def two_contexts():
    """The same inputs with opposite labels in two places of key space; one context after the other."""
    x = jnp.concatenate([X, X])
    y = jnp.concatenate([Y, Y[:, ::-1]])
    keys = jnp.concatenate([jnp.zeros((48, 2)), jnp.full((48, 2), 9.0)]) + 0.1 * jnp.tile(X[:, 3:], (2, 1))
    return x, y, keys


OWN = {"count": 4, "keys": 2, "maps": "own", "radius": 3.0}


def test_it_is_ridge_regression_with_a_constant():
    rows = np.concatenate([X, np.ones((48, 1))], axis=1).astype(np.float64)
    gram = rows.T @ rows
    wanted = np.linalg.solve(gram + 0.01 * np.diag(np.diag(gram)), rows.T @ np.asarray(Y))
    memory = make()
    np.testing.assert_allclose(memory.read(learnt(memory), X), rows @ wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"mobility": 0.0}, {"count": 4, "radius": 2.0, "mobility": 0.0, "mix": 0.5}],
    ids=["core", "mix"],
)
@pytest.mark.parametrize("batch_size", [1, 12])
def test_in_whatever_order_the_core_is_the_same(settings, batch_size):
    """For slots that are where they are: they nucleate on anchors, before the stream."""
    memory = make(**settings)
    anchors = memory.absorb(memory.init(), 9 * jnp.eye(5)[:4], jnp.zeros((4, 3)))
    order = np.random.default_rng(1).permutation(48)
    one, two = (
        learnt(memory, x, y, batch_size=b, state=anchors) for x, y, b in ((X, Y, 12), (X[order], Y[order], batch_size))
    )
    np.testing.assert_array_equal(one.slots.place, two.slots.place)
    close(two.weights, one.weights)
    np.testing.assert_array_equal(one.slots.values, two.slots.values)
    close(memory.read(two, X), memory.read(one, X), 1e-5)
    assert one.seen == two.seen == 52


def test_a_shell_answers_before_consolidation_and_leaves_no_trace():
    with_shell, without = make(shell_rate=0.5), make()
    first = jax.tree.map(lambda s: s, learnt(with_shell, X[:24], Y[:24]))
    state, errors = first, []
    for _ in range(5):
        errors.append(float(jnp.mean((with_shell.read(state, X[24:]) - Y[24:]) ** 2)))
        state = with_shell.absorb(state, X[24:], Y[24:])
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.95 * errors[0]
    plain = learnt(without, X[:24], Y[:24])
    for _ in range(5):
        plain = without.absorb(plain, X[24:], Y[24:])
    same(state.core, plain.core)
    assert (plain.shell == 0).all() and (
        without.read(plain, X) == without.read(learnt(without, X[:24], Y[:24]), X)
    ).all()
    same(with_shell.consolidate(state), without.consolidate(plain))


def test_a_shell_decays():
    memory = make(shell_rate=0.5, shell_decay=0.5)
    state = memory.absorb(memory.init(), X, Y)
    later = memory.absorb(state, jnp.zeros((1, 5)), memory.read(state, jnp.zeros((1, 5))))  # nothing to correct
    close(later.shell, 0.5 * state.shell)


@pytest.mark.parametrize("settings", [{}, OWN], ids=["shared", "own"])
def test_consolidating_again_changes_nothing(settings):
    memory = make(**settings)
    state = learnt(memory, *two_contexts()) if settings else learnt(memory)
    same(memory.consolidate(state), state)


def test_contexts_that_contradict_each_other_need_maps_of_their_own():
    x, y, keys = two_contexts()
    right = {}
    for maps in ("own", "shared"):
        memory = make(**{**OWN, "maps": maps})
        state = learnt(memory, x, y, keys)
        assert int(state.slots.alive.sum()) == 2
        answers = memory.read(state, x, keys).argmax(1)
        right[maps] = [float(np.mean(part)) for part in np.split(np.asarray(answers == y.argmax(1)), 2)]
    assert min(right["own"]) > 0.9
    assert np.mean(right["shared"]) < 0.7  # the class in the middle is the same in both
    assert (memory.context(state, keys) == jnp.repeat(jnp.arange(2), 48)).all()


def test_own_maps_are_those_of_memories_apart():
    x, y, keys = two_contexts()
    order = np.random.default_rng(2).permutation(96)  # batches that hold both
    memory, alone = make(**OWN), make()
    state = learnt(memory, x[order], y[order], keys[order])
    answers = memory.read(state, x, keys)
    close(answers[:48], alone.read(learnt(alone), X), 1e-5)
    close(answers[48:], alone.read(learnt(alone, X, Y[:, ::-1]), X), 1e-5)


def test_maps_that_merge_are_the_map_of_all():
    """Two slots of the same kind, one of them small; sums of whole numbers are exact."""
    keys = jnp.where(jnp.arange(48)[:, None] < 44, 0.0, 9.0) * jnp.ones((48, 2))
    apart, one = make(**OWN), make(**{**OWN, "count": 1})
    y = jnp.tile(Y[:1], (48, 1))
    state, whole = learnt(apart, WHOLE, y, keys), learnt(one, WHOLE, y, keys)
    assert state.core.count.tolist() == [44, 4, 0, 0]
    same(apart.coarsen(state, 0.0), state)
    merged = apart.coarsen(state, 1e3)
    assert merged.core.count.tolist() == merged.slots.mass.tolist() == [48, 0, 0, 0]
    same(jax.tree.map(lambda leaf: leaf[:1], merged.core), whole.core)
    close(apart.read(merged, X, keys), one.read(whole, X, keys))
    assert (merged.weights[1:] == 0).all()  # what nucleates there next finds nothing


def test_the_soft_answer_of_the_slots_is_added():
    settings = {"count": 8, "radius": 1.5, "linker": 0.7}
    state = learnt(make(**settings), X[:24], Y[:24])
    same(learnt(make(**settings, mix=0.3), X[:24], Y[:24]), state)  # only the answer differs
    core = make(**settings).read(state, X)
    soft = slots.read(state.slots, X, 0.7)
    close(make(**settings, mix=0.3).read(state, X), core + 0.3 * soft)
    close(jax.jit(lambda mix: condensate.make(5, 3, **settings, mix=mix).read(state, X))(0.0), core)


def test_slots_tell_apart_what_no_linear_map_does():
    """Stripes of two classes."""
    x = jnp.linspace(-4, 4, 64)[:, None]
    y = jax.nn.one_hot((jnp.floor(x[:, 0]) % 2).astype(int), 2)
    right = lambda memory: float((memory.read(learnt(memory, x, y), x).argmax(1) == y.argmax(1)).mean())
    stripes = {"count": 32, "radius": 0.2, "linker": 0.2, "mobility": 0.0}
    assert right(make(1, 2, **stripes)) < 0.7
    assert right(make(1, 2, **stripes, mix=3.0)) > 0.9


def test_classes_come_unannounced_and_one_example_is_enough():
    memory = make()
    state = learnt(memory, X[LABELS < 2], Y[LABELS < 2])
    assert (memory.read(state, X)[:, 2] == 0).all()
    once = 5 * jnp.eye(5)[4:]
    state = learnt(memory, once, Y[LABELS == 2][:1], state=state)
    assert memory.read(state, once).argmax() == 2
    assert (memory.read(state, X[LABELS < 2]).argmax(1) == LABELS[LABELS < 2]).mean() > 0.9


def test_ten_thousand_classes():
    memory = make(5, 10_000)
    state = memory.absorb(memory.init(), X[:2], jax.nn.one_hot(jnp.array([3, 9_999]), 10_000))
    assert memory.read(memory.consolidate(state), X[:2]).argmax(1).tolist() == [3, 9_999]


def test_of_nothing_it_answers_zero():
    for memory in (make(), make(**OWN), make(count=3, radius=1.0, mix=1.0)):
        keys = jnp.ones((48, 2)) if memory is make(**OWN) else None
        assert (memory.read(memory.consolidate(memory.init()), X, keys) == 0).all()


def test_one_example_and_constant_inputs():
    memory = make()
    close(memory.read(learnt(memory, X[:1], Y[:1]), X[:1]), Y[:1], 0.01)
    constant = jnp.ones((48, 5))
    np.testing.assert_allclose(memory.read(learnt(memory, constant), constant[:1])[0], Y.mean(0), rtol=0.01)


def test_half_precision_inputs_are_remembered_in_single():
    memory = make(**{**OWN, "keys": None})
    half = jnp.bfloat16
    state = learnt(memory, X.astype(half), Y.astype(half))
    assert dtypes(state) == dtypes(memory.init())
    same(state, learnt(memory, X.astype(half).astype(jnp.float32)))
    assert memory.read(state, X.astype(half)).dtype == jnp.float32


BROKEN = [("x", jnp.nan), ("x", jnp.inf), ("x", 1e30), ("x", 1.5e19), ("y", jnp.nan), ("keys", -jnp.inf)]


@pytest.mark.parametrize("settings", [{}, OWN, {"count": 4, "radius": 2.0, "mix": 1.0}], ids=["shared", "own", "mix"])
@pytest.mark.parametrize(("what", "number"), BROKEN)
def test_what_is_broken_is_refused_and_the_rest_learnt(settings, what, number):
    memory = make(**settings)
    given = {"x": WHOLE, "y": Y, "keys": WHOLE[:, : settings.get("keys", 5)]}
    where = jnp.array([3, 4, 13])
    spoilt = {**given, what: given[what].at[where, 1].set(number)}
    rest = {name: jnp.delete(rows, where, axis=0) for name, rows in given.items()}
    state = memory.absorb(memory.init(), **spoilt)
    assert (state.seen, state.refused) == (45, 3)
    wanted = memory.absorb(memory.init(), **rest)._replace(refused=jnp.int32(3))
    same(state, wanted)


@pytest.mark.parametrize("settings", [{"shell_rate": 0.5}, {**OWN, "shell_rate": 0.5}], ids=["shared", "own"])
def test_of_a_batch_that_is_all_broken_only_the_count_is_kept(settings):
    memory = make(**settings)
    x, y, keys = two_contexts()
    keys = keys if "keys" in settings else None
    state = memory.absorb(memory.init(), x, y, keys)
    assert (state.shell != 0).any()
    same(memory.absorb(state, x * jnp.nan, y, keys)._replace(refused=jnp.int32(0)), state)
    empty = memory.absorb(memory.init(), x * jnp.nan, y, keys)
    same(empty._replace(refused=jnp.int32(0)), memory.init())
    assert (memory.read(memory.consolidate(empty), x, keys) == 0).all()


def test_numbers_whose_squares_cannot_be_added_are_refused():
    memory = make()
    state = memory.absorb(memory.init(), jnp.full((5, 5), 1.5e19), Y[:5])
    assert state.refused == 5 and jnp.isfinite(memory.consolidate(state).weights).all()


def test_groups_of_a_nucleus_do_without_the_refused():
    memory = make(**OWN, nucleus=4)
    keys = jnp.array([[0.0, 0], [0, 0], [0, 0], [0, 0], [9, 9], [9, 9], [9, 9], [0, 0]])
    x = X[:8].at[3].set(jnp.nan)
    assert memory.absorb(memory.init(), x, Y[:8], keys).slots.mass.tolist() == [4, 3, 0, 0]
    x = x.at[4].set(jnp.nan)
    assert memory.absorb(memory.init(), x, Y[:8], keys).slots.mass.tolist() == [6, 0, 0, 0]


def test_a_budget_of_one_slot_is_a_shared_map():
    x, y, keys = two_contexts()
    one, shared = make(**{**OWN, "count": 1}), make(**{**OWN, "maps": "shared"})
    close(one.read(learnt(one, x, y, keys), x, keys), shared.read(learnt(shared, x, y, keys), x, keys))


def test_it_compiles_once_and_carries_through_a_scan():
    made, traces = condensate.make(5, 3, **{**OWN, "keys": None}, shell_rate=0.1), []
    absorb = jax.jit(lambda *given: (traces.append(None), made.absorb(*given))[1])
    state = made.init()
    for at in range(0, 48, 12):
        state = absorb(state, X[at : at + 12], Y[at : at + 12])
    assert len(traces) == 1
    take = lambda state, now: (made.consolidate(made.absorb(state, *now)), None)
    scan = jax.jit(lambda x, y: jax.lax.scan(take, made.init(), (x.reshape(4, 12, 5), y.reshape(4, 12, 3)))[0])
    close(scan(X, Y).weights, made.consolidate(state).weights, 1e-5)


@pytest.mark.parametrize("maps", condensate.MAPS)
def test_a_map_over_settings_is_a_loop(maps):
    def run(ridge, radius):
        memory = condensate.make(5, 3, count=4, maps=maps, ridge=ridge, radius=radius, shell_rate=0.1)
        state = memory.consolidate(memory.absorb(memory.init(), X[:24], Y[:24]))
        state = memory.coarsen(memory.absorb(state, X[24:], Y[24:]), 1.0)
        return memory.read(state, X), state.slots.mass

    ridge, radius = jnp.array([1e-3, 1.0]), jnp.array([jnp.inf, 1.5])
    at_once = jax.jit(jax.vmap(run))(ridge, radius)
    assert (at_once[1][0] > 0).sum() == 1 and (at_once[1][1] > 0).sum() > 1
    for k in range(2):
        alone = jax.jit(run)(ridge[k], radius[k])
        np.testing.assert_allclose(at_once[0][k], alone[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(at_once[1][k], alone[1])


@pytest.mark.parametrize("maps", condensate.MAPS)
def test_answers_have_gradients(maps):
    x, y, keys = two_contexts()
    state = learnt(make(**{**OWN, "maps": maps}), x, y, keys)
    memory = condensate.make(5, 3, **{**OWN, "maps": maps})
    found = jax.jit(jax.grad(lambda x: (memory.read(state, x, keys) * y).sum()))(x)
    where = slots.nearest(state.slots, keys) if maps == "own" else jnp.zeros(96, int)
    np.testing.assert_allclose(found, jnp.einsum("no,nfo->nf", y, state.weights[where, :5]), rtol=1e-4, atol=1e-5)


WRONG = [
    ({}, "x has shape .*not .n, 5.", (X[:, :4], Y)),
    ({}, "x has shape", (X[0], Y)),
    ({}, "y has shape .*not .n, 3.", (X, jnp.asarray(LABELS))),
    ({}, "48 rows of x, and 47 of y", (X, Y[1:])),
    ({"keys": 2}, "keys has shape", (X, Y)),
    ({"keys": 2}, "48 rows of x, and 1 of keys", (X, Y, jnp.zeros((1, 2)))),
    ({"nucleus": 5}, "groups of nucleus=5", (X, Y)),
]


@pytest.mark.parametrize(("settings", "words", "given"), WRONG)
def test_arrays_of_other_widths_are_refused_in_words(settings, words, given):
    memory = condensate.make(5, 3, **settings)
    with pytest.raises(UsageError, match=words):
        memory.absorb(memory.init(), *given)


def test_reading_other_widths_is_refused_too():
    memory = condensate.make(5, 3)
    with pytest.raises(UsageError, match="x has shape"):
        memory.read(memory.init(), X[:, :2])


@pytest.mark.parametrize(
    "settings",
    [
        {"features": 0},
        {"outputs": 0},
        {"count": 0},
        {"keys": 0},
        {"nucleus": 0},
        {"maps": "onw"},
        {"ridge": 0.0},
        {"linker": 0},
        {"radius": -1},
        {"mobility": 7},
        {"shell_decay": 5},
        {"shell_decay": float("nan")},
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(UsageError):
        condensate.make(**{"features": 2, "outputs": 2, **settings})
