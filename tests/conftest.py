"""What all tests share: a compilation cache, the real data where it is, fixed keys."""

import gc
import importlib.metadata
import itertools
import os
import pathlib

# Halves the time to compile, which is what tests wait for. Read when JAX first runs, also in programs that tests start;
# later versions do not know the flag, and refuse to run with one that they do not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Tests are bound by compilation: keep compiled programs between runs.
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_disable_most_optimizations", True)  # half the time to compile; programs here hardly run

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
