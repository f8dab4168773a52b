"""Pickled originals are read as Python 2 wrote them; broken and malicious ones are refused before they do anything."""

import os
import pickle
import struct

import numpy as np
import pytest
import toy_originals
from toy_originals import check, cifar_files, cut, refuse, write_folder, write_tar

from benchmarks import unpickling
from benchmarks.data import import_originals

cache = pytest.fixture(toy_originals.own_cache, autouse=True)


# --- pickles of Python 2 ---


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


@pytest.mark.parametrize("kind", [">i8", "<u2"])
def test_labels_may_be_arrays_of_either_order_of_bytes(kind):
    wanted = np.array([3, 1, 256], kind)
    for protocol in (2, 4):
        for values in (wanted, np.asfortranarray(np.stack([wanted, wanted + 1]))):
            found = unpickling.numbers(unpickling.unpickle(pickle.dumps(values, protocol)))
            np.testing.assert_array_equal(found, values)


# --- broken ---


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


# --- malicious ---


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
