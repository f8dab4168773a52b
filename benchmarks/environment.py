"""Where the code runs and which code it is: what a number depends on besides its configuration.

Before the work it is made ready, and with the results it is written down.
"""

import contextlib
import os
import platform
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks.results import Record
from neuroml.errors import DataError

PACKAGES = {"neuroml": "neuroml-jax"} | {name: name for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


def prepare_jax() -> None:
    """Makes every CPU core a device, so that seeds run side by side, and keeps compiled programs between runs."""
    import jax
    import platformdirs

    with contextlib.suppress(RuntimeError):  # JAX runs already, in a notebook say: its devices stay as they are
        jax.config.update("jax_num_cpu_devices", usable_cores())
    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        jax.config.update("jax_compilation_cache_dir", str(Path(platformdirs.user_cache_dir("neuroml")) / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def check_writable(folder: Path) -> None:
    """Raises before the work is done, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # a name of its own: others may begin in this folder too
    except OSError as why:
        raise DataError(f"cannot write to {folder}: {why.strerror}. Choose another folder with --out.") from None


def environment() -> Record:
    """Returns what a number depends on besides its configuration: source, versions, device. Imports jax."""
    import jax

    devices = jax.devices()
    versions = {name: _version(package) for name, package in PACKAGES.items()}
    return {
        "git": git_state(Path(__file__).parent),
        "versions": {"python": platform.python_version()} | versions,
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "machine": platform.machine(),
            "cpu_cores": usable_cores(),
        },
    }


def usable_cores() -> int:
    """Returns how many CPU cores this process may use, or has where the system does not tell."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux
    return len(usable(0)) if usable else os.cpu_count() or 1


def git_state(folder: Path) -> Record:
    """Returns the revision of the checkout around `folder`, and whether its Python source differs from it.

    Both are None outside a checkout or without git. Result files are no source: runs do not make it dirty.
    """
    source = (":(top)*.py", ":(top)*.toml")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *source)
    return {
        "revision": _git(folder, "rev-parse", "--verify", "--quiet", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def _version(package: str) -> str | None:
    """Returns the version of an installed package without importing it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns what git says, None if it fails or is missing."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.strip()
    return None
