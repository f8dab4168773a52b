"""Result records that belong together: by what their tables have in common, by label, and as the runs of a picture."""

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from benchmarks import suite
from benchmarks.results import Record, latest, plain, setting
from neuroml.errors import UsageError

Thing = TypeVar("Thing")
Key = TypeVar("Key", bound=Hashable)
Groups = dict[str, list[Record]]  # the runs of each label
Flat = dict[tuple[str, ...], Any]  # a configuration: {the names that lead to an entry: the entry}


def grouped(things: Iterable[Thing], key: Callable[[Thing], Key]) -> dict[Key, list[Thing]]:
    """Splits records or summaries by what they have in common: by `setting`, say, for a table of each."""
    groups: dict[Key, list[Thing]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return groups


def by_label(records: Iterable[Record]) -> Groups:
    """Splits the records of one setting by method and configuration: the newest of each seed, in order.

    The label is the method and, if it has several configurations, what differs: `ewc (strength=10)`. A setting that a
    configuration leaves out, as it is younger and off, is named with its value if others of the method name theirs.
    """
    groups = grouped(latest(records), lambda record: (record["method"], record["config_hash"]))
    configs = _completed({key: dict(_flat(group[0].get("config", {}))) for key, group in groups.items()})
    labels: Groups = {}
    for (method, digest), group in groups.items():
        rivals = [config for (rival, _), config in configs.items() if rival == method]
        settings = ", ".join(
            _named(path, entry)
            for path, entry in configs[method, digest].items()
            if any(rival.get(path) != entry for rival in rivals)
        )
        label = f"{method} ({settings})" if settings else method
        label = f"{method} ({digest})" if label in labels else label
        labels[label] = sorted(group, key=lambda record: record["seed"])
    return labels


def against_suite(label: str, record: Record, *, terse: bool = False) -> str:
    """Returns the label of a record with its settings that are not those of its suite's own file, if it lacks them.

    Where it is `terse`, those that are the suite's own are left out.
    """
    own, given = _own(record), record.get("config", {}).get("hyperparameters", {})
    young = {name: entry for (_, name), entry in _young(record["method"]).items()} if own else {}
    settings = given | {name: entry for name, entry in young.items() if name not in given}
    texts = {name: _named(("", name), entry) for name, entry in settings.items() if name in own}
    usual = {text for name, text in texts.items() if plain(own[name]) == plain(settings[name])}
    named = label.removesuffix(")").replace(" (", ", ", 1).split(", ")[1:]
    named += [text for text in texts.values() if text not in usual and text not in named]
    named = [text for text in named if not (terse and text in usual)]
    return f"{record['method']} ({', '.join(named)})" if named else record["method"]


def groups_of(records: Sequence[Record]) -> Groups:
    """Returns the runs of each label, or raises if they belong in different pictures."""
    settings = [" ".join(filter(None, about)) for about in grouped(records, setting)]
    if not settings:
        raise UsageError("cannot draw: there are no records.")
    if len(settings) > 1:
        raise UsageError(f"cannot draw {' and '.join(settings)} in one panel: choose the records of one.")
    return by_label(records)


def matrices_of(group: list[Record]) -> np.ndarray:
    """Returns the accuracies in per cent of the runs that did not diverge, [seeds, phases, tasks]."""
    matrices = [np.asarray(run["accuracy"], dtype=float) for run in group if not run.get("diverged")]
    return 100 * np.stack(matrices) if matrices else np.zeros((0, 1, 1))


def is_joint(matrices: np.ndarray) -> bool:
    """Returns whether all tasks were trained in one phase."""
    return matrices.shape[1] == 1 < matrices.shape[2]


def titled(label: str, group: list[Record]) -> str:
    """Returns the label and, if any, how many runs diverged."""
    diverged = sum(bool(run.get("diverged")) for run in group)
    return f"{label} (diverged {diverged}/{len(group)})" if diverged else label


def _own(record: Record) -> dict[str, Any]:
    """Returns the settings of a record's method in the file of its suite; none where it knows no such method."""
    if record.get("suite") not in suite.names():
        return {}
    from neuroml.methods import methods

    one, method = suite.load(record["suite"]), methods.get(record["method"])
    if method is None or record["scenario"] not in one.scenarios:
        return {}
    usual = {"learning_rate": one.learning_rate, **method.hyperparameters, **method.options}
    return usual | one.given(record["method"], record["scenario"])


def _completed(configs: Mapping[tuple[str, str], Flat]) -> dict[tuple[str, str], Flat]:
    """Returns each configuration with what it leaves out and another one of its method names, in one order for all."""
    whole = {}
    for (method, digest), config in configs.items():
        paths = dict.fromkeys(itertools.chain(*(rival for (name, _), rival in configs.items() if name == method)))
        full = config if len(config) == len(paths) else {**_young(method), **config}
        whole[method, digest] = {path: full[path] for path in paths if path in full}
    return whole


def _young(method: str) -> Flat:
    """Returns the settings of a method that a result names only where they differ from these values."""
    from neuroml.methods import methods  # imports JAX, which most pictures can do without

    return dict(_flat({"hyperparameters": methods[method].young})) if method in methods else {}


def _flat(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each entry with the names that lead to it."""
    for name, entry in config.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, (*path, name))
        else:
            yield (*path, name), entry


def _named(path: tuple[str, ...], entry: Any) -> str:
    """Returns name=value, without the heading ("protocol", "hyperparameters") that the entry stands under."""
    name = ".".join(path[1:] or path)
    return f"{name}={entry:g}" if isinstance(entry, float) else f"{name}={entry}"
