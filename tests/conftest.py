"""What all tests share: a compilation cache, the real data where it is, fixed keys."""

import gc
import importlib.metadata
import itertools
import os
import pathlib

# Tests wait for compilation: these halve its time. Later versions refuse to run with a flag that they do not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])

# In the environment, before JAX is imported, so that programs that tests start have them, too.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"  # compiled programs stay between runs
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # programs here hardly run
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent

gc.set_threshold(100_000, 50, 50)  # compiled programs are millions of objects, and few of them ever go

_PREPARED = ROOT.parent / "shared" / "tfds"
if _PREPARED.is_dir():
    os.environ.setdefault("TFDS_DATA_DIR", str(_PREPARED))


_MAPS = pathlib.Path("/proc/self/maps")
_done = itertools.count(1)


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drops compiled programs before their memory maps run out: Linux gives a process 65,530, then XLA crashes."""
    yield
    if next(_done) % 5 == 0 and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 50_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST, where a prepared copy is at hand."""
    from neuroml.streams.sources import load

    if "TFDS_DATA_DIR" not in os.environ:
        pytest.skip("no prepared data sets: TFDS_DATA_DIR is not set")
    return load("mnist")
