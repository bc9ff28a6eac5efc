"""Cuts several views out of an image, whose predictions are averaged (test-time augmentation)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import tensorflow as tf

_MARGIN = 8 / 7  # side of the image that several crops are cut from, relative to a crop


@dataclasses.dataclass(frozen=True)
class Views:
    """Which views of an image a network sees.

    Attributes:
      crops: 1: the crop that evaluation uses; 5: the centre and the corners of a larger image.
      flip: also the mirror image of each crop.
    """

    crops: int = 1
    flip: bool = False

    @property
    def count(self) -> int:
        """The number of views of an image."""
        return self.crops * (2 if self.flip else 1)

    def source_size(self, size: int) -> int:
        """Returns the side of the image, pixels, that views of this size are cut from."""
        return size if self.crops == 1 else round(size * _MARGIN)

    def of_image(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the views ``[V, S, S, C]`` of an image of ``source_size``, the central one first.

        Args:
          image: ``[source_size, source_size, C]``.
        """
        views = tf.stack(list(self._crops(image)))
        return tf.concat([views, tf.image.flip_left_right(views)], 0) if self.flip else views

    def _crops(self, image: tf.Tensor) -> Iterator[tf.Tensor]:
        larger = image.shape[0]
        size = larger if self.crops == 1 else round(larger / _MARGIN)
        margin = larger - size
        corners = [(0, 0), (0, margin), (margin, 0), (margin, margin)] if self.crops == 5 else []
        for top, left in [(margin // 2, margin // 2), *corners]:
            yield image[top : top + size, left : left + size]


ONE_VIEW = Views()
