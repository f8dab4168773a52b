"""A domain-incremental toy: two clusters, the same two labels, another direction between them in each task.

Task 0 tells the classes apart by the first four inputs. In task 1 the other four tell them apart, and the first four
mislead: what task 1 teaches of them ruins task 0, though one network can do both. No network is right for all inputs.
"""

import jax
import jax.numpy as jnp
import numpy as np

INPUTS, CLASSES = 8, 2
DIRECTION = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [-0.3, -0.3, -0.3, -0.3, 1, 1, 1, 1]], np.float32)


def examples(seed, task, n=512):
    """Returns inputs [n, 8] and labels [n] of a task, as numpy arrays."""
    random = np.random.default_rng([seed, task])
    labels = random.integers(0, CLASSES, n)
    inputs = (2 * labels - 1)[:, None] * DIRECTION[task] + random.normal(size=(n, INPUTS))
    return inputs.astype(np.float32), labels


def batches(seed, task, steps=150, size=64):
    """Yields batches of one task."""
    inputs, labels = examples(seed, task)
    for i in range(steps):
        here = slice(i * size % len(inputs), i * size % len(inputs) + size)
        yield inputs[here], labels[here]


def accuracy(predict, seed):
    """Returns the accuracy of `predict(inputs) -> logits` on new examples of both tasks."""
    tests = [examples(seed + 1000, task) for task in (0, 1)]
    return [float((np.asarray(predict(inputs)).argmax(1) == labels).mean()) for inputs, labels in tests]


def weights(seed, hidden=16):
    """Returns the weights of a small network as a plain dict."""
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "hidden": {"w": jax.random.normal(first, (INPUTS, hidden)) / INPUTS**0.5, "b": jnp.zeros(hidden)},
        "out": {"w": jax.random.normal(second, (hidden, CLASSES)) / hidden**0.5, "b": jnp.zeros(CLASSES)},
    }


def network(params, x):
    """Returns logits [n, 2]."""
    hidden = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["out"]["w"] + params["out"]["b"]
