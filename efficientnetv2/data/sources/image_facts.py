"""Reads what a preset needs to know of a user's own images. No TensorFlow here."""

from __future__ import annotations

import contextlib
import math
import pathlib
import statistics
import warnings
from collections.abc import Sequence

from efficientnetv2.data.image_size import stored_size
from efficientnetv2.data.sources.image_splits import ImageSplits
from hparams.facts import ImageFacts

_SAMPLE = 100  # images, evenly spaced
_HEADER = 1 << 16  # bytes that are read of a file; cameras write a thumbnail before the size


def image_facts(splits: ImageSplits) -> ImageFacts:
    """Counts the training images, and measures some of them by the headers of their files."""
    images = splits.images["train"]
    sample = images[:: max(1, len(images) // _SAMPLE)]
    return ImageFacts(
        num_images=len(images),
        side=_median_side([splits.root / image.path for image in sample]),
    )


def _median_side(paths: Sequence[pathlib.Path]) -> int | None:
    """Returns the median of ``sqrt(height * width)``; None: no header says its size."""
    sizes = [_size(path) for path in paths]
    sides = [math.sqrt(height * width) for height, width in filter(None, sizes)]
    return round(statistics.median(sides)) if sides else None


def _size(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        with path.open("rb") as file:
            size = stored_size(file.read(_HEADER))
        return size or _size_by_pillow(path)
    except OSError:  # training will say it, or skip the image
        return None


def _size_by_pillow(path: pathlib.Path) -> tuple[int, int] | None:
    from PIL import Image  # takes a while, and is seldom needed

    with warnings.catch_warnings(), contextlib.suppress(Exception):  # plugins raise any type
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.height, image.width
    return None
