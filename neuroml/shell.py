"""A learner of two parts, as a condensate is: a core that keeps, and a shell that learns fast and is not kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from neuroml.errors import unknown
from neuroml.learner import Learner, LearnerState, around, inner_state, inside

STARTS = ("itself", "core", "fresh")


class ShellState(NamedTuple):
    """Beside the weights of the core: the state of what trains them, and the shell, which has weights of its own."""

    inner: Any
    shell: LearnerState


def shelled(core: Learner, shell: Learner, *, start: str = "itself") -> Learner:
    """Makes a learner that answers what it is about to learn from its shell, and all else from its core.

    Both learn every batch, each in its own way: the core slowly, for good; the shell as fast as a network can that
    protects nothing. Where a task ends, both do what they do there.

        shell <- shell.step(shell, batch),   core <- core.step(core, batch)

    So online accuracy is the shell's, and `predict`, and with it the accuracy on any task, is the core's, which
    never learns of the shell; vital signs, reports and captured inputs are the core's, too. Of earlier tasks the shell
    knows what a network that forgets does. It costs what a second network costs, which bytes and FLOPs count. Slow and
    fast weights are those of Hinton and Plaut (1987), two systems those of McClelland, McNaughton and O'Reilly (1995):
    there one teaches the other; ours share nothing but the batches and the noise of a step, except with `start="core"`.

    Args:
      core: what keeps, such as a network under a projector.
      shell: what is ready to learn; its weights are shaped as those of the core.
      start: with which weights the shell begins a task. "itself": with those that it has; "core": with those of the
        core; "fresh": with weights that know nothing, the control. Its optimizer and rules go on as they were: moments,
        and the anchors of `neuroml.l2_init`, are those of the weights before.

    Returns:
      A `Learner`; the loss and the accuracy it reports are the shell's.

    Raises:
      UsageError: a `start` that is none of these.

    >>> import jax, jax.numpy as jnp, neuroml, optax
    >>> from neuroml.learner import Task, make_learner
    >>> task = Task(neuroml.mlp((8, 8, 1), [16], 10), 16.0)
    >>> rule = neuroml.condensate_projector(scale=0.1)
    >>> core = make_learner(task, optax.chain(optax.sgd(0.1), rule), activity=True)
    >>> agent = shelled(core, make_learner(task, optax.sgd(0.1)))
    >>> state = agent.init(jax.random.key(0))
    >>> bool((state.params["head"]["kernel"] == state.opt_state.shell.params["head"]["kernel"]).all())
    True
    """
    if start not in STARTS:
        raise unknown("start", start, STARTS)

    def init(key):
        state = core.init(key)
        return LearnerState(state.params, ShellState(state.opt_state, shell.init(key)))

    def step(state, batch, key):
        outer, info = shell.step(state.opt_state.shell, batch, key)
        after, _ = core.step(inner_state(state), batch, key)
        return LearnerState(after.params, ShellState(after.opt_state, outer)), info

    def replace_shell(state, new):
        return state._replace(opt_state=state.opt_state._replace(shell=new))

    def consolidate(state, examples, key):
        after = inside(core.consolidate)(state, examples, key)
        outer = shell.consolidate(state.opt_state.shell, examples, jax.random.fold_in(key, 1))
        if start == "core":
            outer = outer._replace(params=jax.tree.map(jnp.copy, after.params))  # or a step could not donate its state
        if start == "fresh":
            outer = outer._replace(params=shell.init(jax.random.fold_in(key, 2)).params)
        return replace_shell(after, outer)

    def prepare(state, examples, key):
        ready = shell.prepare(state.opt_state.shell, examples, key)
        return replace_shell(inside(core.prepare)(state, examples, key), ready)

    def destroy(state, destroyed):
        hurt = shell.destroy(state.opt_state.shell, destroyed)
        return replace_shell(inside(core.destroy)(state, destroyed), hurt)

    return around(core, init, step, consolidate=consolidate, prepare=prepare, destroy=destroy)
