"""Reads what a preset needs to know of a user's own images. No TensorFlow here."""

from __future__ import annotations

import contextlib
import math
import pathlib
import statistics
import warnings
from collections.abc import Sequence

from efficientnetv2.data.array_image import npy_shape, wrong_channels
from efficientnetv2.data.image_size import stored_size
from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import ImageFile, ImageSplits
from efficientnetv2.data.sources.image_suffixes import NPY_START, NPY_SUFFIX
from hparams.errors import DataError
from hparams.facts import ImageFacts

_SAMPLE = 100  # images, evenly spaced
_HEADER = 1 << 16  # bytes that are read of a file; cameras write a thumbnail before the size


def image_facts(splits: ImageSplits) -> ImageFacts:
    """Counts the training images, and measures some of them by the headers of their files."""
    return ImageFacts(
        num_images=len(splits.images["train"]),
        side=_median_side([splits.root / image.path for image in _sample(splits)]),
    )


def require_arrays(splits: ImageSplits, *, channels: int) -> None:
    """Checks the headers of some ``.npy`` files of the training, before anything else happens.

    Raises:
      DataError: names one that is no image of so many channels.
    """
    for image in _sample(splits):
        path = splits.root / image.path
        if path.suffix.lower() != NPY_SUFFIX:
            continue
        try:
            with path.open("rb") as file:
                problem = wrong_channels(npy_shape(file.read(_HEADER))[-1], channels)
        except OSError:  # training will say it
            continue
        except ValueError as error:
            problem = str(error)
        if problem:
            raise DataError(f"cannot read '{printable(path)}': {problem}")


def _sample(splits: ImageSplits) -> Sequence[ImageFile]:
    images = splits.images["train"]
    return images[:: max(1, len(images) // _SAMPLE)]


def _median_side(paths: Sequence[pathlib.Path]) -> int | None:
    """Returns the median of ``sqrt(height * width)``; None: no header says its size."""
    sizes = [_size(path) for path in paths]
    sides = [math.sqrt(height * width) for height, width in filter(None, sizes)]
    return round(statistics.median(sides)) if sides else None


def _size(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER)
        if start.startswith(NPY_START):
            with contextlib.suppress(ValueError):
                return npy_shape(start)[:2]
            return None
        return stored_size(start) or _size_by_pillow(path)
    except OSError:  # training will say it, or skip the image
        return None


def _size_by_pillow(path: pathlib.Path) -> tuple[int, int] | None:
    from PIL import Image  # takes a while, and is seldom needed

    with warnings.catch_warnings(), contextlib.suppress(Exception):  # plugins raise any type
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.height, image.width
    return None
