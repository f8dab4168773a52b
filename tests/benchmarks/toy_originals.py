"""Small original files as their publishers pack them, and checks of what became of them."""

import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest

from benchmarks.data import import_originals
from neuroml.errors import DataError
from neuroml.streams.sources import load

FINE, COARSE = [f"fine_{i}" for i in range(100)], [f"coarse_{i}" for i in range(20)]
TEN = [f"thing_{i}" for i in range(10)]


def own_cache(tmp_path, monkeypatch):
    """Keeps what `load` keeps out of the cache of the user: files that use it make a fixture of it."""
    monkeypatch.setenv("NEUROML_CACHE_DIR", str(tmp_path / "cache"))


def idx_split(count, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)
    return images, np.arange(count).astype(np.uint8) % 10


def write_idx(folder, seed=0, packed=False, dot=False):
    """Writes 20 training and 10 test images as the four files of MNIST."""
    folder.mkdir(parents=True)
    splits = idx_split(20, seed), idx_split(10, seed + 1)
    for part, split in zip(("train", "t10k"), splits, strict=True):
        for kind, values in zip(("images", "labels"), split, strict=True):
            content = np.array([0x0800 + values.ndim, *values.shape], ">u4").tobytes() + values.tobytes()
            file = folder / f"{part}-{kind}{'.' if dot else '-'}idx{values.ndim}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(content) if packed else content)
    return splits


def cifar_batch(name, count, seed):
    """Returns pixels [n, 3072], colour by colour, and the labels in the order of the binary files."""
    random = np.random.default_rng(seed)
    kinds = [10] if name == "cifar10" else [20, 100]
    labels = [(np.arange(count) * 7 + seed).astype(np.uint8) % classes for classes in kinds]
    return random.integers(0, 256, (count, 3072), np.uint8), labels


def cifar_files(name, kind):
    """Returns the files of a small CIFAR by name, and its training and test batches."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if name == "cifar10" else ["train"]
    last = "test_batch" if name == "cifar10" else "test"
    batches = {batch: cifar_batch(name, 20 // len(names), seed) for seed, batch in enumerate(names)}
    batches[last] = cifar_batch(name, 10, 99)
    write = write_binary if kind == "binary" else write_pickles
    merged = [np.concatenate([batches[batch][0] for batch in names]), batches[last][0]]
    labels = [np.concatenate([batches[batch][1][-1] for batch in names]), batches[last][1][-1]]
    return write(name, batches), list(zip(map(as_images, merged), labels, strict=True))


def as_images(pixels):
    return np.stack([np.dstack([row[:1024], row[1024:2048], row[2048:]]).reshape(32, 32, 3) for row in pixels])


def write_binary(name, batches):
    files = {}
    for batch, (pixels, labels) in batches.items():
        files[f"{batch}.bin"] = np.column_stack([*labels, pixels]).astype(np.uint8).tobytes()
    if name == "cifar10":
        return files | {"batches.meta.txt": "\n".join([*TEN, ""]).encode()}
    texts = {"fine_label_names.txt": FINE, "coarse_label_names.txt": COARSE}
    return files | {file: "\n".join([*words, ""]).encode() for file, words in texts.items()}


def write_pickles(name, batches):
    keys = [b"labels"] if name == "cifar10" else [b"coarse_labels", b"fine_labels"]
    files = {}
    for batch, (pixels, labels) in batches.items():
        content = {b"data": pixels, b"batch_label": b"batch", b"filenames": [b"a.png"] * len(pixels)}
        content |= {key: values.tolist() for key, values in zip(keys, labels, strict=True)}
        files[batch] = pickle.dumps(content, protocol=2)
    if name == "cifar10":
        return files | {"batches.meta": pickle.dumps({b"label_names": [w.encode() for w in TEN]}, protocol=2)}
    return files | {"meta": pickle.dumps({"fine_label_names": FINE, "coarse_label_names": COARSE}, protocol=2)}


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)


def write_tar(path, folder, files):
    with tarfile.open(path, "w:gz") as tar:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def check(name, data_dir, splits):
    """Checks that a set holds these images with these labels, in whatever order."""
    loaded = load(name, data_dir)
    found = (loaded.train_x, loaded.train_y), (loaded.test_x, loaded.test_y)
    for (images, labels), (found_images, found_labels) in zip(splits, found, strict=True):
        expected = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
        rows = zip(found_images, found_labels, strict=True)
        assert sorted((image.tobytes(), int(label)) for image, label in rows) == expected


def left_behind(data_dir):
    """Lists what is in the folder of prepared sets."""
    return sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*")) if data_dir.exists() else []


def refuse(tmp_path, source, *words, name=None):
    with pytest.raises(DataError) as caught:
        import_originals(source, tmp_path / "tfds", name)
    for word in words:
        assert word in str(caught.value)
    assert left_behind(tmp_path / "tfds") == []


def cut(content):
    return content[:-5]
