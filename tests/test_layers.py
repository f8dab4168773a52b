"""Imports go downward only, and rules never import each other."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# From the bottom up; a module may import what stands in a row above it in this list, and nothing else of the project.
RULES = {f"rules.{path.stem}" for path in (ROOT / "neuroml" / "rules").glob("*.py")} - {"rules.__init__"}
LAYERS = [
    {"errors", "_nnx"},
    {
        "core",
        "cost",
        "metrics",
        "online",
        "conventions",
        "losses",
        "wiring",
        "activity",
        "noise",
        "averages",
    },
    {
        "adaptation",
        "quadratic",
        "double_well",
        "projection",
        "memory",
        "streams.dataset",
        "additive",
        "slots",
        "features",
    },
    {"units", "ground"},
    {"surgery"},
    {
        "vitals",
        "renewing",
        "recycling",
        "growing",
        "nursery",
        "importance",
        "streams.prepared",
        "modules.network",
        "streams.stream",
        "condensate",
    },
    {
        "regularizers",
        "schedule",
        "resizing",
        "deepening",
        "modules.growable",
        "modules.condensate_memory",
        "modules.reference",
        "modules.homeostatic",
        "modules.gated",
    },
    {*RULES, "streams.sources", "streams.layout", "autoencoder"},
    {"streams.repeated", "imagining", "lesions"},
    {"streams.scenarios", "modules"},
    {"streams"},
    {"learner"},
    {"recall", "conditioned", "contexts", "inferring", "method", "interventions", "shell"},
    {
        "competing",
        "dendrites",
        "neurogenesis",
        "feature_settings",
        "discriminant",
        "exemplars",
        "gdumb",
        "generative_replay",
        "generative_classifier",
    },
    {"hard_attention", "packnet"},
    {"condensate_methods", "context_methods", "discriminant_methods", "generative_methods"},
    {"dendrite_methods", "plasticity_methods", "gate_methods", "penalty_methods", "repair_methods", "growth_methods"},
    {"replay_methods", "rehearsal_methods"},
    {"methods"},
    {"experiment"},
    {"programs"},
    {"running"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FACADES = {"", "rules"}  # `neuroml/__init__.py` loads lazily, `rules/__init__.py` is empty


def module_name(path):
    parts = path.relative_to(ROOT / "neuroml").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from package import module` depends on the module, `from module import name` on the module before it.
            yield from (name if name.removeprefix("neuroml.") in LEVEL else node.module for name in names)


FILES = {module_name(path): path for path in sorted((ROOT / "neuroml").rglob("*.py"))}


def test_every_module_has_a_layer():
    assert set(FILES) - FACADES == set(LEVEL)


@pytest.mark.parametrize("name", sorted(set(FILES) - FACADES))
def test_imports_go_downward(name):
    ours = {i.removeprefix("neuroml.") for i in imports_of(FILES[name]) if i.startswith("neuroml.")}
    for imported in ours & set(LEVEL):
        assert LEVEL[imported] < LEVEL[name], f"{name} imports {imported}, which is not below it"
    assert not any(i.split(".")[0] in ("benchmarks", "configs", "paper_repro") for i in imports_of(FILES[name]))


CORE = ["core", "quadratic", "double_well", "memory", "importance", "schedule", "metrics", "wiring", "losses"]
CORE += ["additive", "slots", "condensate", "features", "projection"]


@pytest.mark.parametrize("name", CORE)
def test_the_core_does_not_know_flax(name):
    assert not any(i.split(".")[0] == "flax" for i in imports_of(FILES[name]))


@pytest.mark.parametrize("name", sorted(n for n in FILES if n.startswith("rules.")))
def test_rules_know_neither_flax_nor_each_other(name):
    imported = set(imports_of(FILES[name]))
    assert not any(i.split(".")[0] == "flax" or i.startswith("neuroml.rules") for i in imported)
