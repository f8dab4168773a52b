"""Data sets, and the streams of tasks that are made of them."""

from neuroml.streams.dataset import Dataset
from neuroml.streams.scenarios import blended, joint, label_permuted, permuted, rotated, split
from neuroml.streams.sources import SOURCES, load
from neuroml.streams.stream import Batch, Stream

__all__ = [
    "SOURCES",
    "Batch",
    "Dataset",
    "Stream",
    "blended",
    "joint",
    "label_permuted",
    "load",
    "permuted",
    "rotated",
    "split",
]
