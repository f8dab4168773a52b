"""Prepares data sets from their original files, as TFDS would, without network and without TensorFlow.

TFDS' own builder does the writing, under its own name and with its own keys; only the reading is ours. The
images are handed over as PNG: TFDS stores bytes as they are, while it encodes arrays with TensorFlow.
"""

import contextlib
import io
import os
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import originals
from benchmarks.originals import Files, Originals, Part
from neuroml.errors import DataError, UsageError, unknown
from neuroml.streams.prepared import import_tfds
from neuroml.streams.sources import PREPARED

_IDX_SETS = ("mnist", "fashion_mnist")
_TARS = {"cifar10": "cifar-10-*.t*gz", "cifar100": "cifar-100-*.t*gz"}
_PUBLISHED = {
    "mnist": (60_000, 10_000),
    "fashion_mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
}


def import_originals(source: Path, data_dir: Path, name: str | None = None) -> list[str]:
    """Turns original files into prepared TFDS sets, `<data_dir>/<name>/<version>`.

    Args:
      source: a folder with the files as they are published, packed or unpacked, or one tar file.
      data_dir: where to write; made if missing.
      name: only this set. MNIST and Fashion-MNIST use the same file names, so it also says which of them the
        files are, where the folder's name does not.

    Returns:
      The names of the sets found, all of which are now ready in `data_dir`; those that were there are kept.

    Raises:
      UsageError: the name is unknown, or is needed to tell MNIST from Fashion-MNIST.
      DataError: no set was found, or a file is missing, truncated or corrupt, or `data_dir` is not writable.
        Nothing half-written is left behind.
    """
    if name is not None and name not in PREPARED:
        raise unknown("data set", name, PREPARED)
    found = _find(Path(source), name)
    if not found:
        kinds = PREPARED if name is None else {name: PREPARED[name]}
        expected = "; ".join(f"{kind}: {PREPARED[kind].originals}" for kind in kinds)
        raise DataError(f"{source} holds no original files. Expected, there or two folders down: {expected}.")
    for found_name, parse in found.items():
        _import(found_name, parse, Path(data_dir))
    return list(found)


# --- Finding ---


def _find(source: Path, name: str | None) -> dict[str, Callable[[], Originals]]:
    """Returns what parses each set; of two copies the one that lies higher, unpacked before packed."""
    found = {}
    for files in _candidates(source, name):
        kind, parse = originals.parser(files) or (None, None)
        if kind == "idx":
            kind = _tell_idx_apart(files.path, source, name)
        if kind and name in (None, kind):
            found.setdefault(kind, parse)
    return found


def _candidates(source: Path, name: str | None) -> Iterator[Files]:
    if source.is_file() and source.match("*.t*gz"):
        yield originals.open_tar(source)
    elif not source.is_dir():
        raise DataError(f"{source} is neither a folder nor a .tar.gz file.")
    folders = [source, *sorted(source.glob("*/")), *sorted(source.glob("*/*/"))]  # torchvision has MNIST/raw
    yield from map(originals.open_folder, filter(Path.is_dir, folders))
    for folder in folders:
        for kind, pattern in _TARS.items():
            if name in (None, kind):
                yield from map(originals.open_tar, sorted(folder.glob(pattern)))


def _tell_idx_apart(folder: Path, source: Path, name: str | None) -> str | None:
    """Tells MNIST from Fashion-MNIST: by a folder's name, the innermost first, or else as the user says."""
    for part in reversed([source.resolve().name, *folder.relative_to(source).parts]):
        if "fashion" in part.lower():
            return "fashion_mnist"
        if "mnist" in part.lower():
            return None if "kmnist" in part.lower() else "mnist"  # KMNIST has these file names too
    if name is None:
        raise UsageError(
            f"{folder} holds files of MNIST or of Fashion-MNIST: their names are the same. Say which with "
            f"`--name mnist` or `--name fashion_mnist`."
        )
    return name if name in _IDX_SETS else None


# --- Preparing ---


def _import(name: str, parse: Callable[[], Originals], data_dir: Path) -> None:
    target = data_dir / name / str(import_tfds().builder_cls(name).VERSION)
    if any(target.glob("*.array_record*")):
        print(f"{name} is already prepared in {target}.")
        return
    if target.exists():
        raise DataError(f"{target} holds a format other than array_record. Give another --data-dir.")
    data = parse()
    try:
        _prepare(name, data, target)
    except OSError as error:
        raise DataError(f"{name} could not be written to {target}: {error}.") from error
    counts = len(data.train.images), len(data.test.images)
    print(f"{name}: {counts[0]:,} training and {counts[1]:,} test images, prepared in {target}.")
    if counts != _PUBLISHED[name]:
        print(f"Note: {name} was published with {_PUBLISHED[name][0]:,} and {_PUBLISHED[name][1]:,} images.")


def _prepare(name: str, data: Originals, target: Path) -> None:
    """Writes the set beside its place, and moves it there when it is whole."""
    data_dir = target.parent.parent
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="importing-", dir=data_dir) as scratch:
        builder = _builder(name, data)(data_dir=scratch)
        for label, names in data.label_names.items():
            builder.info.features[label].names = names
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of a download and of the scratch folder
            builder.download_and_prepare(file_format="array_record")
        target.parent.mkdir(exist_ok=True)
        os.replace(builder.data_dir, target)


def _builder(name: str, data: Originals) -> type:
    """Derives a builder from the one of TFDS that reads from memory, and differs in nothing else."""
    registered = import_tfds().builder_cls(name)

    def split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        with_id = "id" in self.info.features
        return {
            "train": _examples("train", data.train, with_id),
            "test": _examples("test", data.test, with_id),
        }

    members = {"name": name, "_split_generators": split_generators}
    builder = types.new_class(name, (registered,), {"skip_registration": True}, lambda body: body.update(members))
    builder.__module__ = registered.__module__  # it is written to dataset_info.json
    return builder


def _examples(prefix: str, part: Part, with_id: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields what the builder of TFDS yields, under the same keys, so the stored order is the same too."""
    for index, image in enumerate(part.images):
        labels = {label: int(values[index]) for label, values in part.labels.items()}
        identity = {"id": f"{prefix}_{index:05d}"} if with_id else {}
        yield index, {"image": _png(image), **labels, **identity}


def _png(image: np.ndarray) -> bytes:
    import PIL.Image

    file = io.BytesIO()
    PIL.Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()
