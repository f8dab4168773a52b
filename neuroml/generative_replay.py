"""Deep generative replay: a generator dreams of what came before, and the network of before says what it was."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from neuroml import losses
from neuroml.autoencoder import Autoencoder
from neuroml.errors import UsageError
from neuroml.learner import Learner, LearnerState, StepInfo, Task, around, make_learner
from neuroml.streams.stream import Batch


class DreamState(NamedTuple):
    """Beside the weights: the generator, both optimizers' states, and both networks as they were before this task."""

    inner: Any
    generator: Any
    generator_inner: Any
    teacher: Any  # like the weights
    dreamer: Any  # like the generator
    active: Bool[Array, "tasks outputs"]  # which outputs counted in a task
    met: Bool[Array, " tasks"]
    learnt: Bool[Array, " tasks"]  # met by the last consolidation
    lessons: Int[Array, ""]  # consolidations so far


def generative_replay(
    task: Task,
    transform: optax.GradientTransformation,
    model: Autoencoder,
    outputs: int,
    tasks: int,
    *,
    distills: bool = False,
    temperature: float = 2.0,
) -> Learner:
    r"""Makes the learner that rehearses what its generator dreams (deep generative replay).

        dreams    = as many samples of the generator of before this task as there are new examples
        share     = 1 / (consolidations so far + 1)
        loss      = share * ce(new examples) + (1 - share) * ce(dreams, labels by the network of before this task)
        generator = descends  share * -ELBO(new examples) + (1 - share) * -ELBO(dreams)

    With `distills`, dreams are taught by what that network answers, softened, in the place of its largest answer:
    temperature^2 * -\sum_o q_o log p_o, with q and p the softmax of logits / temperature.

    Args:
      task: the network.
      transform: the optimizer of both, each with a state of its own.
      model: the generator, `neuroml.autoencoder.autoencoder(...)`.
      outputs: number of outputs of the network.
      tasks: how many there are. A dream is answered with the outputs that counted in a task that has been learnt,
        drawn at random: where tasks have heads of their own, with one of the heads.
      distills: whether answers are softened; the method is then also called DGR+distill.
      temperature: of softened answers; > 0.

    Returns:
      A `Learner` that must be told where a task ends.

    Raises:
      UsageError: a temperature that is not positive.

    Reference:
      Shin, Lee, Kim, Kim 2017, "Continual learning with deep generative replay", NeurIPS; the weights and the
      variational autoencoder: van de Ven and Tolias 2018, arXiv 1809.10635.

    How ours differs: the generator of Shin et al. is a GAN. Van de Ven and Tolias average over all heads that were
    learnt, where we draw one for each dream.

    >>> import neuroml
    >>> from neuroml.autoencoder import autoencoder
    >>> task = Task(neuroml.mlp((2, 1, 1), [], 2), 1.0)
    >>> learner = generative_replay(task, optax.adam(0.1), autoencoder((2, 1, 1), [4], 1), 2, 2)
    >>> first = Batch(jnp.ones((8, 2, 1, 1)), jnp.zeros(8, int), jnp.zeros(8, int), jnp.ones((8, 2), bool))
    >>> second = first._replace(x=jnp.zeros((8, 2, 1, 1)), y=jnp.ones(8, int), task=jnp.ones(8, int))
    >>> state, step = learner.init(jax.random.key(0)), jax.jit(learner.step)
    >>> for batch in (first, second):
    ...     for i in range(100):
    ...         state, _ = step(state, batch, jax.random.key(i))
    ...     state = learner.consolidate(state, batch, jax.random.key(0))
    >>> [int(learner.predict(state, batch)[0].argmax()) for batch in (first, second)]
    [0, 1]
    """
    if temperature <= 0:
        raise UsageError(f"temperature={temperature} must be above 0.")

    pupil = make_learner(task, transform)

    def init(key: PRNGKeyArray) -> LearnerState:
        params, inner = pupil.init(key)
        generator = model.init(jax.random.fold_in(key, 1))
        own = DreamState(
            inner,
            generator,
            transform.init(generator),
            teacher=jax.tree.map(jnp.copy, params),
            dreamer=jax.tree.map(jnp.copy, generator),
            active=jnp.zeros((tasks, outputs), bool),
            met=jnp.zeros(tasks, bool),
            learnt=jnp.zeros(tasks, bool),
            lessons=jnp.zeros((), jnp.int32),
        )
        return LearnerState(params, own)

    def dream(own: DreamState, n: int, key: PRNGKeyArray) -> Batch:
        for_images, for_tasks = jax.random.split(key)
        images = jax.lax.stop_gradient(model.sample(own.dreamer, n, for_images))
        which = jax.random.categorical(for_tasks, jnp.where(own.learnt, 0.0, losses.OFF), shape=(n,))
        return Batch(images * task.scale, jnp.zeros(n, jnp.int32), which, own.active[which])

    def rehearsal(params, own, dreams):
        taught, said = task.predict(own.teacher, dreams), task.predict(params, dreams)
        if not distills:
            return losses.cross_entropy(said, taught.argmax(-1))
        wanted, answer = jax.nn.softmax(taught / temperature), jax.nn.log_softmax(said / temperature)
        return -(wanted * jnp.where(dreams.active, answer, 0)).sum(-1).mean() * temperature**2

    def step(state, batch, key):
        own, (for_dreams, for_new, for_old) = state.opt_state, jax.random.split(key, 3)
        dreams = dream(own, batch.y.size, for_dreams)
        share = 1 / (own.lessons + 1.0)
        mix = lambda new, old: share * new + jnp.where(own.lessons > 0, (1 - share) * old, 0)

        def objective(params):
            logits = task.predict(params, batch)
            new = losses.cross_entropy(logits, batch.y)
            return mix(new, rehearsal(params, own, dreams)), (new, logits)

        def generation(generator):
            new = model.loss(generator, batch.x / task.scale, for_new).mean()
            return mix(new, model.loss(generator, dreams.x / task.scale, for_old).mean())

        (_, (value, logits)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, inner = _descend(transform, grads, own.inner, state.params)
        generator, generator_inner = _descend(
            transform, jax.grad(generation)(own.generator), own.generator_inner, own.generator
        )
        own = own._replace(
            inner=inner,
            generator=generator,
            generator_inner=generator_inner,
            active=own.active.at[batch.task].set(batch.active),
            met=own.met.at[batch.task].set(True),
        )
        return LearnerState(params, own), StepInfo(value, losses.correct(logits, batch.y).mean())

    def consolidate(state, examples, key):
        del examples, key
        own, copy = state.opt_state, lambda tree: jax.tree.map(jnp.copy, tree)
        before = {"teacher": copy(state.params), "dreamer": copy(own.generator), "learnt": copy(own.met)}
        return state._replace(opt_state=own._replace(lessons=own.lessons + 1, **before))

    return around(pupil, init, step, consolidate=consolidate)


def _descend(transform, grads, inner, params):
    updates, inner = transform.update(grads, inner, params)
    return optax.apply_updates(params, updates), inner
