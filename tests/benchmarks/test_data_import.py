"""Original files become prepared sets that load gives back, each under the name that it has."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_originals
from toy_originals import (
    COARSE,
    FINE,
    TEN,
    as_images,
    check,
    cifar_batch,
    cifar_files,
    left_behind,
    write_folder,
    write_idx,
    write_tar,
)

from benchmarks.data import import_originals
from neuroml.errors import DataError, UsageError

VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1", "cifar10": "3.0.2", "cifar100": "3.0.2"}
cache = pytest.fixture(toy_originals.own_cache, autouse=True)


# --- what is there comes back ---


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


# --- which of the two ---


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
