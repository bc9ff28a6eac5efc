"""Defines what a preset needs to know of a set of images."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a preset needs to know of a set of images.

    Attributes:
      num_images: number of training images.
      side: pixels: median of ``sqrt(height * width)``; None: not known, taken as large.
    """

    num_images: int
    side: int | None
