"""Where the code runs and which code it is: what a number depends on besides its configuration."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from benchmarks.results import Record

PACKAGES = {"neuroml": "neuroml-jax"} | {name: name for name in ("jax", "jaxlib", "flax", "optax", "numpy")}


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
