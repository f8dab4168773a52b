"""Data sets by name: one that comes with the package, and four that TFDS has prepared.

`digits` needs no download. It holds the 1,797 images that scikit-learn ships as `load_digits`: the test part
of *Optical Recognition of Handwritten Digits* by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licensed CC BY 4.0. The file `digits.npz` keeps the images as
uint8 [1797, 8, 8], values 0 to 16, and the labels as uint8 [1797], in scikit-learn's order, all unchanged.
"""

import contextlib
import importlib.util
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neuroml.errors import DataError, unknown
from neuroml.streams import prepared
from neuroml.streams.dataset import Dataset, every_nth

SOURCES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")


class Kind(NamedTuple):
    """What is known of a set before it is read."""

    shape: tuple[int, int, int]  # height, width, channels
    classes: int
    originals: str  # the files it is published as
    url: str  # where they are; TFDS downloads them from the same server


_IDX = "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"
_TAR = "{0}-binary.tar.gz or {0}-python.tar.gz, packed or unpacked"
_TORONTO = "https://www.cs.toronto.edu/~kriz/cifar.html"
PREPARED = {
    "mnist": Kind((28, 28, 1), 10, _IDX, "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    "fashion_mnist": Kind((28, 28, 1), 10, _IDX, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
    "cifar10": Kind((32, 32, 3), 10, _TAR.format("cifar-10"), _TORONTO),
    "cifar100": Kind((32, 32, 3), 100, _TAR.format("cifar-100"), _TORONTO),
}


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a data set by name, images uint8 [n, H, W, C] and labels int32 [n].

    The stored order means nothing, and differs between copies of the same set: shuffle by key.

    Args:
      name: one of `SOURCES`.
      data_dir: the folder that holds prepared TFDS sets; by default `TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`, as in TFDS. The digits have no use for it.

    Returns:
      The data set. Of the digits, every fifth image of each class is a test image.

    Raises:
      UsageError: the name is unknown.
      DataError: the set is missing or corrupt, or a package is; the message says what to do.

    >>> load("digits")
    Dataset('digits': 1442 training and 355 test images, 10 classes)
    """
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    if name == "digits":
        return _load_digits()
    kind = PREPARED[name]
    train, test = prepared.read(find(name, data_dir), kind.shape)
    return Dataset.from_arrays(name, train, test, classes=kind.classes)


def find(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Returns the folder of the newest version that can be read, `<data_dir>/<name>/<version>`.

    Where no version is prepared and TensorFlow is installed, TFDS is asked to download the set and prepare
    it. Without TensorFlow it could not: its builders for these sets encode the images with TensorFlow.

    Raises:
      DataError: the set is missing, or is there in a format that needs TensorFlow to be read.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if not _versions(root / name) and importlib.util.find_spec("tensorflow"):
        _download(name, root)
    versions = _versions(root / name)
    if not versions:
        raise DataError(f"{name} is not prepared in {root}. {_ways_out(name)}")
    readable = [folder for folder in versions if any(folder.glob("*.array_record*"))]
    if not readable:
        raise DataError(
            f"{versions[-1]} holds no array_record files; tfrecord, the default of TFDS, needs TensorFlow to "
            f"be read. Where TensorFlow is installed, prepare it again in an empty folder: `tfds.builder("
            f"'{name}', data_dir=...).download_and_prepare(file_format='array_record')`. {_ways_out(name)}"
        )
    return readable[-1]


def _load_digits() -> Dataset:
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    test = every_nth(labels, 5)
    return Dataset.from_arrays(
        "digits", (images[~test], labels[~test]), (images[test], labels[test]), classes=10, scale=16.0
    )


def _versions(folder: Path) -> list[Path]:
    """Lists the prepared versions of a set, oldest first."""
    infos = folder.glob("*/dataset_info.json")  # TFDS writes this file last
    folders = [info.parent for info in infos if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)]
    return sorted(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _download(name: str, root: Path) -> None:
    tfds = prepared.import_tfds()
    try:
        # TFDS tries again for minutes where there is no network, so ask the server first.
        with contextlib.suppress(urllib.error.HTTPError):  # an answer, if only to say that this is no file
            urllib.request.urlopen(PREPARED[name].url, timeout=5).close()
        tfds.builder(name, data_dir=root).download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever the network, the disk or TensorFlow may raise
        raise DataError(
            f"{name} is not prepared in {root}, and TFDS could not download it ({error!r:.300}). {_ways_out(name)}"
        ) from error


def _ways_out(name: str) -> str:
    return (
        f"Either set TFDS_DATA_DIR (or --data-dir) to a folder where TFDS prepared {name} as array_record, "
        f"or prepare it from its original files, {PREPARED[name].originals} of {PREPARED[name].url}, with "
        f"`python -m benchmarks data import DIR`; there, --data-dir says where to write."
    )
