"""Features that are fixed by the first examples, and by nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuroml import features
from neuroml.errors import UsageError

IMAGES = jax.random.uniform(jax.random.key(0), (7, 9, 8, 3))
KEY = jax.random.key(1)


@functools.cache
def patches(filters=6, **settings):
    made = features.patch_condensates(filters, **{"size": 3, "samples": 200, "rounds": 3, **settings})
    return made._replace(fit=jax.jit(made.fit), apply=jax.jit(made.apply))


MAPS = {
    "pixels": features.pixels(),
    "random": features.random_features(6),
    "patches": patches(),
    "mirror": patches(mirror=True),
}
FITTED = {name: made.fit(KEY, IMAGES) for name, made in MAPS.items()}
each_map = pytest.mark.parametrize("name", MAPS)


@each_map
def test_the_same_key_and_examples_give_the_same_features(name):
    jax.tree.map(np.testing.assert_array_equal, MAPS[name].fit(KEY, IMAGES), FITTED[name])


@pytest.mark.parametrize("name", ["random", "patches"])
def test_another_key_or_other_examples_give_others(name):
    for params in (MAPS[name].fit(jax.random.key(2), IMAGES), MAPS[name].fit(KEY, 0.5 * IMAGES[:5] ** 2)):
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, FITTED[name])
        assert any(jax.tree.leaves(changed))


@each_map
def test_features_of_an_image_depend_on_that_image_alone(name):
    whole = MAPS[name].apply(FITTED[name], IMAGES)
    alone = MAPS[name].apply(FITTED[name], IMAGES[2:3])
    np.testing.assert_allclose(alone[0], whole[2], rtol=1e-4, atol=1e-4)


def test_patch_features_are_standardized_by_the_first_examples_only():
    first = MAPS["patches"].apply(FITTED["patches"], IMAGES)
    assert first.shape == (7, 2 * 2**2 * 6)
    np.testing.assert_allclose(first.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(first.std(0), 1, atol=0.02)
    later = MAPS["patches"].apply(FITTED["patches"], jax.random.uniform(KEY, (20, 9, 8, 3)) ** 3)
    assert jnp.abs(later.mean(0)).max() > 0.5


def test_the_mirror_image_has_the_same_features():
    mirrored = IMAGES[:, :, ::-1]
    for name, same in (("mirror", True), ("patches", False)):
        one, two = (MAPS[name].apply(FITTED[name], view) for view in (IMAGES, mirrored))
        assert np.allclose(one, two, atol=1e-4) == same


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_size_of_chunks_does_not_matter(chunk):
    made = patches(chunk=chunk)
    params = made.fit(KEY, IMAGES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), params, FITTED["patches"])
    np.testing.assert_allclose(made.apply(params, IMAGES), MAPS["patches"].apply(params, IMAGES), rtol=1e-4, atol=1e-3)


def test_the_code_is_what_the_docstring_says():
    """One patch as large as the image, in one region, by hand."""
    made = features.patch_condensates(2, size=8, pool=1, samples=30, threshold=0.1)
    images = jax.random.uniform(KEY, (6, 8, 8, 1))
    params = made.fit(KEY, images)
    rows = np.asarray(images.reshape(6, 64))
    rows = rows - rows.mean(1, keepdims=True)
    rows = rows / np.sqrt(rows.var(1, keepdims=True) + 0.01)
    response = rows @ np.asarray(params["directions"]) - np.asarray(params["offset"])
    code = np.sqrt(np.concatenate([np.maximum(sign * response - 0.1, 0) for sign in (1, -1)], axis=1))
    found = made.apply(params, images) * params["spread"] + params["center"]
    np.testing.assert_allclose(found, code, rtol=1e-3, atol=1e-3)


def test_winner_take_all_finds_the_directions_that_patches_gather_around():
    """Rows along two axes, either sign: the dictionary turns to them."""
    random = np.random.default_rng(0)
    axes, which = np.eye(4, dtype=np.float32)[:2], random.permutation(np.arange(200) % 2)
    rows = axes[which] * random.choice([-1, 1], (200, 1)) + 0.05 * random.normal(size=(200, 4)).astype(np.float32)
    found = np.abs(features._condense(jnp.asarray(rows), 6, 10) @ axes.T)
    assert (found.max(0) > 0.99).all()


def test_winner_take_all_is_a_loop_over_rows():
    rows = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    dictionary = rows[:4] / np.linalg.norm(rows[:4], axis=1, keepdims=True)
    for _ in range(3):
        total = np.zeros((4, 3))
        for row in rows:
            winner = np.argmax(np.abs(dictionary @ row))  # a filter answers its negative, too
            total[winner] += (dictionary[winner] @ row) * row
        dictionary = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(features._condense(jnp.asarray(rows), 4, 3), dictionary, rtol=1e-4, atol=1e-5)


def test_no_rounds_leave_the_patches_as_they_were_drawn():
    """The content-free control."""
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(40, 3)), jnp.float32)
    wanted = rows[:4] / jnp.linalg.norm(rows[:4], axis=1, keepdims=True)
    np.testing.assert_allclose(features._condense(rows, 4, 0), wanted, rtol=1e-6)
    params = patches(rounds=0).fit(KEY, IMAGES)
    assert (params["directions"] != FITTED["patches"]["directions"]).any()


def test_more_filters_than_patches_are_refused():
    with pytest.raises(UsageError, match="filters=9.*samples=8"):
        patches(filters=9, samples=8)


def test_as_many_filters_as_patches_and_flat_images_are_no_disaster():
    made = patches(filters=8, samples=8)
    flat = jnp.full((3, 9, 8, 3), 0.5)
    for first in (IMAGES, flat):
        params = made.fit(KEY, first)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((params, made.apply(params, IMAGES))))


def test_random_features_approximate_the_gaussian_kernel():
    x = jax.random.normal(KEY, (20, 4))
    squares = ((x[:, None] - x) ** 2).sum(-1)
    for bandwidth in (0.5, 1.0):
        made = features.random_features(20_000, bandwidth=bandwidth)
        rows = made.apply(made.fit(jax.random.key(3), x), x)
        # The mean square of the distance between two examples drawn anew and independently: from itself, 0.
        kernel = jnp.exp(-squares / (2 * bandwidth**2 * squares.mean()))
        np.testing.assert_allclose(rows @ rows.T / 20_000, kernel, atol=0.04)


def test_constant_inputs_have_random_features():
    made = features.random_features(5)
    assert jnp.isfinite(made.apply(made.fit(KEY, jnp.ones((3, 4))), jnp.ones((3, 4)))).all()


def test_images_of_whole_numbers_are_welcome():
    images = (255 * IMAGES).astype(jnp.uint8)
    for made in MAPS.values():
        assert made.apply(made.fit(KEY, images), images).dtype == jnp.float32


@pytest.mark.parametrize("name", ["size", "pool", "stride", "chunk", "filters", "samples"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(UsageError, match="at least"):
        features.patch_condensates(**{"filters": 2, name: int(name == "samples")})


def test_a_width_below_one_is_refused():
    with pytest.raises(UsageError, match="width=0"):
        features.random_features(0)


@pytest.mark.parametrize(("shape", "settings"), [((8, 4, 1), {}), ((8, 8, 1), {"size": 9}), ((8, 8, 1), {"pool": 4})])
def test_images_without_room_for_the_regions_are_refused(shape, settings):
    made = features.patch_condensates(2, **{"size": 6, **settings})
    with pytest.raises(UsageError, match="too few for"):
        made.fit(KEY, jnp.zeros((2, *shape)))


def test_patches_of_a_single_value_are_refused_and_of_one_pixel_in_colours_are_not():
    made = features.patch_condensates(2, size=1, samples=50)
    with pytest.raises(UsageError, match="its own mean"):
        made.fit(KEY, IMAGES[..., :1])
    assert made.apply(made.fit(KEY, IMAGES), IMAGES).std() > 0.1


def test_what_is_no_image_is_refused():
    with pytest.raises(UsageError, match="images have the shape"):
        features.patch_condensates(2).fit(KEY, jnp.zeros((5, 16)))
