"""What holds for every scenario: a key makes one stream, test images stay out of training, bad arguments are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from toy_streams import (
    BLENDED,
    DATA,
    JOINT,
    PERMUTED,
    RELABELLED,
    ROTATED,
    SPLIT,
    TEST,
    TRAIN,
    WINDOW,
    compiled,
    identify,
    look,
    over_keys,
)

from neuroml.errors import UsageError
from neuroml.streams import scenarios

ALL = {
    "split": SPLIT[3, "class"],
    "permuted": PERMUTED["task"],
    "rotated": ROTATED,
    "label_permuted": RELABELLED,
    "joint": JOINT["domain"],
    "blended": BLENDED[WINDOW],
}
each = pytest.mark.parametrize("maker", ALL.values(), ids=ALL)


@each
def test_a_maker_vmapped_over_keys_is_the_maker_for_each_key(maker):
    together = over_keys(maker, lambda stream: jax.tree.leaves(stream)[4:], 3)  # all but the data
    for i in range(3):
        alone = jax.tree.leaves(compiled(maker)(DATA, jax.random.key(i)))[4:]
        jax.tree.map(np.testing.assert_array_equal, [leaf[i] for leaf in together], alone)


@each
def test_two_keys_make_two_streams_and_one_key_makes_one(maker):
    leaves = lambda seed: jax.tree.leaves(look(maker, seed)[1:])
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))
    assert same(0, 0)
    assert not same(0, 1)


@pytest.mark.parametrize("name", ["permuted", "blended"])
def test_a_stream_outside_jit_is_the_one_inside(name):
    maker = ALL[name]
    outside, inside = maker(DATA, jax.random.key(5)), compiled(maker)(DATA, jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, outside, inside)


@each
def test_no_test_image_is_shown_in_training(maker):
    stream, train, test = look(maker, 0)
    if maker not in (PERMUTED["task"], ROTATED):  # their images are changed
        assert identify(np.concatenate([batch.x for batch in train]))[0] == {"train"}
        assert identify(np.concatenate([batch.x for batch in test]))[0] == {"test"}
    for index, images in ((stream.index, TRAIN), (stream.test_index, TEST)):
        assert index.dtype == jnp.int32 and index.min() >= 0 and index.max() < images


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scenarios.split(4)(DATA, jax.random.key(0)), ("6 classes", "toy", "4 equal tasks")),
        (lambda: scenarios.split(0)(DATA, jax.random.key(0)), ("0 equal tasks",)),
        (lambda: scenarios.split(5, "clas"), ("'clas'", "'class'", "domain, task")),
        (lambda: scenarios.permuted(0), ("tasks=0",)),
        (lambda: scenarios.permuted(2, pad=-1), ("pad=-1",)),
        (lambda: scenarios.permuted(2, "tasks"), ("'tasks'", "'task'")),
        (lambda: scenarios.permuted(2, "class", shared_head=True), ("shared_head", "class")),
        (lambda: scenarios.rotated(2, "class", shared_head=True), ("shared_head", "class")),
        (lambda: scenarios.rotated(-1), ("tasks=-1",)),
        (lambda: scenarios.rotated(largest=-90.0), ("largest=-90.0",)),
        (lambda: scenarios.rotated(largest=float("nan")), ("largest=nan",)),
        (lambda: scenarios.label_permuted(0), ("tasks=0",)),
        (lambda: scenarios.permuted(2, examples=0), ("examples=0",)),
        (lambda: scenarios.random_labels(2, examples=0), ("examples=0",)),
        (lambda: scenarios.random_labels(2, examples=99)(DATA, jax.random.key(0)), ("examples=99", "39 training")),
        (lambda: scenarios.blended(SPLIT[3, "class"], -5), ("window=-5",)),
        (
            lambda: scenarios.split(3)(toy.dataset(train=(3, 3, 3, 3, 0, 0)), jax.random.key(0)),
            ("2 classes", "toy", "no training images"),
        ),
        (
            lambda: scenarios.split(3)(toy.dataset(test=(0, 1, 2, 0, 0, 1)), jax.random.key(0)),
            ("3 classes", "toy", "no test images"),
        ),
        (
            lambda: scenarios.blended(scenarios.split(6), 1)(toy.dataset(train=(1, 1, 1, 1, 1, 3)), jax.random.key(0)),
            ("8 training images", "toy", "6 phases"),
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(UsageError) as error:
        make()
    for word in words:
        assert word in str(error.value)
