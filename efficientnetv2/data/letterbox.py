"""Places an image in its proportions on a square, the rest of which is grey (a letterbox).

Evaluation sees the whole image. Training sees a window of the square, which is never painted: the
part of the image inside the window is cut, resized and padded, so that an image of 1 x 10,000
pixels takes no more memory than its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf


class Placement(NamedTuple):
    """Which part of an image goes where on the result, a square of S pixels a side.

    Attributes:
      window: int32 ``[y, x, h, w]`` of the part in the image.
      begin: int32 ``[top, left]`` of the part on the result.
      size: int32 ``[height, width]`` of the part on the result.
    """

    window: tf.Tensor
    begin: tf.Tensor
    size: tf.Tensor


def fitted_size(size: tf.Tensor, side: int | tf.Tensor) -> tf.Tensor:
    """Returns the size of an image whose longer side becomes ``side``, int32 ``[height, width]``.

    The shorter side is rounded to the nearest pixel (halves up), and is at least 1.
    """
    size = tf.cast(size, tf.int64)
    longest = tf.reduce_max(size)
    fitted = (2 * size * tf.cast(side, tf.int64) + longest) // (2 * longest)
    return tf.cast(tf.maximum(fitted, 1), tf.int32)


def place_whole(size: tf.Tensor, side: int | tf.Tensor) -> Placement:
    """Places the whole image in the centre; of an odd number of grey rows, one more is below.

    Args:
      size: int32 ``[height, width]`` of the image.
      side: S, pixels.
    """
    fitted = fitted_size(size, side)
    return Placement(tf.concat([tf.zeros_like(size), size], 0), (side - fitted) // 2, fitted)


def place_window(
    size: tf.Tensor, side: int | tf.Tensor, *, draw: Callable[[tf.Tensor], tf.Tensor]
) -> Placement:
    """Places what a random window of the letterboxed square shows of an image.

    The window is drawn on the square. Along the image's shorter side it is then moved so that it
    lies inside the image or the image inside it: otherwise some windows of a long image would show
    grey alone, with the image's label. A square image has the windows that are drawn, and the
    window that is the whole square gives what ``place_whole`` gives.

    Args:
      size: int32 ``[height, width]`` of the image.
      side: S, pixels.
      draw: returns int32 ``[y, x, h, w]`` inside a square of the size that it is given.
    """
    size = tf.cast(size, tf.int64)
    side = tf.cast(side, tf.int64)
    square = tf.fill([2], tf.reduce_max(size))
    drawn = tf.cast(draw(tf.cast(square, tf.int32)), tf.int64)
    begin, window = drawn[:2], drawn[2:]

    def moved(last: tf.Tensor) -> tf.Tensor:
        """Maps the drawn begin to 0..last, each value equally likely."""
        return begin * (last + 1) // (square - window + 1)

    # Along an axis the window is inside the image ...
    cut_begin = moved(tf.maximum(size - window, 0))
    cut_size = tf.minimum(window, size)
    # ... or the image in the window, with grey before and behind. All is counted in half pixels, as
    # the grey of the square may be an odd number of pixels, half of which is before the image.
    grey = 2 * (window - size)
    least = tf.maximum(grey - (square - size), 0)
    most = tf.minimum(square - size, grey)
    grey_before = most - moved(tf.maximum(most - least, 0))
    fitted = tf.maximum((2 * size * side + window) // (2 * window), 1)
    placed_size = tf.where(grey > 0, fitted, side)
    placed_begin = tf.where(grey > 0, (side - placed_size) * grey_before // tf.maximum(grey, 1), 0)
    return Placement(
        tf.cast(tf.concat([cut_begin, cut_size], 0), tf.int32),
        tf.cast(placed_begin, tf.int32),
        tf.cast(placed_size, tf.int32),
    )


def paint(
    part: tf.Tensor,
    placement: Placement,
    *,
    side: int | tf.Tensor,
    fill: float | Sequence[float],
) -> tf.Tensor:
    """Pads the part of an image to ``[S, S, C]`` with a grey level, or a level for each channel.

    Args:
      part: float32 ``[height, width, C]``, of ``placement.size``.
      placement: where it goes.
      side: S, pixels.
      fill: grey level, 0..255; or C levels.
    """
    behind = side - placement.begin - placement.size
    paddings = tf.pad(tf.stack([placement.begin, behind], 1), [[0, 1], [0, 0]])
    if isinstance(fill, Sequence):  # a padding has one value for all channels: 0, about the levels
        levels = tf.constant(fill, part.dtype)
        return tf.pad(part - levels, paddings) + levels
    return tf.pad(part, paddings, constant_values=tf.cast(fill, part.dtype))
