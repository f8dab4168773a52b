"""Parses MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 as their authors publish them.

MNIST and Fashion-MNIST come as idx files, which have the same names. CIFAR comes as binary batches or as
pickles of Python 2, in a tar file or unpacked. Nothing is extracted, and no pickle can run code: see `unpickling`.
"""

import gzip
import io
import math
import re
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import unpickling
from neuroml.errors import DataError

_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)


class Part(NamedTuple):
    """The training or the test images of a set."""

    images: np.ndarray  # uint8 [n, H, W, C]
    labels: dict[str, np.ndarray]  # [n] each, by the names that TFDS gives them: label, coarse_label


class Originals(NamedTuple):
    """A whole set."""

    train: Part
    test: Part
    label_names: dict[str, list[str]]  # empty where the files do not tell


class Files(NamedTuple):
    """The files of one folder or tar file: what reads each of them, by its name without folders."""

    path: Path
    readers: dict[str, Callable[[], bytes]]

    def read(self, name: str) -> bytes:
        """Returns the content of a file, or raises a `DataError` if it is missing or cannot be read."""
        if name not in self.readers:
            raise DataError(f"{self.path / name} is missing.")
        try:
            content = self.readers[name]()
            return gzip.decompress(content) if name.endswith(".gz") else content
        except _UNREADABLE as error:
            raise _broken(self.path / name, repr(error)) from error


def open_folder(path: Path) -> Files:
    """Lists the files of a folder."""
    return Files(path, {file.name: file.read_bytes for file in path.iterdir() if file.is_file()})


def open_tar(path: Path) -> Files:
    """Reads a tar file into memory, so that no name in it can point anywhere, or raises a `DataError`."""
    readers = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if content := tar.extractfile(member) if member.isfile() else None:
                    readers[Path(member.name).name] = io.BytesIO(content.read()).getvalue
    except _UNREADABLE as error:
        raise _broken(path, repr(error)) from error
    return Files(path, readers)


def parser(files: Files) -> tuple[str, Callable[[], Originals]] | None:
    """Tells which set a folder or tar file holds.

    Returns:
      "idx", "cifar10" or "cifar100", and what parses it; or None if it holds no set. The parser raises a
      `DataError` that names the file if one is missing, truncated or corrupt.
    """
    names = set(files.readers)
    if _idx_files(files):
        return "idx", partial(_read_idx, files)
    if "cifar-100" not in files.path.name and not names & {"meta", "fine_label_names.txt"}:
        names -= {"train", "train.bin"}  # too common to go by
    for name, first in ("cifar10", "data_batch_1"), ("cifar100", "train"):
        for suffix in ".bin", "":
            if f"{first}{suffix}" in names:
                return name, partial(_read_cifar, files, name, suffix)
    return None


# --- MNIST and Fashion-MNIST ---

_IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


def _idx_files(files: Files) -> dict[tuple[str, str], str]:
    """Returns the names of the idx files by their first two words; packed ones only without another."""
    matches = map(_IDX_NAME.fullmatch, sorted(files.readers, reverse=True))
    return {(match[1], match[2]): match[0] for match in matches if match}


def _read_idx(files: Files) -> Originals:
    names = _idx_files(files)

    def part(which: str) -> Part:
        for kind, dimensions in ("images", 3), ("labels", 1):
            if (which, kind) not in names:
                raise DataError(f"{files.path / f'{which}-{kind}-idx{dimensions}-ubyte'} is missing.")
        images, labels = names[which, "images"], names[which, "labels"]
        return _part(
            files.path / labels,
            _parse_idx(files.path / images, files.read(images), (28, 28))[..., None],
            {"label": (_parse_idx(files.path / labels, files.read(labels), ()), 10)},
        )

    return Originals(part("train"), part("t10k"), {})


def _parse_idx(path: Path, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Parses an idx file of unsigned bytes: a magic number, the size of each dimension, the values."""
    words = 2 + len(shape)
    if len(content) < 4 * words:
        raise _broken(path, f"it has {len(content)} bytes")
    magic, count, *rest = np.frombuffer(content, ">u4", words).tolist()
    if magic != 0x0801 + len(shape) or tuple(rest) != shape:
        raise _broken(path, f"it does not begin as an idx file of shape {('n', *shape)}")
    values = np.frombuffer(content, np.uint8, offset=4 * words)
    if values.size != count * math.prod(shape):
        raise _broken(path, f"it promises {count} entries, but {values.size} bytes follow")
    return values.reshape(count, *shape)


# --- CIFAR ---

_BATCHES = {
    "cifar10": {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
# Each label in the order of the binary files: what TFDS calls it, a prefix in the files, its classes.
_LABELS = {
    "cifar10": [("label", "", 10)],
    "cifar100": [("coarse_label", "coarse_", 20), ("label", "fine_", 100)],
}
_PIXELS = 3 * 32 * 32  # the three colours one after the other


def _read_cifar(files: Files, name: str, suffix: str) -> Originals:
    parse = _parse_binary if suffix else _parse_pickle

    def part(which: str) -> Part:
        names = [f"{batch}{suffix}" for batch in _BATCHES[name][which]]
        batches = [parse(files, batch, name) for batch in names]
        sizes = [len(batch[0]) for batch in batches]
        if min(sizes) < max(sizes):
            shortest = files.path / names[sizes.index(min(sizes))]
            raise _broken(shortest, f"{min(sizes)} images; another batch has {max(sizes)}")
        pixels, *labels = map(np.concatenate, zip(*batches, strict=True))
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        kinds = zip(_LABELS[name], labels, strict=True)
        return _part(files.path, images, {label: (values, classes) for (label, _, classes), values in kinds})

    return Originals(part("train"), part("test"), _read_label_names(files, name))


def _parse_binary(files: Files, batch: str, name: str) -> list[np.ndarray]:
    """Parses a binary batch into pixels [n, 3072] and each label [n]."""
    content, kinds = np.frombuffer(files.read(batch), np.uint8), len(_LABELS[name])
    if not content.size or content.size % (kinds + _PIXELS):
        raise _broken(files.path / batch, f"{content.size} bytes, no multiple of {kinds + _PIXELS}")
    rows = content.reshape(-1, kinds + _PIXELS)
    return [rows[:, kinds:], *rows[:, :kinds].T]


def _parse_pickle(files: Files, batch: str, name: str) -> list[np.ndarray]:
    """Parses a pickled batch into pixels [n, 3072] and each label [n]."""
    content = _unpickle(files, batch)
    try:
        pixels = unpickling.numbers(content["data"])
        labels = [unpickling.numbers(content[f"{prefix}labels"]) for _, prefix, _ in _LABELS[name]]
    except (KeyError, ValueError) as error:
        raise _broken(files.path / batch, repr(error)) from error
    whole = all(values.shape == pixels.shape[:1] and values.dtype.kind in "iu" for values in labels)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not whole:
        raise _broken(files.path / batch, f"pixels are {pixels.dtype} {pixels.shape}, or labels misfit")
    return [pixels, *labels]


def _read_label_names(files: Files, name: str) -> dict[str, list[str]]:
    """Returns the names of the classes, where the files tell them."""
    text = "batches.meta.txt" if name == "cifar10" else "{}label_names.txt"
    pickled = "batches.meta" if name == "cifar10" else "meta"
    meta = _unpickle(files, pickled) if pickled in files.readers else {}
    names = {}
    for label, prefix, classes in _LABELS[name]:
        if (file := text.format(prefix)) in files.readers:
            names[label] = files.read(file).decode("utf-8", "replace").split()
        elif f"{prefix}label_names" in meta:
            file, names[label] = pickled, unpickling.words(meta[f"{prefix}label_names"])
        if label in names and {len(names[label]), len(set(names[label]))} != {classes}:
            raise _broken(files.path / file, f"it names {len(set(names[label]))} classes, not {classes}")
    return names


def _unpickle(files: Files, name: str) -> dict[str, Any]:
    content = files.read(name)
    try:
        return {unpickling.text(key): value for key, value in unpickling.unpickle(content).items()}
    except Exception as error:  # a broken pickle can raise nearly anything
        raise _broken(files.path / name, repr(error)) from error


# --- Both ---


def _part(path: Path, images: np.ndarray, labels: dict[str, tuple[np.ndarray, int]]) -> Part:
    """Checks that each image has its labels, and each label a class."""
    for label, (values, classes) in labels.items():
        if len(values) != len(images) or not len(images):
            raise _broken(path, f"{len(images)} images and {len(values)} labels")
        if values.min() < 0 or values.max() >= classes:
            raise _broken(path, f"a {label} is {values.max()}, but there are {classes} classes")
    return Part(images, {label: values for label, (values, _) in labels.items()})


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path} is truncated or corrupt: {why:.300}. Get the file again.")
