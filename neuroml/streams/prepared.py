"""Reads data sets that TFDS has prepared as array_record, without TensorFlow.

Decoding a set takes ten seconds or more, so its arrays are kept as `.npy` files in the user's cache folder
(`NEUROML_CACHE_DIR`, if set) and memory-mapped from then on: the next start is instant, and needs no TFDS.
The files are named by set, version and a checksum of the prepared folder: another copy gets files of its own.
"""

import contextlib
import hashlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuroml.errors import DataError


class Split(NamedTuple):
    """The training or the test part of a set."""

    images: np.ndarray  # uint8 [n, H, W, C]
    labels: np.ndarray  # int32 [n]


_BATCH = 1000  # records read at once; many, so that a group of records is unpacked once and not for each of them
_FIRST_BYTES = 2**16  # the least that array_record writes; dataset_info.json is smaller
_REMARKS_ON_SPEED = ("Grain requires group size 1", "OpenCV is not installed")


def read(folder: Path, shape: tuple[int, ...]) -> tuple[Split, Split]:
    """Reads the training and the test split: mapped from the cache, or decoded, which fills the cache.

    Args:
      folder: a prepared set, `<data_dir>/<name>/<version>`.
      shape: height, width and channels of its images.

    Raises:
      DataError: the folder is truncated or corrupt, or TFDS is needed and not installed.
    """
    counts = _image_counts(folder)
    stem = f"{_cache_folder()}/{folder.parent.name}-{folder.name}-{_checksum(folder)}"
    train, test = (_read_cache(f"{stem}-{name}", count, shape) for name, count in counts.items())
    if train is None or test is None:
        train, test = _decode(folder, counts, shape)
        _write_cache({f"{stem}-train": train, f"{stem}-test": test})
    return train, test


def import_tfds() -> Any:
    """Returns the module `tensorflow_datasets`, imported only where it is needed: it takes a second.

    Raises:
      DataError: it is not installed.
    """
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise _not_installed(error) from error


# --- Decoding ---


def _image_counts(folder: Path) -> dict[str, int]:
    """Returns how many images the two splits hold, as TFDS noted when it prepared them."""
    info = folder / "dataset_info.json"
    try:
        lengths = {split["name"]: split["shardLengths"] for split in json.loads(info.read_text())["splits"]}
        return {name: sum(map(int, lengths[name])) for name in ("train", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(info, error) from error


def _decode(folder: Path, counts: dict[str, int], shape: tuple[int, ...]) -> tuple[Split, Split]:
    tfds = import_tfds()
    try:
        with _without_remarks_on_speed():
            builder = tfds.builder_from_directory(folder)
            train, test = (
                _decode_split(builder.as_data_source(name), count, shape, f"{folder.parent.name} {name}")
                for name, count in counts.items()
            )
            return train, test
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # array_record, protobuf and Pillow have errors of their own
        raise _corrupt(folder, error) from error


def _decode_split(source: Any, count: int, shape: tuple[int, ...], what: str) -> Split:
    """Decodes every image and label of a TFDS data source, in the stored order."""
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int32)
    for start in range(0, count, _BATCH):
        _show_progress(what, start, count)
        rows = range(start, min(start + _BATCH, count))
        records = source.__getitems__(rows)
        images[rows] = np.stack([record["image"] for record in records])
        labels[rows] = [record["label"] for record in records]
    _show_progress(what, count, count)
    return Split(images, labels)


@contextlib.contextmanager
def _without_remarks_on_speed() -> Iterator[None]:
    """Drops two remarks of array_record and TFDS on how to read faster: a set is read once, and in order."""
    logger = importlib.import_module("absl.logging").get_absl_logger()

    def keep(record) -> bool:
        return not any(remark in record.getMessage() for remark in _REMARKS_ON_SPEED)

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _show_progress(what: str, done: int, total: int) -> None:
    """Rewrites one line on a terminal; elsewhere writes one at the start."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rdecoding {what}: {done:,} of {total:,} images", end=end, file=sys.stderr, flush=True)
    elif not done:
        print(f"decoding {what}: {total:,} images, kept for the next time", file=sys.stderr, flush=True)


def _corrupt(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is truncated or corrupt ({error!r:.300}). Copy it again, or delete the folder and prepare "
        f"the set anew with `python -m benchmarks data import DIR`."
    )


def _not_installed(error: ImportError) -> DataError:
    return DataError(f'this data set is read with TFDS: pip install "neuroml-jax[bench]" ({error!r:.300})')


# --- The cache ---


def _cache_folder() -> Path:
    if folder := os.environ.get("NEUROML_CACHE_DIR"):
        return Path(folder).expanduser()
    try:
        return Path(importlib.import_module("platformdirs").user_cache_dir("neuroml"))
    except ImportError as error:
        raise _not_installed(error) from error


def _checksum(folder: Path) -> str:
    """Identifies a prepared folder by the name, the size and the first bytes of each of its files.

    The first bytes, because array_record pads its files: unlike sets can have the same sizes. Not all bytes,
    because that would take longer than to map the cache.
    """
    digest = hashlib.sha256()
    for path in sorted(filter(Path.is_file, folder.iterdir())):
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(_FIRST_BYTES))
    return digest.hexdigest()[:16]


def _read_cache(stem: str, count: int, shape: tuple[int, ...]) -> Split | None:
    """Maps a split, or returns None if a file is missing, truncated or not what it should be."""
    try:
        images = np.load(f"{stem}-images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(f"{stem}-labels.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    as_expected = images.shape == (count, *shape) and labels.shape == (count,)
    return Split(images, labels) if as_expected and (images.dtype, labels.dtype) == (np.uint8, np.int32) else None


def _write_cache(splits: dict[str, Split]) -> None:
    """Writes each array beside its place and moves it there, so that no process ever sees half a file."""
    folder = _cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="writing-", dir=folder) as scratch:
            for stem, split in splits.items():
                for part, array in split._asdict().items():
                    np.save(f"{scratch}/{part}.npy", array)
                    os.replace(f"{scratch}/{part}.npy", f"{stem}-{part}.npy")
    except OSError as error:  # the arrays are in memory, so the run can go on
        remedy = "the next start decodes it again; NEUROML_CACHE_DIR names another folder"
        print(f"the data set could not be kept in {folder} ({error}): {remedy}", file=sys.stderr)
