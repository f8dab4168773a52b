"""Original files that are broken or out of place are named, and leave nothing behind."""

import pytest
import toy_originals
from toy_originals import check, cifar_files, cut, refuse, write_folder, write_idx, write_tar

from benchmarks.data import import_originals
from neuroml.errors import DataError, UsageError

cache = pytest.fixture(toy_originals.own_cache, autouse=True)


def test_unknown_names_and_empty_folders(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'cifar10'"):
        import_originals(tmp_path, tmp_path / "tfds", "cifar-10")
    refuse(tmp_path, tmp_path, "holds no original files", "ubyte[.gz]", "cifar-100-python.tar.gz")
    refuse(tmp_path, tmp_path / "nowhere", "neither a folder nor a .tar.gz file")


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
