"""Image sets for few-shot classification, sorted by class and split into train and test classes.

Axes: `I` images, `P` pixels of one, `C` classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metarl.envs.few_shot.glyphs import draw_glyphs
from metarl.errors import ConfigError, MissingPackageError
from metarl.field_types import suggestion
from metarl.split import Split

CPU = torch.device("cpu")
TEST_SHARE = 0.25
"""share of the classes that is held out by default"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images sorted by class; classes are numbered from 0 in the order of their labels."""

    pixels: Tensor  # [I, P] float32 in [0, 1]
    class_of: Tensor  # [I] int64
    first: Tensor  # [C] int64, the first image of each class
    count: Tensor  # [C] int64, images of each class
    train_classes: Tensor  # int64, disjoint from the test classes
    test_classes: Tensor  # int64
    key: Tensor  # [P] float64, a projection that maps no two images to one value
    sorted_keys: Tensor  # [I] float64, ascending
    sorted_images: Tensor  # [I] int64, the images of these keys

    def classes(self, split: Split) -> Tensor:
        """Classes of a split."""
        return self.train_classes if split == "train" else self.test_classes

    def recognise(self, pixels: Tensor) -> Tensor:
        """Class [...] of images [..., P] of this set; arbitrary for other images."""
        key = pixels.to(torch.float64) @ self.key
        above = torch.searchsorted(self.sorted_keys, key).clamp(1, len(self.sorted_keys) - 1)
        nearer_below = key - self.sorted_keys[above - 1] < self.sorted_keys[above] - key
        return self.class_of[self.sorted_images[torch.where(nearer_below, above - 1, above)]]


_registered: dict[str, ImageSet] = {}


def register_images(
    name: str,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    test_classes: Sequence[Any] | None = None,
) -> None:
    """Makes `FewShotClassification(images=name)` draw its tasks from these images.

    A run folder stores the name only. To load the run in another process, register the same images
    first, or save them with `numpy.savez(path, images=..., labels=..., test_classes=...)` and use
    that path as the name.

    Args:
        name: a new name, not the path of an `.npz` file.
        images: [I, ...] integers from 0 to the maximum of their type (255 for uint8), or floats in
            [0, 1]; they are flattened.
        labels: [I], anything that NumPy can sort.
        test_classes: labels of the classes that never occur in training; by default the last
            quarter of the classes in sorted order.

    Raises:
        ConfigError: the name is taken, or the arrays are not valid images and labels.
    """
    if name in (*_built_in(), *_registered) or name.endswith(".npz"):
        raise ConfigError(
            f"Images cannot be registered as {name!r}: the name is taken, or is a file path. "
            "Choose another name."
        )
    _registered[name] = sorted_by_class(images, labels, test_classes)


def image_set(name: str, device: torch.device = CPU) -> ImageSet:
    """The images of this name: built in, registered, or the path of an `.npz` file.

    Raises:
        ConfigError: the name is unknown, or the file does not hold valid images.
    """
    if device.type != "cpu":
        return _on_device(image_set(name), device)
    if name in _registered:
        return _registered[name]
    if name.endswith(".npz"):
        return _read(Path(name))
    known = _built_in()
    if name not in known:
        names = [*known, *_registered]
        raise ConfigError(
            f"No images are called {name!r}.{suggestion(name, names)} Known: {', '.join(names)}. "
            "For your own, give the path of an .npz file with the arrays images and labels, or "
            "call metarl.envs.few_shot.images.register_images first."
        )
    return known[name]()


@lru_cache(maxsize=8)
def _on_device(data: ImageSet, device: torch.device) -> ImageSet:
    return ImageSet(**{name: value.to(device) for name, value in vars(data).items()})


def sorted_by_class(
    images: ArrayLike, labels: ArrayLike, test_classes: Sequence[Any] | None
) -> ImageSet:
    """The arguments of `register_images`, validated and sorted. Raises `ConfigError`."""
    pixels, names = _pixels(np.asarray(images)), np.asarray(labels)
    if names.shape != pixels.shape[:1] or not len(names):
        raise ConfigError(
            f"Images need one label each: got {len(pixels)} images and labels of shape "
            f"{list(names.shape)}."
        )
    classes, class_of, count = np.unique(names, return_inverse=True, return_counts=True)
    held_out = _held_out(classes, test_classes)
    order = np.argsort(class_of, kind="stable")
    # A fixed seed: the projection only identifies images, and no random draw depends on it.
    key = np.random.default_rng(0).standard_normal(pixels.shape[1])
    keys = pixels[order].astype(np.float64) @ key
    by_key = np.argsort(keys)
    return ImageSet(
        pixels=torch.as_tensor(pixels[order]),
        class_of=torch.as_tensor(class_of[order].astype(np.int64)),
        first=torch.as_tensor(np.cumsum(count) - count),
        count=torch.as_tensor(count),
        train_classes=torch.as_tensor(np.flatnonzero(~held_out)),
        test_classes=torch.as_tensor(np.flatnonzero(held_out)),
        key=torch.as_tensor(key),
        sorted_keys=torch.as_tensor(keys[by_key]),
        sorted_images=torch.as_tensor(by_key),
    )


def _pixels(images: NDArray[Any]) -> NDArray[np.float32]:
    """[I, ...] -> [I, P] in [0, 1]."""
    if images.ndim < 2 or not images.size:
        raise ConfigError(
            f"Images must be [I, ...], one row per image; got shape {list(images.shape)}."
        )
    flat = images.reshape(len(images), -1)
    if np.issubdtype(flat.dtype, np.integer):
        flat = flat / np.float64(np.iinfo(flat.dtype).max)
    elif not (np.issubdtype(flat.dtype, np.floating) or flat.dtype == bool):
        raise ConfigError(f"Images must be numbers; got {flat.dtype}.")
    if not (np.min(flat) >= 0 and np.max(flat) <= 1):  # false for NaN
        raise ConfigError(
            f"Pixels must lie in [0, 1], or be unsigned integers; got {np.min(flat)} to "
            f"{np.max(flat)}. Scale them first."
        )
    return np.ascontiguousarray(flat, dtype=np.float32)


def _held_out(classes: NDArray[Any], test_classes: Sequence[Any] | None) -> NDArray[np.bool_]:
    """Whether each class is in the test split, [C]."""
    if test_classes is None:
        return np.arange(len(classes)) >= len(classes) - round(TEST_SHARE * len(classes))
    wanted = np.asarray(test_classes)
    missing = wanted[~np.isin(wanted, classes)].tolist()
    if missing:
        raise ConfigError(
            f"The test class {missing[0]!r} has no image; test classes must occur in the labels."
        )
    return np.isin(classes, wanted)


def _built_in() -> dict[str, Callable[[], ImageSet]]:
    return {"glyphs": _glyphs, "digits": _digits}


@lru_cache
def _glyphs() -> ImageSet:
    images, labels = draw_glyphs()
    return sorted_by_class(images, labels, None)


@lru_cache
def _digits() -> ImageSet:
    """1797 handwritten digits of 8 x 8 pixels, from 0 to 16; classes 0 to 4 are for training."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(
            "The images 'digits' come with scikit-learn, which is not installed: "
            "pip install 'metarl-suite[few-shot]'. Or use images='glyphs'."
        ) from error
    images, labels = load_digits(return_X_y=True)
    return sorted_by_class(images / 16, labels, range(5, 10))


@lru_cache(maxsize=8)
def _read(path: Path) -> ImageSet:
    try:
        # Object arrays are rejected: unpickling them could run arbitrary code.
        with np.load(path, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ConfigError(f"The images {str(path)!r} cannot be read: {error}.") from error
    if not {"images", "labels"} <= set(stored):
        raise ConfigError(
            f"{path} must hold the arrays images and labels, and may hold test_classes; got "
            f"{', '.join(stored) or 'no arrays'}."
        )
    return sorted_by_class(stored["images"], stored["labels"], stored.get("test_classes"))
