"""What a method is: a recipe that builds a learner from numeric hyperparameters and static options."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from neuroml import core
from neuroml.errors import UsageError
from neuroml.importance import fisher
from neuroml.learner import Learner, Task, make_learner
from neuroml.streams.stream import Batch

Settings = Mapping[str, Any]
Importance = Callable[..., Any]  # (predict, params, examples, key) -> a tree like the weights


def always(given: Settings) -> bool:
    """Returns that a method must be told where tasks end, whatever its settings."""
    del given
    return True


def fisher_of(given: Settings) -> Importance:
    """Returns the Fisher information with the labels that the setting `labels` names, of which "all" is exact."""

    def importance(predict, params, examples, key):
        return fisher(predict, params, examples, labels=given.get("labels", "all"), targets=examples.y, key=key)

    return importance


class Situation(NamedTuple):
    """What a recipe may build on."""

    task: Task
    optimizer: optax.GradientTransformation  # the base optimizer, its learning rate set
    learning_rate: Any  # for implicit pulls
    example: Batch  # one example, for shapes
    batch_size: int
    outputs: int
    tasks: int
    scenario: str  # "task", "domain" or "class"


def wiring_of(at: Situation) -> Any:
    """Returns the names of the axes of the network's weights."""
    name = at.task.network.wiring
    if name is None:
        raise UsageError("this method judges neurons, and the network has no wiring: give its `Network` one.")
    return name(jax.eval_shape(at.task.network.init, jax.random.key(0))[0])


@dataclasses.dataclass(frozen=True)
class Method:
    """A recipe; `hyperparameters` may be swept in one compilation, `options` are static."""

    summary: str
    transform: Callable[[Situation, Settings], optax.GradientTransformation] | None = None
    hyperparameters: Mapping[str, float] = dataclasses.field(default_factory=dict)
    options: Mapping[str, int | str | bool] = dataclasses.field(default_factory=dict)
    importance: Callable[[Settings], Importance] | None = None
    boundaries: Callable[[Settings], bool] = lambda given: False  # must be told where a task ends
    joint: bool = False  # trains on all tasks at once
    activity: bool = False  # its rules work on the inputs of the layers
    learner: Callable[[Situation, Settings], Learner] | None = None  # for what does not learn by gradient alone
    prepares: Callable[[Settings], int] = lambda given: 0  # first examples held back until it has looked at them
    conditions: Callable[[Settings], bool] = lambda given: False  # normalizes its inputs by itself
    # In which it means something; "task" alone: it is told the task of an example, at test time too.
    scenarios: tuple[str, ...] = ("task", "domain", "class")
    own_heads: bool = False  # takes each task that is told apart to have outputs of its own
    architecture: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # keywords of the network's maker
    # Settings younger than the first results, at the value that changes nothing: named where they differ.
    young: Mapping[str, int | float | str | bool] = dataclasses.field(default_factory=dict)
    # Ranges such as "(0, 1]" outside which a hyperparameter means nothing, its own default aside. Rules get them as
    # arrays, which cannot be looked at.
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def check(self, given: Settings) -> None:
        """Raises `UsageError` for a hyperparameter, or one of several to be swept, that is not within its limits."""
        for name, bounds in self.limits.items():
            for value in np.ravel(given[name]):
                if value != self.hyperparameters.get(name):
                    core.require_ranges(f"the method {self.summary!r}", {name: float(value)}, **{name: bounds})

    def make(self, at: Situation, given: Settings) -> Learner:
        """Returns the learner for one setting."""
        if self.learner is not None:
            return self.learner(at, given)
        if self.transform is None:
            raise UsageError(f"the method {self.summary!r} has neither a transform nor a learner.")
        importance = None if self.importance is None else self.importance(given)
        return make_learner(at.task, self.transform(at, given), importance, activity=self.activity)


def optimizer_alone(at: Situation, given: Settings) -> optax.GradientTransformation:
    """Returns the base optimizer: the recipe of a method that changes nothing, or the network only."""
    del given
    return at.optimizer
