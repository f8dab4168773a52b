"""Original files become prepared sets that load gives back; broken ones become a message, nothing else."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import unpickling
from benchmarks.data import import_originals
from neuroml.errors import DataError, UsageError
from neuroml.streams.sources import load

VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1", "cifar10": "3.0.2", "cifar100": "3.0.2"}
FINE, COARSE = [f"fine_{i}" for i in range(100)], [f"coarse_{i}" for i in range(20)]
TEN = [f"thing_{i}" for i in range(10)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROML_CACHE_DIR", str(tmp_path / "cache"))


# --- Small original files ---


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


# --- What is there comes back ---


@pytest.mark.parametrize("form", [{}, {"packed": True}, {"dot": True}, {"packed": True, "dot": True}], ids=str)
def test_idx_files(tmp_path, form, capsys):
    splits = write_idx(tmp_path / "mnist", **form)
    assert import_originals(tmp_path / "mnist", tmp_path / "tfds") == ["mnist"]
    check("mnist", tmp_path / "tfds", splits)
    out = capsys.readouterr().out
    assert "20 training and 10 test images" in out and "published with 60,000 and 10,000" in out


def test_files_packed_and_unpacked_side_by_side(tmp_path):
    splits = write_idx(tmp_path / "mnist")
    for file in list((tmp_path / "mnist").iterdir()):
        Path(f"{file}.gz").write_bytes(b"not needed, so not read")
    import_originals(tmp_path / "mnist", tmp_path / "tfds")
    check("mnist", tmp_path / "tfds", splits)


@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", ["folder", "above", "tar", "tar itself"])
def test_cifar(tmp_path, name, kind, form):
    files, splits = cifar_files(name, kind)
    source = tmp_path / "downloads"
    source.mkdir()
    number = name.removeprefix("cifar")
    tar = source / f"cifar-{number}-{kind}.tar.gz"
    if form.startswith("tar"):
        write_tar(tar, f"cifar-{number}-{kind}", files)
    else:
        write_folder(source / f"cifar-{number}-batches", files)
    where = {"folder": source / f"cifar-{number}-batches", "tar itself": tar}.get(form, source)
    assert import_originals(where, tmp_path / "tfds") == [name]
    check(name, tmp_path / "tfds", splits)
    prepared = tmp_path / "tfds" / name / VERSIONS[name]
    assert (prepared / "label.labels.txt").read_text().split() == (TEN if name == "cifar10" else FINE)
    if name == "cifar100":
        assert (prepared / "coarse_label.labels.txt").read_text().split() == COARSE


def test_label_names_may_be_missing(tmp_path):
    files, splits = cifar_files("cifar10", "binary")
    del files["batches.meta.txt"]
    write_folder(tmp_path / "cifar", files)
    import_originals(tmp_path / "cifar", tmp_path / "tfds")
    check("cifar10", tmp_path / "tfds", splits)


def test_the_prepared_set_is_one_of_tfds(tmp_path):
    import tensorflow_datasets as tfds

    files, _ = cifar_files("cifar100", "binary")
    write_folder(tmp_path / "cifar-100-binary", files)
    import_originals(tmp_path, tmp_path / "tfds")
    source = tfds.data_source("cifar100", data_dir=tmp_path / "tfds")
    record = source["train"][0]
    index = int(record["id"].decode().removeprefix("train_"))
    pixels, (coarse, fine) = cifar_batch("cifar100", 20, 0)
    np.testing.assert_array_equal(record["image"], as_images(pixels)[index])
    assert (record["coarse_label"], record["label"]) == (coarse[index], fine[index])
    info = json.loads((tmp_path / "tfds/cifar100/3.0.2/dataset_info.json").read_text())
    assert info["moduleName"] == "tensorflow_datasets.image_classification.cifar"
    assert info["fileFormat"] == "array_record" and str(tmp_path) not in json.dumps(info)


def test_all_sets_of_a_folder_in_one_call(tmp_path):
    source = tmp_path / "data"
    digits, clothes = write_idx(source / "MNIST" / "raw"), write_idx(source / "FashionMNIST" / "raw", seed=5)
    files, colours = cifar_files("cifar10", "python")
    write_folder(source / "cifar-10-batches-py", files)
    names = import_originals(source, tmp_path / "tfds")
    assert sorted(names) == ["cifar10", "fashion_mnist", "mnist"]
    check("mnist", tmp_path / "tfds", digits)
    check("fashion_mnist", tmp_path / "tfds", clothes)
    check("cifar10", tmp_path / "tfds", colours)
    assert left_behind(tmp_path / "tfds")[0] == "cifar10"  # and no temporary folder before it


def test_name_takes_one_set_only(tmp_path):
    write_idx(tmp_path / "data" / "mnist")
    clothes = write_idx(tmp_path / "data" / "fashion", seed=5)
    (tmp_path / "data" / "cifar-10-binary.tar.gz").write_bytes(b"broken, and of no interest")
    assert import_originals(tmp_path / "data", tmp_path / "tfds", "fashion_mnist") == ["fashion_mnist"]
    check("fashion_mnist", tmp_path / "tfds", clothes)
    assert not (tmp_path / "tfds" / "mnist").exists()


def test_a_set_that_is_prepared_is_kept(tmp_path, capsys):
    splits = write_idx(tmp_path / "mnist")
    import_originals(tmp_path / "mnist", tmp_path / "tfds")
    write_idx(tmp_path / "other" / "mnist", seed=7)
    assert import_originals(tmp_path / "other", tmp_path / "tfds") == ["mnist"]
    assert "already prepared in" in capsys.readouterr().out
    check("mnist", tmp_path / "tfds", splits)


def python2_string(content):
    return b"T" + struct.pack("<i", len(content)) + content


def python2_array(pixels):
    """Spells an array as Python 2 pickled it, and as the published files have it: its bytes are a str."""
    rows, columns = (b"M" + struct.pack("<H", size) for size in pixels.shape)
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + python2_string(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + python2_string(b"u1") + b"K\0K\1\x87R(K\3" + python2_string(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    return empty + b"(K\1" + rows + columns + b"\x86" + dtype + b"\x89" + python2_string(pixels.tobytes()) + b"tb"


def test_pickles_of_python_2(tmp_path):
    files, splits = cifar_files("cifar10", "python")
    for file in files:
        if "batch_" in file or "_batch" in file:
            values = pickle.loads(files[file])
            labels = b"](" + b"".join(b"K" + bytes([label]) for label in values[b"labels"]) + b"e"
            content = python2_string(b"data") + python2_array(values[b"data"])
            content += python2_string(b"labels") + labels
            files[file] = b"\x80\x02}(" + content + b"u."
    write_folder(tmp_path / "cifar-10-batches-py", files)
    import_originals(tmp_path, tmp_path / "tfds")
    check("cifar10", tmp_path / "tfds", splits)


# --- Which of the two ---


def test_idx_files_need_a_name_that_tells(tmp_path):
    splits = write_idx(tmp_path / "raw")
    with pytest.raises(UsageError, match="--name mnist.*--name fashion_mnist"):
        import_originals(tmp_path / "raw", tmp_path / "tfds")
    assert left_behind(tmp_path / "tfds") == []
    import_originals(tmp_path / "raw", tmp_path / "tfds", "fashion_mnist")
    check("fashion_mnist", tmp_path / "tfds", splits)


@pytest.mark.parametrize("folder", ["fashion", "KMNIST/raw"])
def test_the_folders_name_is_believed_before_the_user(tmp_path, folder):
    write_idx(tmp_path / "data" / folder)
    with pytest.raises(DataError, match="holds no original files.*mnist: "):
        import_originals(tmp_path / "data", tmp_path / "tfds", "mnist")


# --- What is broken is named, and leaves nothing behind ---


def refuse(tmp_path, source, *words, name=None):
    with pytest.raises(DataError) as caught:
        import_originals(source, tmp_path / "tfds", name)
    for word in words:
        assert word in str(caught.value)
    assert left_behind(tmp_path / "tfds") == []


def test_unknown_names_and_empty_folders(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        import_originals(tmp_path, tmp_path / "tfds", "cifar-10")
    refuse(tmp_path, tmp_path, "holds no original files", "ubyte[.gz]", "cifar-100-python.tar.gz")
    refuse(tmp_path, tmp_path / "nowhere", "neither a folder nor a .tar.gz file")


def cut(content):
    return content[:-5]


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "change",
    [cut, lambda content: content[:6], lambda content: b"\7" * len(content), lambda content: b""],
    ids=["cut", "header only", "junk", "empty"],
)
def test_broken_idx_files(tmp_path, file, packed, change):
    write_idx(tmp_path / "mnist", packed=packed)
    path = tmp_path / "mnist" / (file + ".gz" * packed)
    path.write_bytes(change(path.read_bytes()))
    refuse(tmp_path, tmp_path / "mnist", f"{path} is truncated or corrupt")


def test_a_missing_idx_file(tmp_path):
    write_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    refuse(tmp_path, tmp_path / "mnist", "t10k-labels-idx1-ubyte is missing")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"data_batch_3.bin": cut}, ["data_batch_3.bin", "no multiple of 3073"]),
        ({"data_batch_3.bin": lambda content: content[:3073]}, ["data_batch_3.bin", "1 images"]),
        ({"data_batch_3.bin": lambda content: b""}, ["data_batch_3.bin", "0 bytes"]),
        ({"test_batch.bin": lambda content: b"\x0a" + content[1:]}, ["a label is 10"]),
        ({"data_batch_5.bin": None}, ["data_batch_5.bin is missing"]),
        ({"batches.meta.txt": lambda content: b"cat\ndog\n"}, ["batches.meta.txt", "2 classes, not 10"]),
    ],
    ids=["cut", "short", "empty", "label", "missing", "names"],
)
def test_broken_binary_batches(tmp_path, change, words):
    files, _ = cifar_files("cifar10", "binary")
    for file, alter in change.items():
        content = files.pop(file)
        if alter:
            files[file] = alter(content)
    write_folder(tmp_path / "cifar", files)
    refuse(tmp_path, tmp_path / "cifar", *words)


def pickled(change):
    """Changes the content of a pickle."""

    def alter(content):
        values = pickle.loads(content)
        change(values)
        return pickle.dumps(values, protocol=2)

    return alter


@pytest.mark.parametrize(
    "change",
    [
        cut,
        lambda content: b"",
        lambda content: pickle.dumps([1, 2]),
        pickled(lambda values: values.pop(b"labels")),
        pickled(lambda values: values[b"labels"].pop()),
        pickled(lambda values: values[b"labels"].append("cat")),
        pickled(lambda values: values.update({b"data": values[b"data"][:, 1:]})),
        pickled(lambda values: values.update({b"data": values[b"data"].astype(float)})),
    ],
    ids=["cut", "empty", "list", "no labels", "few labels", "word", "pixels", "floats"],
)
def test_broken_pickles(tmp_path, change):
    files, _ = cifar_files("cifar10", "python")
    write_folder(tmp_path / "cifar", files | {"data_batch_2": change(files["data_batch_2"])})
    refuse(tmp_path, tmp_path / "cifar", "data_batch_2 is truncated or corrupt")


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("file", ["train", "test", "meta"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, file, packed):
    files, _ = cifar_files("cifar100", "python")
    files[file] = pickle.dumps({b"data": Malicious(tmp_path / "victim")}, protocol=2)
    source = tmp_path / "downloads"
    if packed:
        source.mkdir()
        write_tar(source / "cifar-100-python.tar.gz", "cifar-100-python", files)
    else:
        write_folder(source / "cifar-100-python", files)
    refuse(tmp_path, source, f"{file} is truncated or corrupt", "system, which no image set needs")
    assert not (tmp_path / "victim").exists()


def called(name, arguments, state=b""):
    """Spells the call of a function of numpy, and the state that its result is given."""
    return b"cnumpy\n" + name + b"\n" + arguments + b"R" + state


FLAGS = b"(K\3" + python2_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"  # no reference counts
OBJECTS = called(b"dtype", python2_string(b"O") + b"K\0K\1\x87", FLAGS)
ADDRESSES = b"C\x50" + b"A" * 80  # bytes of Python 3
INTERFACE = {"data": (64, False), "shape": (10,), "typestr": "|u1", "version": 3}


@pytest.mark.parametrize(
    "forged, words",
    [
        # The bytes of an array taken for the addresses of objects: reading one of them ends the program.
        (called(b"ndarray", b"K\n\x85" + OBJECTS + ADDRESSES + b"\x87"), "array of 'O'"),
        (called(b"ndarray", b"K\n\x85" + python2_string(b"u1") + ADDRESSES + b"\x87"), "not callable"),
        (called(b"dtype", python2_string(b"V8,O") + b"\x85"), "array of 'V8,O'"),
        # A function that says where in memory it lies, as an array may.
        (b"c_codecs\nencode\n(N" + pickle.dumps({"__array_interface__": INTERFACE}, 2)[2:-1] + b"tb", "0 classes"),
        (b"K\1", "0 classes"),
    ],
    ids=["objects", "ndarray", "record", "interface", "number"],
)
def test_a_forged_array_is_refused_before_numpy_sees_it(tmp_path, forged, words):
    files, _ = cifar_files("cifar10", "python")
    files["batches.meta"] = b"\x80\x02}" + python2_string(b"label_names") + forged + b"s."
    write_folder(tmp_path / "cifar-10-batches-py", files)
    refuse(tmp_path, tmp_path, "batches.meta is truncated or corrupt", words)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch"])
def test_forged_pixels_are_refused_before_numpy_sees_them(tmp_path, file):
    files, _ = cifar_files("cifar10", "python")
    lies = b"c_codecs\nencode\n(N" + pickle.dumps({"__array_interface__": INTERFACE}, 2)[2:-1] + b"tb"
    files[file] = files[file][:-2] + python2_string(b"data") + lies + b"u."
    write_folder(tmp_path / "cifar-10-batches-py", files)
    refuse(tmp_path, tmp_path, f"{file} is truncated or corrupt", "neither an array nor a list of whole numbers")


@pytest.mark.parametrize("kind", [">i8", "<u2"])
def test_labels_may_be_arrays_of_either_order_of_bytes(kind):
    wanted = np.array([3, 1, 256], kind)
    for protocol in (2, 4):
        for values in (wanted, np.asfortranarray(np.stack([wanted, wanted + 1]))):
            found = unpickling.numbers(unpickling.unpickle(pickle.dumps(values, protocol)))
            np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("change", [lambda content: content[: len(content) // 2], lambda content: b"junk"])
def test_broken_tar_files(tmp_path, change):
    files, _ = cifar_files("cifar10", "binary")
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_tar(path, "cifar-10-batches-bin", files)
    path.write_bytes(change(path.read_bytes()))
    refuse(tmp_path, path, f"{path} is truncated or corrupt")
    refuse(tmp_path, tmp_path, f"{path} is truncated or corrupt")


def test_names_in_a_tar_file_point_nowhere(tmp_path):
    files, splits = cifar_files("cifar10", "binary")
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_tar(path, "../../../escaped", files)
    import_originals(path, tmp_path / "tfds")
    check("cifar10", tmp_path / "tfds", splits)
    assert not [path for path in tmp_path.parent.rglob("escaped*")]


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    write_idx(tmp_path / "mnist")
    written = []

    def fail(image):
        written.append(image)
        if len(written) > 5:
            raise OSError("no space left")
        return png(image)

    from benchmarks import data

    png = data._png
    monkeypatch.setattr(data, "_png", fail)
    refuse(tmp_path, tmp_path / "mnist", "could not be written", "no space left")


def test_a_folder_that_cannot_be_written(tmp_path):
    write_idx(tmp_path / "mnist")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not be written"):
        import_originals(tmp_path / "mnist", tmp_path / "file" / "tfds")


def test_a_tfrecord_copy_is_not_overwritten(tmp_path):
    write_idx(tmp_path / "mnist")
    place = tmp_path / "tfds" / "mnist" / "3.0.1"
    place.mkdir(parents=True)
    (place / "mnist-train.tfrecord-00000-of-00001").touch()
    with pytest.raises(DataError, match="other than array_record. Give another --data-dir"):
        import_originals(tmp_path / "mnist", tmp_path / "tfds")
