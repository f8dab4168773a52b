"""What memories keep and draw, as distributions over many keys: a chi-square test each, keys fixed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from neuroml import memory, replay_methods
from neuroml.errors import UsageError
from neuroml.method import Situation
from neuroml.streams.stream import Batch

KEYS = jax.random.split(jax.random.key(4), 6000)
draw = jax.jit(memory.sample, static_argnames="n")


def stream(store, items, batch_size, key):
    """Offers `items` to an empty memory in batches; returns its state."""
    batches = items.reshape(-1, batch_size, *items.shape[1:])

    def offer(state, now):
        batch, key = now
        return store.add(state, batch, key), None

    keys = jax.random.split(key, batches.shape[0])
    return jax.lax.scan(offer, store.init(jnp.zeros_like(items[0])), (batches, keys))[0]


def kept(store, items, batch_size, keys=KEYS):
    """Returns what is in every slot for every key, [keys, capacity]."""
    return np.asarray(jax.jit(jax.vmap(lambda k: stream(store, items, batch_size, k).items))(keys))


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_every_subset_of_a_stream_is_equally_likely_in_a_reservoir(batch_size):
    """Three of six examples: 20 subsets. Holds whatever the batches, so all at once is one by one."""
    found = np.sort(kept(memory.reservoir(3), jnp.arange(6), batch_size), axis=1)
    counts = [(found == subset).all(axis=1).sum() for subset in itertools.combinations(range(6), 3)]
    assert sum(counts) == len(KEYS)  # nothing twice, nothing that was never offered
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("batch_size", [1, 8])
def test_early_and_late_examples_stay_with_probability_capacity_over_seen(batch_size):
    """Inclusions of n examples in k slots covary by p (1 - p) n / (n - 1) (I - 1/n): chi-square, n - 1 degrees."""
    n, capacity = 40, 8
    found = kept(memory.reservoir(capacity), jnp.arange(n), batch_size)
    p, counts = capacity / n, np.bincount(found.ravel(), minlength=n)
    statistic = np.sum((counts - p * len(KEYS)) ** 2) / (len(KEYS) * p * (1 - p) * n / (n - 1))
    assert stats.chi2.sf(statistic, n - 1) > 1e-3


def test_a_batch_at_once_fills_the_slots_as_one_by_one_does():
    """Not only which examples stay, also where: of those that fall on one slot the last stays."""
    table = [
        [np.bincount(slot, minlength=6) for slot in kept(memory.reservoir(2), jnp.arange(6), size, keys).T]
        for size, keys in ((1, KEYS[:3000]), (6, KEYS[3000:]))
    ]
    table = np.reshape(table, (2, -1))
    assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3


def test_a_memory_that_is_not_full_holds_everything_in_order():
    for store in (memory.reservoir(5), memory.ring(5)):
        state = stream(store, jnp.arange(7, 11), 2, KEYS[0])
        assert state.items.tolist() == [7, 8, 9, 10, 0]
        assert memory.stored(state).tolist() == [True] * 4 + [False]
        assert state.seen.tolist() == [4]


@pytest.mark.parametrize("batch_size", [1, 12])
def test_a_ring_holds_the_newest(batch_size):
    state = stream(memory.ring(5), jnp.arange(12), batch_size, KEYS[0])
    assert state.items.tolist() == [10, 11, 7, 8, 9]  # example i in slot i mod 5


def test_each_class_has_its_quota_and_is_sampled_uniformly():
    """Labels i mod 3 in a stream of 24, except that class 2 comes but twice."""
    label = np.arange(24) % 3
    label[6:] = np.where(label[6:] == 2, 0, label[6:])
    label = jnp.asarray(label)
    store = memory.class_balanced(9, 3, label=lambda batch: label[batch])
    found = kept(store, jnp.arange(24), 8)
    members = [np.flatnonzero(label == c) for c in range(3)]
    assert (np.sort(found[:, 6:8]) == members[2]).all()  # seldom: both stay
    state = stream(store, jnp.arange(24), 8, KEYS[0])
    assert memory.stored(state).tolist() == [True] * 8 + [False]
    assert state.seen.tolist() == [len(m) for m in members] == [14, 8, 2]
    for c in (0, 1):
        n, p, inside = len(members[c]), 3 / len(members[c]), found[:, 3 * c : 3 * c + 3]
        counts = np.bincount(inside.ravel(), minlength=24)
        assert counts.sum() == counts[members[c]].sum()  # its slots hold nothing else
        assert all(len(set(row)) == 3 for row in inside)
        statistic = np.sum((counts[members[c]] - p * len(KEYS)) ** 2) / (len(KEYS) * p * (1 - p) * n / (n - 1))
        assert stats.chi2.sf(statistic, n - 1) > 1e-3


def test_a_label_that_is_no_class_is_not_kept():
    """Such as -1 for unknown, which as an index would mean the last class."""
    store = memory.class_balanced(4, 2, label=lambda batch: batch)
    state = jax.jit(store.add)(store.init(jnp.int32(0)), jnp.array([-1, 1, 2, -1]), KEYS[0])
    assert memory.stored(state).tolist() == [False, False, True, False]
    assert state.seen.tolist() == [0, 1]


@pytest.mark.parametrize("told, shares", [(True, [2, 4, 6]), (False, [6, 6, 6])])
def test_where_outputs_are_used_again_a_class_has_its_share_in_each_task_if_that_is_told(told, shares):
    """Domain-incremental, two outputs and three tasks: each context keeps as many, from the first on."""
    example = Batch(jnp.zeros(()), jnp.int32(0), jnp.int32(0), jnp.ones(2, bool))
    at = Situation(None, None, 0.1, example, 4, outputs=2, tasks=3, scenario="domain")
    store = replay_methods._store(at, {"capacity": 6, "keep": "class_balanced"}, told)
    state, found = store.init(example), []
    for task in range(3):
        batch = Batch(jnp.zeros(8), jnp.arange(8) % 2, jnp.full(8, task), jnp.ones((8, 2), bool))
        state = store.add(state, batch, KEYS[task])
        found.append(int(memory.stored(state).sum()))
    assert found == shares
    assert not told or sorted(state.items.task.tolist()) == [0, 0, 1, 1, 2, 2]


def test_samples_are_uniform_over_what_is_stored_and_never_blank():
    """In slots with gaps between them: 10, 20 and 30 of class 0, and 32 of class 2, in quotas of three."""
    store = memory.class_balanced(9, 3, label=lambda batch: batch % 10)
    state = jax.jit(store.add)(store.init(jnp.int32(0)), jnp.array([10, 20, 30, 32]), KEYS[0])
    assert state.items.tolist() == [10, 20, 30, 0, 0, 0, 32, 0, 0]
    at_once = draw(state, n=len(KEYS), key=KEYS[1])
    over_keys = jax.jit(jax.vmap(lambda key: memory.sample(state, 1, key)[0]))(KEYS)
    for draws in (at_once, over_keys):
        counts = np.bincount(draws, minlength=33)[[10, 20, 30, 32]]
        assert counts.sum() == len(KEYS)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_distinct_samples_repeat_nothing_and_weigh_equally():
    store = memory.class_balanced(9, 3, label=lambda batch: batch % 10)
    state = jax.jit(store.add)(store.init(jnp.int32(0)), jnp.array([10, 20, 30, 32]), KEYS[0])
    for n, expected in ((3, [1 / 3] * 3), (6, [0.25] * 4 + [0.0] * 2), (20, [0.25] * 4 + [0.0] * 5)):
        drawn, weights = jax.jit(memory.sample_distinct, static_argnames="n")(state, n=n, key=KEYS[1])
        np.testing.assert_allclose(weights, expected, rtol=1e-6)
        kept = drawn[weights > 0].tolist()
        assert len(set(kept)) == len(kept) and set(kept) <= {10, 20, 30, 32}
    firsts = jax.jit(jax.vmap(lambda key: memory.sample_distinct(state, 1, key)[0][0]))(KEYS)
    assert stats.chisquare(np.bincount(firsts, minlength=33)[[10, 20, 30, 32]]).pvalue > 1e-3
    assert (memory.sample_distinct(store.init(jnp.int32(0)), 3, KEYS[0])[1] == 0).all()


def test_older_is_what_was_stored_before_the_last_tick():
    store = memory.ring(5)
    add = jax.jit(store.add)
    state = add(store.init(jnp.int32(0)), jnp.array([1, 2]), KEYS[0])
    assert not memory.older(state).any()
    state = add(memory.tick(state), jnp.array([3, 4]), KEYS[0])
    assert memory.older(state).tolist() == [True, True, False, False, False]
    assert set(draw(state, n=100, key=KEYS[1], among=memory.older(state)).tolist()) == {1, 2}
    state = add(memory.tick(state), jnp.array([5, 6]), KEYS[0])  # 6 takes the slot of 1
    assert state.items.tolist() == [6, 2, 3, 4, 5]
    assert memory.older(state).tolist() == [False, True, True, True, False]


def test_any_tree_is_kept_in_its_dtypes():
    example = {"x": jnp.zeros((2, 2), jnp.uint8), "y": jnp.int32(0), "z": (jnp.zeros(3, jnp.bfloat16),)}
    batch = jax.tree.map(lambda leaf: np.full((3, *leaf.shape), 200, leaf.dtype), example)
    store = memory.reservoir(2)
    state = jax.jit(store.add)(store.init(example), batch, KEYS[0])
    drawn = draw(state, n=5, key=KEYS[1])
    shapes = lambda t: jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), t)
    assert shapes(state.items) == shapes(drawn) == shapes(batch)
    assert all((leaf == 200).all() for leaf in jax.tree.leaves(drawn))


def test_a_map_over_keys_is_a_loop():
    store = memory.class_balanced(4, 2, label=lambda batch: batch % 2)
    run = lambda key: memory.sample(store.add(store.init(jnp.int32(0)), jnp.arange(9), key), 5, key)
    one_by_one = np.stack([jax.jit(run)(key) for key in KEYS[:3]])
    np.testing.assert_array_equal(one_by_one, jax.vmap(run)(KEYS[:3]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: memory.reservoir(0),
        lambda: memory.ring(0),
        lambda: memory.class_balanced(10, 3, label=len),
        lambda: memory.class_balanced(0, 1, label=len),
    ],
)
def test_a_capacity_that_cannot_be(make):
    with pytest.raises(UsageError, match="capacity="):
        make()


# --- greedy_balanced ---


def greedy_by_hand(labels, capacity):
    """Returns how many examples of each class are kept, by the words of the algorithm."""
    held, met = {}, set()
    for label in labels:
        met.add(label)
        if held.get(label, 0) * len(met) < capacity:
            if sum(held.values()) == capacity:
                held[max(sorted(held), key=held.get)] -= 1
            held[label] = held.get(label, 0) + 1
    return held


@pytest.mark.parametrize("batch_size", [1, 5, 30])
@pytest.mark.parametrize("capacity", [4, 7, 12])
def test_a_greedy_memory_shares_its_slots_among_the_classes_met(batch_size, capacity):
    labels = np.concatenate([np.repeat([2, 0], 5), np.random.default_rng(0).permutation(np.repeat([0, 1, 3, 4], 5))])
    store = memory.greedy_balanced(capacity, 6, lambda item: item)
    for length in (10, 15, 30):
        if length % batch_size == 0:
            state = stream(store, jnp.asarray(labels[:length]), batch_size, KEYS[0])
            held = np.bincount(state.items[memory.stored(state)], minlength=6)
            wanted = greedy_by_hand(labels[:length].tolist(), capacity)
            assert held.tolist() == [wanted.get(label, 0) for label in range(6)]
            np.testing.assert_array_equal(state.seen, np.bincount(labels[:length], minlength=6))


def test_who_makes_place_in_a_greedy_memory_is_drawn_at_random():
    """Four slots of class 0, and then one example of class 1: each of the four leaves as often."""
    store = memory.greedy_balanced(4, 2, lambda item: item // 10)
    found = np.sort(kept(store, jnp.array([0, 1, 2, 3, 10]), 5), axis=1)
    left = [(~(found == number).any(axis=1)).sum() for number in range(4)]
    assert sum(left) == len(KEYS) and (found[:, -1] == 10).all()
    assert stats.chisquare(left).pvalue > 1e-3


def test_a_greedy_memory_keeps_nothing_of_other_classes():
    store = memory.greedy_balanced(4, 2, lambda item: item)
    state = stream(store, jnp.array([-1, 0, 2, 1]), 2, KEYS[0])
    assert sorted(state.items[memory.stored(state)].tolist()) == [0, 1] and state.seen.tolist() == [1, 1]
    with pytest.raises(UsageError, match="capacity=0"):
        memory.greedy_balanced(0, 2, lambda item: item)


def test_drawing_from_an_empty_memory_gives_the_batch_at_hand():
    store, batch = memory.ring(3), jnp.array([7, 8])
    drawn, some = memory.sample_or(store.init(jnp.int32(0)), 4, KEYS[0], batch)
    assert drawn.tolist() == [7] * 4 and not some
    drawn, some = memory.sample_or(store.add(store.init(jnp.int32(0)), jnp.array([5]), KEYS[0]), 4, KEYS[0], batch)
    assert drawn.tolist() == [5] * 4 and some


STORES = {
    "reservoir": lambda: memory.reservoir(4),
    "class_balanced": lambda: memory.class_balanced(4, 1, lambda item: jnp.zeros(len(item["x"]), jnp.uint8)),
    "ring": lambda: memory.ring(4),
    "greedy_balanced": lambda: memory.greedy_balanced(4, 1, lambda item: jnp.zeros(len(item["x"]), int)),
}


@pytest.mark.parametrize("name", STORES)
def test_an_example_that_is_not_finite_is_neither_kept_nor_counted(name):
    store = STORES[name]()
    x = jnp.ones((6, 2)).at[1, 0].set(jnp.nan).at[3, 1].set(jnp.inf).at[5].set(-jnp.inf)
    state = store.init({"x": jnp.zeros(2), "number": jnp.int32(0)})
    state = store.add(state, {"x": x, "number": jnp.arange(6)}, KEYS[0])
    assert state.seen.tolist() == [3] and memory.stored(state).tolist() == [True] * 3 + [False]
    assert state.items["number"][:3].tolist() == [0, 2, 4] and jnp.isfinite(state.items["x"]).all()
