"""Rotates, shears and shifts images, or erases a square of them: the geometric augmentations.

Images are uint8 ``[S, S, 3]``, before and after (those of ``rotate_smoothly`` are float32); pixels
from outside the image are grey. Positive arguments read from further right or further down, so the
content moves left or up: the sense of PIL's transforms, on which AutoAugment and RandAugment were
defined (arXiv:1805.09501, table 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

GREY = 128


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns the image about its centre, counter-clockwise for positive float32 ``degrees``."""
    radians = degrees * (math.pi / 180)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    centre = tf.cast(tf.shape(image)[0] - 1, tf.float32) / 2
    across, along = centre * sine, centre - centre * cosine
    return _warp(image, row=[cosine, sine, along - across], column=[-sine, cosine, along + across])


def rotate_smoothly(image: tf.Tensor, degrees: tf.Tensor, *, fill: float = GREY) -> tf.Tensor:
    """Turns a float32 image as ``rotate``, but interpolates between the four nearest pixels.

    It may have any number of channels; ``fill`` is their level outside.
    """
    radians = degrees * (math.pi / 180)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    centre = tf.cast(tf.shape(image)[0] - 1, tf.float32) / 2
    across, along = centre * sine, centre - centre * cosine
    # Where each pixel's source is: coefficients of x, y and 1 for its column, then for its row.
    column, row = [cosine, -sine, along + across], [sine, cosine, along - across]
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([*column, *row, 0.0, 0.0])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=float(fill),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(turned[0], image.shape)


def shear_x(image: tf.Tensor, rate: tf.Tensor, *, origin: float = 0.0) -> tf.Tensor:
    """Moves row y by ``rate * (y - origin)`` pixels.

    With an origin of 0 the middle of the first pixel stays, with -0.5 its outer corner.
    """
    return _warp(image, row=[1.0, 0.0, 0.0], column=[rate, 1.0, -rate * origin])


def shear_y(image: tf.Tensor, rate: tf.Tensor, *, origin: float = 0.0) -> tf.Tensor:
    """Moves column x by ``rate * (x - origin)`` pixels, as ``shear_x``."""
    return _warp(image, row=[1.0, rate, -rate * origin], column=[0.0, 1.0, 0.0])


def translate_x(image: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """Moves the image sideways by ``fraction`` (float32) of its side; at least one column stays."""
    return _shift(image, _whole_pixels(image, fraction) * tf.constant([0, 3]))


def translate_y(image: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """Moves the image up or down by ``fraction`` (float32) of its side; at least one row stays."""
    return _shift(image, _whole_pixels(image, fraction) * tf.constant([1, 0]))


def shift_x(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Moves the image left by ``pixels`` (float32, rounded towards 0), possibly out of sight."""
    return _shift(image, tf.cast(pixels, tf.int32) * tf.constant([0, 3]))


def shift_y(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Moves the image up by ``pixels`` (float32, rounded towards 0), possibly out of sight."""
    return _shift(image, tf.cast(pixels, tf.int32) * tf.constant([1, 0]))


def erase_square(
    image: tf.Tensor,
    fraction: tf.Tensor,
    centre: tf.Tensor,
    *,
    colour: Sequence[float] = (GREY,) * 3,
) -> tf.Tensor:
    """Paints a square, cut off at the image's border (arXiv:1708.04552).

    Args:
      image: ``[S, S, C]``.
      fraction: float32 scalar, the square's side divided by the image's; rounded to whole pixels.
      centre: float32 ``[2]``, row and column, each 0 (first pixel) to 1 (end of the last pixel).
      colour: C levels.
    """
    side = tf.shape(image)[0]
    side_float = tf.cast(side, tf.float32)
    width = tf.cast(tf.round(fraction * side_float), tf.int32)
    begin = tf.cast(centre * side_float, tf.int32) - width // 2
    end = tf.minimum(begin + width, side)
    return erase_box(image, tf.maximum(begin, 0), end, colour=tf.constant(colour, image.dtype))


def erase_box(
    image: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, *, colour: tf.Tensor
) -> tf.Tensor:
    """Paints a box of the image.

    Args:
      image: ``[S, S, C]``.
      begin: int32 ``[2]``, its first row and column, from 0.
      end: int32 ``[2]``, the row and column after it, at most S; equal to ``begin``: nothing is
        painted.
      colour: ``[C]``, of the image's type.
    """
    side = tf.shape(image)[0]
    parts = tf.stack([begin, end - begin, side - end])  # before, inside, after
    rows = to_rows(image)
    above, crossed, below = tf.split(rows, parts[:, 0])
    left, _, right = tf.split(crossed, parts[:, 1] * image.shape[-1], axis=1)
    box = tf.tile(colour[tf.newaxis], parts[1])
    return _from_rows(tf.concat([above, tf.concat([left, box, right], 1), below], 0), image)


def to_rows(image: tf.Tensor) -> tf.Tensor:
    """Reshapes an image ``[S, S, C]`` to its rows ``[S, C S]``, channels side by side.

    TensorFlow pads, slices, broadcasts and reduces these several times faster than tensors whose
    last dimension is 3.
    """
    return tf.reshape(image, tf.shape(image)[:2] * tf.constant([1, image.shape[-1]]))


def _warp(image: tf.Tensor, *, row: list, column: list) -> tf.Tensor:
    """Fills each pixel (y, x) with the one nearest to its source; grey outside.

    ``row`` and ``column`` of the source are given by three coefficients each: of y, x and 1.
    """
    side = tf.shape(image)[0]
    last = tf.cast(side + 1, tf.float32)  # index of the last row, with a border of one pixel
    line = tf.range(last - 1.0)
    # By axis, [2, S]. 1 for the border, and a half so that the cast to int32 rounds to nearest.
    of_y, of_x, rest = tf.unstack(tf.stack([row, column])[..., tf.newaxis], axis=1)
    along_y, along_x = of_y * line, of_x * line + (rest + 1.5)
    source = along_y[:, :, tf.newaxis] + along_x[:, tf.newaxis]
    source_row, source_column = tf.unstack(tf.cast(tf.clip_by_value(source, 0.0, last), tf.int32))
    bordered = tf.pad(to_rows(image), [[1, 1], [3, 3]], constant_values=GREY)
    pixel = source_row * (side + 2) + source_column
    # gather_nd copies three bytes a pixel faster than gather.
    return tf.gather_nd(tf.reshape(bordered, [-1, 3]), pixel[..., tf.newaxis])


def _whole_pixels(image: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    most = tf.cast(tf.shape(image)[0] - 1, tf.float32)
    pixels = tf.round(fraction * (most + 1))
    return tf.cast(tf.clip_by_value(pixels, -most, most), tf.int32)


def _shift(image: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
    """Shifts an image by ``distance`` (int32 ``[2]``: rows up, bytes to the left), grey outside."""
    rows = to_rows(image)
    before, after = tf.nn.relu(-distance), tf.nn.relu(distance)
    bordered = tf.pad(rows, tf.stack([before, after], 1), constant_values=GREY)
    return _from_rows(tf.slice(bordered, after, tf.shape(rows)), image)


def _from_rows(rows: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    return tf.reshape(rows, tf.shape(image))
