"""A suite: a published protocol as plain data. Importing it imports neither JAX nor Flax."""

import ast
import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Mapping
from typing import Any

from neuroml.errors import UsageError, unknown

STREAMS = ("split", "permuted", "rotated", "label_permuted", "random_labels")
NETWORKS = ("mlp", "cnn")

# Fields that `--set` may not touch: they have options of their own, or are not numbers.
_TABLES = ("hyperparameters", "options", "grids", "batch_sizes")
YOUNG = (
    *("ordered", "interpolation", "examples", "shared_head", "standardized"),
    *("conditioning", "injury", "severed", "injury_at"),
)
MEASURES = ("accuracy", "online_accuracy", "online_and_final_accuracy")
# Fields that only some streams and networks read: to set them anywhere else would do nothing.
_READ = {
    "stream": {
        "split": ("ordered",),
        "permuted": ("pad", "examples", "shared_head"),
        "rotated": ("interpolation", "shared_head"),
        "label_permuted": ("examples",),
        "random_labels": ("examples",),
    },
    "network": {"mlp": ("hidden",), "cnn": ()},
}
_LEAST = {name: 1 for name in ("tasks", "examples", "window", "batch_size", "epochs", "iterations", "samples")}
_LEAST |= {name: 0 for name in ("pad", "injury_at", "inspected")}
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a word"}
_FIXED = ("name", "summary", "scenarios", "methods", "seeds", *_TABLES, "stream", "data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """What is trained on what, for how long. Every field but the names is part of a result's identity."""

    name: str
    summary: str
    data: str
    stream: str = "split"
    tasks: int = 5
    ordered: bool = False  # classes in the order of their numbers, and not in one drawn from the seed
    interpolation: str = ""  # of a rotated stream; "": bilinear
    pad: int = 0  # pixels added at each edge before a permutation
    examples: int | None = None  # training images of a task of a repeated stream; None: all
    window: int | None = None  # examples over which tasks blend into each other; None: boundaries are given
    shared_head: bool = False  # of a repeated stream: told which task it is, all tasks answer on the same outputs
    scenarios: tuple[str, ...] = ("task", "domain", "class")
    standardized: tuple[float, float] = (0.0, 1.0)  # mean and deviation of pixels, unless running statistics normalize
    network: str = "mlp"
    hidden: tuple[int, ...] = (400, 400)
    initialization: str = "torch"
    batch_size: int = 128
    epochs: int | None = None
    iterations: int | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    samples: int = 1000  # training examples of a task that a consolidation may look at
    evaluation: str = "all"  # "ends": after a task it alone is tested, and all at the end
    # What the suite is about, and what `tune` chooses by: the accuracy at the end; "online_accuracy": on each batch
    # before it is learnt; "online_and_final_accuracy": the mean of both, learning and keeping.
    measure: str = "accuracy"
    conditioning: float = 0.0  # decay of the running statistics that normalize every method's inputs; 0: none
    injury: float = 0.0  # share of the neurons between layers that is destroyed before step `injury_at`
    severed: float = 0.0  # share of the synapses that is destroyed then
    injury_at: int = 0  # a step, counted from 0 over the whole stream
    inspected: int = 0  # examples on which the network's vital signs are taken after each task
    methods: tuple[str, ...] = ("naive", "joint", "ewc", "si", "er")
    seeds: int = 5
    # {method: {name: value, or {scenario: value}}}: numbers, which may be swept, and static options.
    hyperparameters: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    # {method: size}: where the result does not depend on it, as with additive statistics, a size that is fast.
    batch_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    # {method: {name: values}}: what `tune` tries; methods are given the same number of trials.
    grids: Mapping[str, Mapping[str, tuple[float, ...]]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name}={value} must be at least {least}.")
        if any(size < 1 for size in self.hidden):
            raise UsageError(f"hidden={self.hidden}: every layer needs at least 1 neuron.")
        if not 0 <= self.conditioning < 1:
            raise UsageError(f"conditioning={self.conditioning} is a decay: at least 0 (none) and below 1.")
        for name in ("injury", "severed"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}={getattr(self, name)} is a share of what is destroyed: between 0 and 1.")
        if len(self.standardized) != 2 or not all(map(math.isfinite, self.standardized)) or self.standardized[1] <= 0:
            raise UsageError(f"standardized={self.standardized} should be a mean and a deviation above 0.")
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES)

    @property
    def is_online(self) -> bool:
        """Says whether the suite is about the accuracy on each batch before it is learnt, alone or among others."""
        return self.measure != "accuracy"

    def given(self, method: str, scenario: str) -> dict[str, Any]:
        """Returns the hyperparameters and options that the suite sets for a method in a scenario."""
        both = {**self.hyperparameters.get(method, {}), **self.options.get(method, {})}
        return {name: v[scenario] if isinstance(v, Mapping) else v for name, v in both.items()}

    def protocol(self) -> dict[str, Any]:
        """Returns what is the same for all methods, as it goes into a result."""
        leave_out = ["name", "summary", "scenarios", "methods", "seeds", "measure", *_TABLES]
        # How it is tested does not change what is learnt, only what is found: named where it is not the suite's own.
        usual = load(self.name) if self.name in names() else self
        leave_out += [name for name in ("evaluation", "inspected") if getattr(self, name) == getattr(usual, name)]
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Fields younger than the first results are named only where they are set: an old result stays what it was.
        usually = {field.name: field.default for field in dataclasses.fields(self)}
        young = {name for name in YOUNG if fields[name] == usually[name]}
        return {name: value for name, value in fields.items() if name not in {*leave_out, *young}}


def names() -> list[str]:
    """Returns the names of all suites: the files in `configs/`."""
    import configs

    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load(name: str) -> Suite:
    """Returns the suite that `configs/<name>.py` defines; it is called `suite` there."""
    if name not in names():
        raise unknown("suite", name, names())
    return importlib.import_module(f"configs.{name}").suite


def parse_setting(text: str) -> tuple[str, Any]:
    """Returns name and value of `name=value`; the value is a Python literal, or else a word.

    >>> parse_setting("ewc.strength=1e3"), parse_setting("keep=ring")
    (('ewc.strength', 1000.0), ('keep', 'ring'))
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"--set takes name=value, for instance --set iterations=500; given: {text!r}.")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return name.strip(), value.strip()


def change(suite: Suite, settings: Mapping[str, Any], methods: Mapping[str, Any]) -> Suite:
    """Returns the suite with `--set` applied: fields of the protocol, `name` of any chosen method, `method.name`.

    Args:
      suite: the suite.
      settings: {name: value}.
      methods: {name: `neuroml.methods.Method`} that are to run.

    Raises:
      UsageError: A name does not exist, a value is not of its kind, or nothing in the suite would read it.
    """
    changed = suite
    for name, value in sorted(settings.items(), key=lambda item: "." in item[0]):  # one method's own overrides all's
        changed = _change_one(changed, name, value, methods)
    for name in settings:
        if "." not in name and getattr(changed, name, None) != getattr(suite, name, None):
            _require_read(changed, name)
    return changed


def _require_read(suite: Suite, name: str) -> None:
    """Refuses a field that the suite's stream or network does not read, or that no injury does."""
    for part, readers in _READ.items():
        own, able = getattr(suite, part), [reader for reader, fields in readers.items() if name in fields]
        if able and own in readers and own not in able:
            given = f"{name}={getattr(suite, name)!r}"
            raise UsageError(f"{given} is read by {part}={' or '.join(able)} only, and {suite.name} has {part}={own}.")
    if name == "shared_head" and "task" not in suite.scenarios:
        raise UsageError(f"shared_head is for tasks that are told apart, and {suite.name} has no scenario task.")
    if name == "injury_at" and not (suite.injury or suite.severed):
        raise UsageError(f"injury_at={suite.injury_at} needs injury or severed, the share that is destroyed then.")


def _change_one(suite: Suite, name: str, value: Any, methods: Mapping[str, Any]) -> Suite:
    fields = {field.name for field in dataclasses.fields(suite)} - set(_FIXED)
    if name in fields:
        other = {"epochs": "iterations", "iterations": "epochs"}.get(name)
        changes = {name: _like(name, value, getattr(suite, name)), **({other: None} if other else {})}
        # For all methods, also those that have one of their own.
        if name == "learning_rate":
            tables = suite.hyperparameters.items()
            changes["hyperparameters"] = {m: {n: v for n, v in own.items() if n != name} for m, own in tables}
        if name == "batch_size":
            changes["batch_sizes"] = {}
        return dataclasses.replace(suite, **changes)
    method, dot, own = name.rpartition(".")
    wanted = [method] if dot else list(methods)
    if dot and method not in methods:
        raise unknown("method in --set (it must be among --methods)", method, methods)
    numbers = {m: {"learning_rate": suite.learning_rate, **methods[m].hyperparameters} for m in wanted}
    found = [m for m in wanted if own in {**numbers[m], **methods[m].options}]
    if not found:
        theirs = {n for m in wanted for n in (*numbers[m], *methods[m].options)}
        raise unknown("hyperparameter", name, theirs | (set() if dot else fields))
    for m in found:
        kind = "hyperparameters" if own in numbers[m] else "options"
        default = {**numbers[m], **methods[m].options}[own]
        table = getattr(suite, kind)
        merged = {**table, m: {**table.get(m, {}), own: _like(name, value, default)}}
        suite = dataclasses.replace(suite, **{kind: merged})
    return suite


def _like(name: str, value: Any, default: Any) -> Any:
    """Returns the value if it is of the kind of the default, with an int for a float and a tuple for one number."""
    if isinstance(default, tuple):
        several = value if isinstance(value, tuple) else (value,)
        try:
            return tuple(_like(name, one, default[0]) for one in several)
        except UsageError:
            kinds = "whole numbers" if isinstance(default[0], int) else "numbers"
            like = ",".join(map(str, default * 2 if len(default) == 1 else default))
            raise UsageError(f"{name}={value!r} should be {kinds} with commas, like {like}.") from None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        raise UsageError(f"{name}={value!r} should be {_KINDS[type(default)]}, like {default!r}.")
    if default is None and (not isinstance(value, int | None) or isinstance(value, bool)):
        raise UsageError(f"{name}={value!r} should be a whole number.")
    return value
