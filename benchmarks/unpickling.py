"""Reads pickles of plain values and arrays of whole numbers, whoever wrote them: none can run code or reach memory.

A pickle names functions to call, and objects whose state to set. Numpy's own trust what they are given: a forged type
turns bytes into addresses. So none of numpy's is called while a pickle is read.
"""

import io
import pickle
import re
from typing import Any

import numpy as np


def unpickle(content: bytes) -> Any:
    """Returns what a pickle holds, strings of Python 2 as latin1; raises nearly anything where it is broken."""
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()


def numbers(entry: Any) -> np.ndarray:
    """Returns an array, or a list of whole numbers as one; raises ValueError for all else, which numpy is not shown."""
    if isinstance(entry, _Array):
        return entry.values
    if not isinstance(entry, list) or any(type(number) is not int for number in entry):
        raise ValueError("there is neither an array nor a list of whole numbers")
    return np.array(entry)


def words(entry: Any) -> list[str]:
    """Returns the strings of a list, and none of anything else."""
    return [text(word) for word in entry if isinstance(word, str | bytes)] if isinstance(entry, list) else []


def text(word: str | bytes) -> str:
    """Returns a string, which Python 2 may have written as bytes."""
    return word.decode("latin1") if isinstance(word, bytes) else word


class _Kind:
    """The type of whole numbers of 1 to 8 bytes, in the place of `numpy.dtype`."""

    def __init__(self, name: str):
        if not re.fullmatch("[iu][1248]", name):
            raise pickle.UnpicklingError(f"it has an array of {name!r}, which no image set needs")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        """Keeps the order of the bytes, and nothing else of what a type may claim."""
        self.order = state[1] if state[1] in ("<", ">") else "="


class _Array:
    """An array, in the place of `numpy.ndarray`."""

    values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple) -> None:
        """Views the bytes as an array; raises where their number or their type does not fit."""
        _, shape, kind, columns_first, content = state
        if not isinstance(kind, _Kind):
            raise pickle.UnpicklingError("it has an array without a type")
        content = content.encode("latin1") if isinstance(content, str) else content
        flat = np.frombuffer(content, kind.order + kind.name)
        self.values = flat.reshape(shape, order="F" if columns_first else "C")


class _Unpickler(pickle.Unpickler):
    """Builds plain values and arrays, and refuses anything else: a pickle can name any function to call."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Returns what stands in for one of the few names that an array or a byte string is pickled with."""
        match module_name, global_name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return lambda *_: _Array()
            case "numpy", "ndarray":
                return None  # `_reconstruct` is given it; nothing may call it
            case "numpy", "dtype":
                return lambda name, *_: _Kind(name)
            case "_codecs", "encode":  # how Python 3 writes bytes for Python 2
                return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no image set needs")
