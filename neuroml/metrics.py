"""How well a learner learnt, kept and transferred: each number from one matrix of accuracies.

`accuracy[t, k]` is the accuracy on task k after training on task t, both in the order of the stream. T is the
number of tasks and counts from 1 in the formulas, so that `accuracy[T, k]` is the last row. Forgetting and
transfer have several published definitions; each has a name here.

A jax array gives a jax scalar and works under `jax.jit` and `jax.vmap`; a numpy array or nested list (`None`
is NaN) gives a float. Accuracies may be fractions or per cent. NaN marks a task that was not tested: where
the formula needs that entry the result is NaN, anywhere else it does no harm. Where there is nothing to
average, such as the forgetting of a single task, the result is NaN too.
"""

from collections.abc import Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from neuroml.errors import UsageError, unknown

Matrix = jax.Array | np.ndarray | Sequence  # [phases, tasks]
Number = jax.Array | float  # a jax scalar for a jax matrix


def average_accuracy(accuracy: Matrix) -> Number:
    """Accuracy at the end of the stream, the mean over all tasks.

        average_accuracy = mean_k accuracy[T, k]

    Args:
        accuracy: `[phases, tasks]`. Need not be square: joint training is one phase, `[1, T]`.

    Raises:
        UsageError: The matrix has not two axes, has no entry, or holds an infinity.

    Reference:
        ACC of Lopez-Paz and Ranzato 2017, Gradient Episodic Memory.

    >>> average_accuracy([[0.9, 0.5], [0.7, 0.8]])
    0.75
    """
    return _mean(_matrix(accuracy)[-1])


def average_incremental_accuracy(accuracy: Matrix, *, per_phase: bool = False) -> Number | np.ndarray:
    """Accuracy over the tasks seen so far, the mean over the whole stream and not only its end.

        average_incremental_accuracy = mean_t mean_{k <= t} accuracy[t, k]

    Args:
        accuracy: `[T, T]`. Entries above the diagonal are not read.
        per_phase: Return the curve `[T]` over t instead of its mean.

    Raises:
        UsageError: The matrix is not square, has no entry, or holds an infinity.

    Reference:
        Rebuffi et al. 2017, iCaRL. There each test image weighs the same, here each task: equal when tasks
        have as many test images. Some later papers leave the first phase out; iCaRL and we do not.

    >>> average_incremental_accuracy([[1.0, 0.5], [0.5, 1.0]])
    0.875
    """
    matrix = _square(accuracy)
    curve = _library(matrix).stack([matrix[phase, : phase + 1].mean() for phase in range(len(matrix))])
    return curve if per_phase else _mean(curve)


def learning_accuracy(accuracy: Matrix) -> Number:
    """Accuracy on each task just after it was learnt, the mean over tasks: plasticity without memory.

        learning_accuracy = mean_k accuracy[k, k]

    Args:
        accuracy: `[T, T]`. Only the diagonal is read.

    Raises:
        UsageError: The matrix is not square, has no entry, or holds an infinity.

    Reference:
        LA of Riemer et al. 2019, Learning to Learn without Forgetting (MER).

    >>> learning_accuracy([[1.0, 0.25], [0.5, 0.75]])
    0.875
    """
    return _mean(_square(accuracy).diagonal())


def forgetting(accuracy: Matrix, definition: str = "chaudhry", *, per_task: bool = False) -> Number | np.ndarray:
    """Accuracy on earlier tasks that is lost by the end of the stream, the mean over all tasks but the last.

        chaudhry = mean_{k < T} max_{t < T} accuracy[t, k] - accuracy[T, k]
        last     = mean_{k < T}             accuracy[k, k] - accuracy[T, k]
        mammoth  = mean_{k < T} max_{t}     accuracy[t, k] - accuracy[T, k]

    "chaudhry" is below zero where the end is better than ever before; "mammoth" has the last row in its
    maximum, so it is never below zero and hides such gains; "last" is `-backward_transfer(accuracy)`.
    Task for task, last <= chaudhry <= mammoth.

    Args:
        accuracy: `[T, T]`. The maxima skip NaN, so tasks need not be tested before they are met.
        definition: "chaudhry", "last" or "mammoth".
        per_task: Return the forgetting of each task, `[T - 1]`, instead of the mean.

    Raises:
        UsageError: The definition is unknown; the matrix is not square, has no entry, or holds an infinity.

    Reference:
        "chaudhry": Chaudhry et al. 2018, Riemannian Walk, equation 3; as printed there, the maximum takes in
        rows before task k was trained (Continuum's code leaves them out). "last": StreamForgetting of
        Avalanche. "mammoth": utils/metrics.py of Mammoth, which reads an untested entry as zero, not as
        missing.

    >>> m = [[0.5, 0.5, 0.0], [1.0, 1.0, 0.0], [0.75, 0.5, 1.0]]
    >>> forgetting(m), forgetting(m, "last"), forgetting(m, "last", per_task=True)
    (0.375, 0.125, array([-0.25,  0.5 ]))
    """
    matrix = _square(accuracy)
    if definition == "chaudhry":
        before = _best(matrix[:-1])
    elif definition == "last":
        before = matrix.diagonal()
    elif definition == "mammoth":
        before = _best(matrix)
    else:
        raise unknown("definition of forgetting", definition, ("chaudhry", "last", "mammoth"))
    lost = (before - matrix[-1])[:-1]
    return lost if per_task else _mean(lost)


def backward_transfer(accuracy: Matrix, definition: str = "gem") -> Number:
    """What later tasks did to earlier ones: forgotten if below zero, better in hindsight if above.

        gem       = mean_{k < T} accuracy[T, k] - accuracy[k, k]
        all_pairs = mean_{k < t} accuracy[t, k] - accuracy[k, k]

    Args:
        accuracy: `[T, T]`. Entries above the diagonal are not read.
        definition: "gem" looks at the end of the stream, "all_pairs" at all T (T - 1) / 2 pairs k < t.

    Raises:
        UsageError: The definition is unknown; the matrix is not square, has no entry, or holds an infinity.

    Reference:
        "gem": Lopez-Paz and Ranzato 2017. "all_pairs": Diaz-Rodriguez et al. 2018, Don't forget, there is
        more than forgetting; they then split it into a gain and a loss, here it is one signed number.

    >>> m = [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.75, 0.5, 1.0]]
    >>> backward_transfer(m), round(backward_transfer(m, "all_pairs"), 3)
    (-0.375, -0.417)
    """
    matrix = _square(accuracy)
    if definition == "gem":
        return _mean((matrix[-1] - matrix.diagonal())[:-1])
    if definition == "all_pairs":
        phase, task = np.tril_indices(len(matrix), k=-1)
        return _mean(matrix[phase, task] - matrix[task, task])
    raise unknown("definition of backward transfer", definition, ("gem", "all_pairs"))


def forward_transfer(accuracy: Matrix, random: Matrix | None = None) -> Number:
    """What earlier tasks did for a task before it was trained, compared with an untrained network.

        forward_transfer = mean_{k >= 2} accuracy[k - 1, k] - random[k]

    Args:
        accuracy: `[T, T]`. Each task must be tested one phase before it is trained.
        random: `[T]`, accuracy of the untrained network on each task; the first entry is not used. None is a
            baseline of zero, which leaves plain zero-shot accuracy: Continuum and Diaz-Rodriguez et al. 2018
            do so (over all pairs of tasks). Such a value does not compare with one that has a baseline.

    Raises:
        UsageError: `random` is not `[T]`; the matrix is not square, has no entry, or holds an infinity.

    Reference:
        FWT of Lopez-Paz and Ranzato 2017, Gradient Episodic Memory.

    >>> m = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.75], [0.5, 0.5, 1.0]]
    >>> forward_transfer(m, random=[0.5, 0.5, 0.5]), forward_transfer(m)
    (0.125, 0.625)
    """
    matrix = _square(accuracy)
    baseline = np.zeros(len(matrix)) if random is None else _library(random).asarray(random, dtype=float)
    if baseline.shape != (len(matrix),):
        raise UsageError(f"random has shape {baseline.shape}: give one accuracy for each of {len(matrix)} tasks.")
    return _mean(matrix.diagonal(1) - baseline[1:])


def _library(values: Matrix):
    """Returns jax.numpy for a jax array or tracer, numpy for all else."""
    return jnp if isinstance(values, jax.Array) else np


def _matrix(accuracy: Matrix) -> jax.Array | np.ndarray:
    """Returns the matrix in floating point, or raises. Infinities cannot be seen under jit or vmap."""
    try:
        matrix = _library(accuracy).asarray(accuracy, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(
            "accuracy is not a [phases, tasks] matrix of numbers. "
            "Make its rows equally long: nan stands for a task that was not tested."
        ) from error
    if matrix.ndim != 2 or not matrix.size:
        raise UsageError(
            f"accuracy has shape {matrix.shape}: it must be [phases, tasks] and not empty. "
            "For an axis of seeds, call `jax.vmap(metric)(accuracy)`."
        )
    if not isinstance(matrix, jax.core.Tracer) and np.isinf(matrix).any():
        raise UsageError("accuracy holds an infinity. Use nan for a task that was not tested.")
    return matrix


def _square(accuracy: Matrix) -> jax.Array | np.ndarray:
    """Returns a matrix whose row t was trained on column t, or raises."""
    matrix = _matrix(accuracy)
    if matrix.shape[0] != matrix.shape[1]:
        raise UsageError(
            f"accuracy has shape {matrix.shape}, but this metric asks how well task k was known just after "
            "phase k, so it needs as many phases as tasks. Joint training, one phase, has only an "
            "average_accuracy; of a stream that stopped early, give `accuracy[:phases, :phases]`."
        )
    return matrix


def _best(rows: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Returns the highest entry of each column that is not NaN, or NaN where there is none."""
    library = _library(rows)
    best = library.max(rows, axis=0, initial=-np.inf, where=~library.isnan(rows))
    return library.where(best == -np.inf, np.nan, best)


def _mean(values: jax.Array | np.ndarray) -> Number:
    """Returns the mean, NaN of nothing (where numpy would warn)."""
    mean = values.mean() if values.size else _library(values).asarray(np.nan)
    return mean if isinstance(mean, jax.Array) else float(mean)
