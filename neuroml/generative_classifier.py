"""Classes that cannot disturb each other: a generative model each; the answer is whose finds the image likeliest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PRNGKeyArray

from neuroml import losses
from neuroml.autoencoder import Autoencoder
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, StepInfo
from neuroml.streams.stream import Batch


class ClassifierState(NamedTuple):
    """Beside the weights, which have a leading axis of classes: the optimizers' states, alike, and who was met."""

    inner: Any
    met: Bool[Array, " outputs"]


def generative_classifier(
    model: Autoencoder,
    transform: optax.GradientTransformation,
    outputs: int,
    *,
    scale: float,
    samples: int = 50,
) -> Learner:
    r"""Makes the learner that has a generative model of each class and answers by Bayes' rule.

        step:   for each class c in the batch, params_c descends the mean loss of its examples
        answer: log p(x | c), as `model.log_likelihood` estimates it; classes never met are switched off

    A batch of one class changes nothing of another, so nothing is forgotten, in whatever order classes come.

    Args:
      model: of one class, such as `neuroml.autoencoder.autoencoder(...)`.
      transform: the optimizer; every class has a state of its own.
      outputs: number of classes.
      scale: images are divided by it.
      samples: importance samples of an answer; the same ones each time.

    Returns:
      A `Learner`. The loss that its steps report is the negative ELBO in nats; their accuracy is not measured (NaN),
      since an answer costs far more than a step.

    Raises:
      UsageError: `samples` below 1.

    Reference:
      van de Ven, Li, Tolias 2021, "Class-incremental learning with generative classifiers", CVPR workshops.

    How ours differs: the classes of a batch learn at once, each from its share of it, where theirs learn one after the
    other from batches of their own: as many examples a class, in twice the steps at half the size for two classes.

    >>> from neuroml.autoencoder import autoencoder
    >>> model = autoencoder((2, 1, 1), [4], 1)
    >>> learner = generative_classifier(model, optax.adam(0.1), 2, scale=1.0)
    >>> shown = Batch(jnp.eye(2).reshape(2, 2, 1, 1), jnp.arange(2), jnp.zeros(2, int), jnp.ones((2, 2), bool))
    >>> state, step = learner.init(jax.random.key(0)), jax.jit(learner.step)
    >>> for i in range(50):
    ...     state, _ = step(state, shown, jax.random.key(i))
    >>> learner.predict(state, shown).argmax(1).tolist()
    [0, 1]
    """
    if samples < 1:
        raise UsageError(f"samples={samples} must be at least 1.")

    def init(key):
        params = jax.vmap(model.init)(jax.random.split(key, outputs))
        return LearnerState(params, ClassifierState(jax.vmap(transform.init)(params), jnp.zeros(outputs, bool)))

    def lesson(params, inner, batch, member, key):
        objective = lambda params: (member * model.loss(params, batch.x / scale, key)).sum() / member.sum()
        value, grads = jax.value_and_grad(objective)(params)
        updates, inner = transform.update(grads, inner, params)
        return optax.apply_updates(params, updates), inner, value

    def step(state, batch, key):
        def one(given):
            params, inner, number, key = given
            member = (batch.y == number).astype(jnp.float32)
            teach = lambda: lesson(params, inner, batch, member, key)
            return jax.lax.cond(member.any(), teach, lambda: (params, inner, jnp.zeros(())))

        each = (state.params, state.opt_state.inner, jnp.arange(outputs), jax.random.split(key, outputs))
        params, inner, values = jax.lax.map(one, each)
        present = losses.classes_in(batch.y, outputs)
        info = StepInfo(values.sum() / present.sum(), jnp.full((), jnp.nan))
        return LearnerState(params, ClassifierState(inner, state.opt_state.met | present)), info

    def predict(state: LearnerState, batch: Batch) -> Array:
        keys: PRNGKeyArray = jax.random.split(jax.random.key(0), outputs)
        likely = lambda given: model.log_likelihood(given[0], batch.x / scale, given[1], samples)
        answers = jax.lax.map(likely, (state.params, keys)).T
        return losses.mask_outputs(answers, batch.active & state.opt_state.met)

    return Learner(init, step, consolidate=lambda state, *_: state, predict=predict)
