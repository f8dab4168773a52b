"""The package as its users meet it: light to import, documented, and honest about its namesake."""

import importlib
import inspect
import os
import pathlib
import subprocess
import sys
import types

import pytest

import neuroml

ROOT = pathlib.Path(__file__).parent.parent


def python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_importing_it_imports_nothing_heavy():
    heavy = ["jax", "flax", "optax", "tensorflow_datasets", "wandb", "orbax", "grain", "matplotlib", "scipy"]
    done = python(f"import sys, neuroml; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_it_takes_less_than_a_fifth_of_a_second_over_jax():
    program = "import jax, time; t = time.perf_counter(); import neuroml; print(time.perf_counter() - t)"
    assert any(float(python(program).stdout) < 0.2 for _ in range(3))


@pytest.mark.parametrize("name", neuroml.__all__)
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(neuroml, name)
    assert len(inspect.getdoc(value) or "") > 20
    if isinstance(value, types.ModuleType):
        for own, member in vars(value).items():
            ours = getattr(member, "__module__", "").startswith("neuroml")
            if ours and not own.startswith("_") and callable(member):
                assert inspect.getdoc(member), f"neuroml.{name}.{own} has no docstring"


def test_the_lazy_names_are_the_typed_ones():
    source = (ROOT / "neuroml" / "__init__.py").read_text()
    typed = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    for name in neuroml.__all__:
        assert f" {name}" in typed, f"{name} is loaded lazily but unknown to type checkers"
    assert set(neuroml.__all__) == set(neuroml._HOMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'ewcc'"):
        neuroml.ewcc  # noqa: B018


def test_its_namesake_is_told_in_words(tmp_path):
    folder = tmp_path / "libNeuroML-0.6.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: libNeuroML\nVersion: 0.6.5\n")
    done = python(
        "import warnings; warnings.simplefilter('always'); import neuroml; print(neuroml.ewc(1.0) is not None)",
        PYTHONPATH=str(tmp_path),
    )
    assert "libNeuroML is installed" in done.stderr and "separate" in done.stderr
    assert done.stdout.strip() == "True"


def test_versions_agree():
    metadata = importlib.import_module("importlib.metadata")
    assert metadata.version("neuroml-jax") == neuroml.__version__
