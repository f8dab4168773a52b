"""One data set in memory: the images and labels that every stream draws from.

A stream is a list of indices into a `Dataset`, so the images cross to the device once and are never copied
again. Pixels stay uint8, a quarter of the bytes of float32; `x / dataset.scale` lies in [0, 1].
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from neuroml.errors import UsageError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of one data set, as a pytree whose four arrays are its leaves.

    Everything else is static: index arrays need their shapes inside `jax.jit`, and they follow from the class
    counts. Build one with `Dataset.from_arrays` or `neuroml.streams.sources.load`.
    """

    # Any, and not Array: inside jax transformations a leaf can be a tracer, a shape or an axis number.
    train_x: Any  # uint8 [n, H, W, C]
    train_y: Any  # int32 [n]
    test_x: Any  # uint8 [m, H, W, C]
    test_y: Any  # int32 [m]
    name: str
    classes: int
    scale: float  # the largest value that a pixel can take
    train_counts: tuple[int, ...]  # images of each class, [classes]
    test_counts: tuple[int, ...]

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train: tuple[Any, Any],
        test: tuple[Any, Any],
        *,
        classes: int | None = None,
        scale: float = 255.0,
    ) -> "Dataset":
        """Checks images and labels and counts the classes.

        Args:
          name: what results and messages call the data set.
          train: the training images, uint8 [n, H, W, C] or [n, H, W], and their integer labels [n].
          test: the test images and labels, shaped alike.
          classes: the number of classes; by default the largest label plus one.
          scale: the largest value that a pixel can take, so that `x / scale` lies in [0, 1].

        Returns:
          The data set, its images with a channel axis and its labels int32.

        Raises:
          UsageError: lengths, shapes, pixel type or labels do not fit together, or a set is empty.

        >>> images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
        >>> dataset = Dataset.from_arrays("toy", (images, labels), (images[:2], labels[:2]))
        >>> dataset
        Dataset('toy': 4 training and 2 test images, 2 classes)
        >>> dataset.shape, dataset.train_counts, dataset.test_counts
        ((8, 8, 1), (2, 2), (1, 1))
        """
        if not scale > 0:
            raise UsageError(f"{name}: scale is {scale}, but the largest pixel value must be positive.")
        train_x, train_y = _check_split(f"{name}, training", *train, scale)
        test_x, test_y = _check_split(f"{name}, test", *test, scale)
        if train_x.shape[1:] != test_x.shape[1:]:
            raise UsageError(
                f"{name}: training images are {_by(train_x.shape[1:])}, test images {_by(test_x.shape[1:])}."
            )
        if classes is None:
            classes = int(max(train_y.max(), test_y.max())) + 1
        return cls(
            train_x,
            train_y,
            test_x,
            test_y,
            name=name,
            classes=classes,
            scale=float(scale),
            train_counts=_count_classes(f"{name}, training", train_y, classes),
            test_counts=_count_classes(f"{name}, test", test_y, classes),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image: height, width, channels."""
        return tuple(self.train_x.shape[1:])

    def held_out(self, every: int = 10) -> "Dataset":
        """Returns a data set to tune on, whose test images are training images kept aside.

        Every `every`-th training image of each class becomes a test image; the others stay for training. The
        test set of this data set is not touched, and the choice is the same at each call.

        Args:
          every: one image of so many is kept aside; at least 2.

        Returns:
          The data set, of the same name and classes.

        Raises:
          UsageError: `every` is below 2, or so large that no image is kept aside.

        >>> images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
        >>> Dataset.from_arrays("toy", (images, labels), (images, labels)).held_out(every=5)
        Dataset('toy': 16 training and 4 test images, 2 classes)
        """
        if every < 2:
            raise UsageError(f"held_out(every={every}): nothing would be left for training. Use 2 or more.")
        if every > max(self.train_counts):
            raise UsageError(
                f"held_out(every={every}): no class of {self.name} has so many training images. "
                f"Use {max(self.train_counts)} or fewer."
            )
        images, labels = np.asarray(self.train_x), np.asarray(self.train_y)
        kept_aside = every_nth(labels, every)
        return type(self).from_arrays(
            self.name,
            (images[~kept_aside], labels[~kept_aside]),
            (images[kept_aside], labels[kept_aside]),
            classes=self.classes,
            scale=self.scale,
        )

    def __repr__(self) -> str:
        images = f"{sum(self.train_counts)} training and {sum(self.test_counts)} test images"
        return f"Dataset({self.name!r}: {images}, {self.classes} classes)"


jax.tree_util.register_dataclass(
    Dataset,
    data_fields=["train_x", "train_y", "test_x", "test_y"],
    meta_fields=["name", "classes", "scale", "train_counts", "test_counts"],
)


def every_nth(labels: np.ndarray, every: int) -> np.ndarray:
    """Marks every `every`-th entry of each class, as a boolean mask [n].

    >>> every_nth(np.array([0, 1, 0, 1, 1, 0]), 2)
    array([False, False,  True,  True, False, False])
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    place_in_class = np.empty(len(labels), np.int64)
    place_in_class[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place_in_class % every == every - 1


def _check_split(what: str, images: Any, labels: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [n, H, W, C] and labels int32 [n], or says what is wrong with them."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise UsageError(f"{what}: images are {_by(images.shape)}, not [n, H, W, C] or [n, H, W].")
    if labels.ndim != 1 or len(labels) != len(images):
        raise UsageError(f"{what}: {len(images)} images, but labels are {_by(labels.shape)}, not [{len(images)}]")
    if not images.size:
        raise UsageError(f"{what}: the set is empty: images are {_by(images.shape)}.")
    if images.dtype != np.uint8:
        raise UsageError(f"{what}: pixels are {images.dtype}, not uint8; round them to 0..{scale:g} and cast.")
    if scale < 255 and images.max() > scale:
        raise UsageError(f"{what}: a pixel is {images.max()}, above scale={scale:g}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"{what}: labels are {labels.dtype}, not integers.")
    if labels.min() < 0:
        raise UsageError(f"{what}: a label is {labels.min()}; labels count from 0.")
    return images, labels.astype(np.int32, copy=False)


def _count_classes(what: str, labels: np.ndarray, classes: int) -> tuple[int, ...]:
    if labels.max() >= classes:
        raise UsageError(f"{what}: a label is {labels.max()}, but classes={classes} allows 0 to {classes - 1}")
    return tuple(np.bincount(labels, minlength=classes).tolist())


def _by(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
