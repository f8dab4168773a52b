"""Data sets by name: the digits, prepared folders, the cache, and what is said when something is wrong."""

import concurrent.futures
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.data import import_originals
from neuroml.errors import DataError, UsageError
from neuroml.streams import prepared
from neuroml.streams.sources import PREPARED, SOURCES, find, load

VERSION = "3.0.1"


def write_idx(folder, seed):
    """Writes a small set in the format of MNIST."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for part, count in ("train", 20), ("t10k", 10):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, values in ("images", images), ("labels", labels):
            header = np.array([0x0800 + values.ndim, *values.shape], ">u4").tobytes()
            (folder / f"{part}-{kind}-idx{values.ndim}-ubyte").write_bytes(header + values.tobytes())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A prepared folder with a small MNIST and another one with other images."""
    root = tmp_path_factory.mktemp("prepared")
    for seed, copy in enumerate(("one", "two")):
        write_idx(root / copy / "mnist", seed)
        import_originals(root / copy / "mnist", root / copy / "tfds")
    return root


@pytest.fixture
def data_dir(pristine, tmp_path, monkeypatch):
    """A prepared folder to break, and a cache of its own."""
    monkeypatch.setenv("NEUROML_CACHE_DIR", str(tmp_path / "cache"))
    return shutil.copytree(pristine / "one" / "tfds", tmp_path / "tfds")


def without_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)


# --- Names and digits ---


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="unknown data set 'cifar'.*Did you mean 'cifar10'"):
        load("cifar")
    assert set(SOURCES) == {"digits", *PREPARED}


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    digits = load("digits")
    test = np.zeros(1797, bool)
    for label in range(10):
        test[np.flatnonzero(bunch.target == label)[4::5]] = True
    np.testing.assert_array_equal(digits.train_x[..., 0], bunch.images[~test])
    np.testing.assert_array_equal(digits.train_y, bunch.target[~test])
    np.testing.assert_array_equal(digits.test_x[..., 0], bunch.images[test])
    np.testing.assert_array_equal(digits.test_y, bunch.target[test])


def test_digits_in_numbers():
    digits = load("digits", data_dir="/nowhere")
    assert (digits.shape, digits.classes, digits.scale) == ((8, 8, 1), 10, 16.0)
    assert digits.train_x.max() == 16
    assert sum(digits.train_counts) + sum(digits.test_counts) == 1797
    assert min(digits.train_counts) == 140 and min(digits.test_counts) == 34


def test_nothing_heavy_is_imported_with_the_module():
    heavy = "{'tensorflow_datasets', 'PIL', 'platformdirs', 'array_record'}"
    code = f"import sys, neuroml.streams.sources; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- Reading and the cache ---


def test_the_second_start_maps_the_cache_without_tfds(data_dir, monkeypatch, capsys):
    first = load("mnist", data_dir)
    assert "decoding mnist" in capsys.readouterr().err
    without_tfds(monkeypatch)
    second = load("mnist", data_dir)
    assert capsys.readouterr().err == ""
    assert isinstance(second.train_x.base, np.memmap)
    np.testing.assert_array_equal(first.train_x, second.train_x)
    np.testing.assert_array_equal(first.test_y, second.test_y)
    assert (second.train_counts, second.test_counts) == ((2,) * 10, (1,) * 10)


def break_half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("part", ["train-images", "train-labels", "test-images", "test-labels"])
@pytest.mark.parametrize(
    "break_file",
    [break_half, lambda file: file.write_bytes(b""), lambda file: np.save(file, np.zeros(3)), os.remove],
    ids=["truncated", "empty", "another shape", "missing"],
)
def test_a_broken_cache_is_made_anew(data_dir, tmp_path, part, break_file):
    first = load("mnist", data_dir)
    (file,) = (tmp_path / "cache").glob(f"mnist-{VERSION}-*-{part}.npy")
    break_file(file)
    again = load("mnist", data_dir)
    np.testing.assert_array_equal(first.train_x, again.train_x)
    np.testing.assert_array_equal(first.test_y, again.test_y)
    assert np.load(file).size in (20, 10, 20 * 784, 10 * 784)


def test_copies_do_not_share_a_cache(data_dir, pristine, tmp_path):
    one, two = load("mnist", data_dir), load("mnist", pristine / "two" / "tfds")
    assert (one.train_x != two.train_x).any()
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 8


def test_several_may_fill_the_cache_at_once(data_dir, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sets = list(pool.map(lambda _: load("mnist", data_dir), range(4)))
    assert all((found.train_x == sets[0].train_x).all() for found in sets)
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_cache_that_cannot_be_written_is_done_without(data_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEUROML_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert load("mnist", data_dir).train_counts == (2,) * 10
    assert "NEUROML_CACHE_DIR names another folder" in capsys.readouterr().err


def test_the_users_cache_folder_is_the_default(monkeypatch):
    monkeypatch.delenv("NEUROML_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert "neuroml" in prepared._cache_folder().parts


def test_progress_is_one_line_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for done in (0, 1000, 2000):
        prepared._show_progress("mnist train", done, 2000)
    written = capsys.readouterr().err
    assert written.count("\n") == 1 and written.count("\r") == 3 and "1,000 of 2,000" in written


def test_only_remarks_on_speed_are_dropped(caplog):
    absl = logging.getLogger("absl")
    absl.addHandler(caplog.handler)
    try:
        with prepared._without_remarks_on_speed():
            absl.error("File x was created with group size 64. Grain requires group size 1 for good performance.")
            absl.error("something else")
        absl.error("Grain requires group size 1 (afterwards)")
    finally:
        absl.removeHandler(caplog.handler)
    messages = " ".join(caplog.messages)
    assert "64" not in messages and "something else" in messages and "afterwards" in messages


# --- Finding ---


def test_the_explicit_folder_wins_over_the_environment(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert load("mnist").train_counts == (2,) * 10
    with pytest.raises(DataError, match="not prepared in .*elsewhere"):
        load("mnist", tmp_path / "elsewhere")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert load("mnist", data_dir).train_counts == (2,) * 10


def test_the_newest_whole_version_is_taken(data_dir):
    folder = data_dir / "mnist"
    shutil.copytree(folder / VERSION, folder / "3.0.10")
    shutil.copytree(folder / VERSION, folder / "incomplete.ABC_9.0.0")
    (folder / "8.0.0").mkdir()
    assert find("mnist", data_dir).name == "3.0.10"


@pytest.mark.parametrize("name", PREPARED)
def test_a_missing_set_names_both_ways_out(name, tmp_path):
    with pytest.raises(DataError) as caught:
        load(name, tmp_path)
    for words in (name, str(tmp_path), "TFDS_DATA_DIR", "python -m benchmarks data import DIR"):
        assert words in str(caught.value)
    assert f"{PREPARED[name].originals} of {PREPARED[name].url}, with" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_tfrecord_copy_is_called_that(data_dir):
    for file in (data_dir / "mnist" / VERSION).glob("*array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="tfrecord.*file_format='array_record'.*benchmarks data import DIR"):
        load("mnist", data_dir)


def test_without_tfds_the_error_says_what_to_install(data_dir, monkeypatch):
    without_tfds(monkeypatch)
    with pytest.raises(DataError, match=r'pip install "neuroml-jax\[bench\]"'):
        load("mnist", data_dir)


# --- Downloading, which takes TensorFlow ---


@pytest.fixture
def tensorflow(monkeypatch):
    """Makes TensorFlow look installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


def test_where_tensorflow_is_installed_tfds_prepares_the_set(tensorflow, data_dir, tmp_path, monkeypatch):
    asked = []

    def builder(name, data_dir):
        def download_and_prepare(file_format):
            asked.append((name, file_format))
            shutil.copytree(tmp_path / "tfds" / name, data_dir / name)

        return SimpleNamespace(download_and_prepare=download_and_prepare)

    def urlopen(url, timeout):
        raise urllib.error.HTTPError(url, 403, "the server is there", SimpleNamespace(), None)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(prepared.import_tfds(), "builder", builder)
    assert load("mnist", tmp_path / "new").train_counts == (2,) * 10
    assert asked == [("mnist", "array_record")]


def test_without_network_tfds_is_not_asked(tensorflow, tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(prepared.import_tfds(), "builder", None)
    with pytest.raises(DataError, match="could not download it .*no network.*TFDS_DATA_DIR.*data import DIR"):
        load("cifar10", tmp_path)
    assert not list(tmp_path.iterdir())


# --- Corrupt folders ---


def shard(data_dir):
    (file,) = (data_dir / "mnist" / VERSION).glob("mnist-test.array_record*")
    return file


def flip_bytes(file):
    """Damages the data, and leaves the header and the size as they are."""
    content = bytearray(file.read_bytes())
    content[300:340] = bytes(byte ^ 255 for byte in content[300:340])
    file.write_bytes(content)


@pytest.mark.parametrize(
    "break_file",
    [break_half, flip_bytes, os.remove, lambda file: file.write_bytes(b"junk")],
    ids=["truncated", "flipped", "missing", "junk"],
)
def test_a_corrupt_shard_is_reported_and_not_cached(data_dir, tmp_path, break_file):
    break_file(shard(data_dir))
    with pytest.raises(DataError, match=f"mnist/{VERSION} is truncated or corrupt .*prepare the set anew"):
        load("mnist", data_dir)
    assert not (tmp_path / "cache").exists()


def change_info(data_dir, change):
    file = data_dir / "mnist" / VERSION / "dataset_info.json"
    info = json.loads(file.read_text())
    change(info["splits"])
    file.write_text(json.dumps(info))


def test_fewer_records_than_noted_are_reported(data_dir):
    change_info(data_dir, lambda splits: splits[0].update(shardLengths=["21"]))
    with pytest.raises(DataError, match="truncated or corrupt"):
        load("mnist", data_dir)


def test_a_split_that_is_not_there_is_reported(data_dir):
    change_info(data_dir, lambda splits: splits.pop())
    with pytest.raises(DataError, match="dataset_info.json is truncated or corrupt"):
        load("mnist", data_dir)


def test_a_broken_description_is_reported(data_dir):
    (data_dir / "mnist" / VERSION / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="dataset_info.json is truncated or corrupt"):
        load("mnist", data_dir)


# --- The real thing ---


def test_real_mnist_is_mnist(mnist):
    assert (mnist.shape, mnist.classes, mnist.scale) == ((28, 28, 1), 10, 255.0)
    assert mnist.train_counts == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    assert mnist.test_counts == (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    pixels = mnist.train_x / np.float32(mnist.scale)
    assert abs(pixels.mean() - 0.1307) < 1e-4
    assert abs(pixels.std() - 0.3081) < 1e-4
