import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

from neuroml import metrics
from neuroml.errors import UsageError

# Task 2 is known best before it is trained, so that the definitions of forgetting part.
MATRIX = [
    [0.8, 0.9, 0.2],
    [0.5, 0.6, 0.4],
    [0.7, 0.3, 0.5],
]
DIAGONAL_METRICS = [
    metrics.average_incremental_accuracy,
    metrics.learning_accuracy,
    metrics.forgetting,
    metrics.backward_transfer,
    metrics.forward_transfer,
]
METRICS = [metrics.average_accuracy, *DIAGONAL_METRICS]
VARIANTS = [
    *METRICS,
    lambda m: metrics.forgetting(m, "last"),
    lambda m: metrics.forgetting(m, "mammoth"),
    lambda m: metrics.backward_transfer(m, "all_pairs"),
    lambda m: metrics.forward_transfer(m, random=[0.1, 0.2, 0.3]),
]
square = strategies.integers(2, 6).flatmap(
    lambda tasks: arrays.arrays(float, (tasks, tasks), elements=strategies.floats(0, 100, width=32))
)


def test_values_by_hand():
    assert metrics.average_accuracy(MATRIX) == pytest.approx((0.7 + 0.3 + 0.5) / 3)
    # Rows: 0.8; (0.5 + 0.6) / 2 = 0.55; (0.7 + 0.3 + 0.5) / 3 = 0.5.
    assert metrics.average_incremental_accuracy(MATRIX) == pytest.approx((0.8 + 0.55 + 0.5) / 3)
    assert metrics.learning_accuracy(MATRIX) == pytest.approx((0.8 + 0.6 + 0.5) / 3)


def test_incremental_accuracy_per_phase_is_the_curve():
    curve = metrics.average_incremental_accuracy(MATRIX, per_phase=True)
    np.testing.assert_allclose(curve, [0.8, 0.55, 0.5])


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("chaudhry", [0.8 - 0.7, 0.9 - 0.3]),  # the best of rows 1 and 2, zero-shot 0.9 included
        ("last", [0.8 - 0.7, 0.6 - 0.3]),  # the diagonal
        ("mammoth", [0.8 - 0.7, 0.9 - 0.3]),
    ],
)
def test_forgetting_by_hand(definition, expected):
    np.testing.assert_allclose(metrics.forgetting(MATRIX, definition, per_task=True), expected)
    assert metrics.forgetting(MATRIX, definition) == pytest.approx(np.mean(expected))


def test_forgetting_of_a_task_that_ends_best():
    matrix = [[0.5, 0.0], [0.75, 1.0]]  # task 1 gains 0.25 by the end
    assert metrics.forgetting(matrix, "chaudhry") == -0.25
    assert metrics.forgetting(matrix, "last") == -0.25
    assert metrics.forgetting(matrix, "mammoth") == 0.0


def test_default_forgetting_is_chaudhry():
    assert metrics.forgetting(MATRIX) == metrics.forgetting(MATRIX, "chaudhry")
    assert metrics.forgetting(MATRIX) != metrics.forgetting(MATRIX, "last")


def test_transfer_by_hand():
    assert metrics.backward_transfer(MATRIX) == pytest.approx(((0.7 - 0.8) + (0.3 - 0.6)) / 2)
    # Pairs (2, 1), (3, 1), (3, 2).
    expected = ((0.5 - 0.8) + (0.7 - 0.8) + (0.3 - 0.6)) / 3
    assert metrics.backward_transfer(MATRIX, "all_pairs") == pytest.approx(expected)
    assert metrics.forward_transfer(MATRIX) == pytest.approx((0.9 + 0.4) / 2)
    # The baseline of the first task is not used: 99 must not show.
    with_baseline = metrics.forward_transfer(MATRIX, random=[99.0, 0.5, 0.25])
    assert with_baseline == pytest.approx((0.9 - 0.5 + 0.4 - 0.25) / 2)


@pytest.mark.parametrize("tasks", [1, 2])
def test_one_task_has_nothing_to_forget_or_transfer(tasks):
    matrix = np.full((tasks, tasks), 0.5)
    for metric in (metrics.forgetting, metrics.backward_transfer, metrics.forward_transfer):
        assert math.isnan(metric(matrix)) == (tasks == 1)
    for metric in (metrics.average_accuracy, metrics.average_incremental_accuracy, metrics.learning_accuracy):
        assert metric(matrix) == 0.5
    assert metrics.forgetting(matrix, per_task=True).shape == (tasks - 1,)


def test_one_task_in_jax_is_nan_too():
    assert math.isnan(jax.jit(metrics.forgetting)(jnp.ones((1, 1))))


def test_nan_above_the_diagonal_is_harmless_where_it_is_not_needed():
    unseen = np.where(np.tri(3, dtype=bool), MATRIX, np.nan)
    # Task 2 now has no zero-shot peak: its best earlier value is the diagonal.
    np.testing.assert_allclose(metrics.forgetting(unseen, per_task=True), [0.1, 0.3])
    np.testing.assert_allclose(metrics.forgetting(unseen, "mammoth", per_task=True), [0.1, 0.3])
    for metric in (
        metrics.average_accuracy,
        metrics.average_incremental_accuracy,
        metrics.learning_accuracy,
        metrics.backward_transfer,
        lambda m: metrics.backward_transfer(m, "all_pairs"),
        lambda m: metrics.forgetting(m, "last"),
    ):
        assert metric(unseen) == metric(MATRIX)
    assert math.isnan(metrics.forward_transfer(unseen))


@pytest.mark.parametrize("metric", VARIANTS)
def test_all_nan_gives_nan_without_a_warning(metric):
    assert math.isnan(metric(np.full((3, 3), np.nan)))
    assert math.isnan(metric(jnp.full((3, 3), jnp.nan)))


@pytest.mark.parametrize("definition", ["chaudhry", "last", "mammoth"])
def test_nan_in_the_last_row_is_nan_for_that_task_only(definition):
    matrix = np.array(MATRIX)
    matrix[-1, 0] = np.nan
    lost = metrics.forgetting(matrix, definition, per_task=True)
    assert np.isnan(lost).tolist() == [True, False]
    assert math.isnan(metrics.forgetting(matrix, definition))
    assert math.isnan(metrics.average_accuracy(matrix))


def test_none_is_nan_as_in_a_result_file():
    assert metrics.forgetting([[0.75, None], [0.5, 1.0]]) == 0.25


def test_per_cent_scales_the_result():
    for metric in METRICS:
        assert metric(100 * np.array(MATRIX)) == pytest.approx(100 * metric(MATRIX))
    assert metrics.average_accuracy(np.array([[50, 75]])) == 62.5  # whole numbers too


def test_joint_training_is_one_phase():
    assert metrics.average_accuracy([[0.5, 1.0]]) == 0.75
    for metric in DIAGONAL_METRICS:
        with pytest.raises(UsageError, match=r"\(1, 2\).*as many phases as tasks"):
            metric([[0.5, 1.0]])


@pytest.mark.parametrize("metric", METRICS)
def test_bad_matrices_are_refused(metric):
    with pytest.raises(UsageError, match="infinity"):
        metric([[1.0, math.inf], [1.0, 1.0]])
    with pytest.raises(UsageError, match="infinity"):
        metric(jnp.array([[1.0, 1.0], [-jnp.inf, 1.0]]))
    with pytest.raises(UsageError, match=r"\(2, 3, 3\).*vmap"):
        metric(np.zeros((2, 3, 3)))
    with pytest.raises(UsageError, match=r"\(3,\)"):
        metric([1.0, 1.0, 1.0])
    with pytest.raises(UsageError, match="empty"):
        metric(np.zeros((0, 0)))
    with pytest.raises(UsageError, match="equally long"):
        metric([[1.0], [1.0, 1.0]])


def test_unknown_definitions_name_the_known_ones():
    with pytest.raises(UsageError, match="Did you mean 'chaudhry'"):
        metrics.forgetting(MATRIX, "chaudry")
    with pytest.raises(UsageError, match="Known: all_pairs, gem"):
        metrics.backward_transfer(MATRIX, "bwt")


@pytest.mark.parametrize("random", [[0.1], 0.1, [[0.1, 0.1, 0.1]]])
def test_random_needs_one_entry_a_task(random):
    with pytest.raises(UsageError, match="each of 3 tasks"):
        metrics.forward_transfer(MATRIX, random=np.asarray(random))


@pytest.mark.parametrize("metric", METRICS)
def test_the_result_follows_the_library_of_the_matrix(metric):
    assert type(metric(MATRIX)) is float
    assert type(metric(np.array(MATRIX, dtype=np.float32))) is float
    value = metric(jnp.array(MATRIX))
    assert isinstance(value, jax.Array) and value.shape == ()


@pytest.mark.parametrize("metric", VARIANTS)
def test_jit_and_vmap_agree_with_numpy(metric):
    seeds = np.random.default_rng(0).uniform(size=(5, 3, 3)).astype(np.float32)
    seeds[0, 0, 2] = np.nan
    expected = [metric(matrix) for matrix in seeds]
    np.testing.assert_allclose(jax.jit(jax.vmap(metric))(jnp.asarray(seeds)), expected, rtol=1e-5, atol=1e-6)


@hypothesis.given(square)
@hypothesis.settings(deadline=None)
def test_definitions_of_forgetting_are_ordered(matrix):
    last, chaudhry, mammoth = (
        metrics.forgetting(matrix, definition, per_task=True) for definition in ("last", "chaudhry", "mammoth")
    )
    assert (last <= chaudhry).all() and (chaudhry <= mammoth).all() and (mammoth >= 0).all()
    np.testing.assert_array_equal(mammoth, np.maximum(chaudhry, 0))


@hypothesis.given(square)
@hypothesis.settings(deadline=None)
def test_identities_between_metrics(matrix):
    tasks = len(matrix)
    assert metrics.backward_transfer(matrix) == pytest.approx(-metrics.forgetting(matrix, "last"), abs=1e-9)
    # Final accuracy is what was learnt, plus what later tasks did to the T - 1 earlier ones.
    final = metrics.learning_accuracy(matrix) + metrics.backward_transfer(matrix) * (tasks - 1) / tasks
    assert metrics.average_accuracy(matrix) == pytest.approx(final, abs=1e-9)
    assert metrics.average_incremental_accuracy(matrix, per_phase=True)[-1] == pytest.approx(
        metrics.average_accuracy(matrix)
    )
