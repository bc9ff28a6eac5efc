"""Implements the sixteen augmentation operations of RandAugment and AutoAugment, and hue.

The sixteen are those of arXiv:1909.13719 and of arXiv:1805.09501 (table 6), but their strengths are
relative to the image's size and rise with the magnitude. Images are uint8 ``[S, S, 3]``, before and
after. Every operation is a few passes of arithmetic: on a CPU, a table look-up or a ``tf.where``
over bytes costs as much as ten such passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from efficientnetv2.data import geometry
from efficientnetv2.data.geometry import to_rows

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # grey of RGB, ITU-R BT.601
_TO_GREY = np.tile(_LUMA[:, np.newaxis], 3)
_FROM_GREY = np.eye(3, dtype=np.float32) - _TO_GREY


@dataclasses.dataclass(frozen=True)
class Strength:
    """Maps a magnitude to an op's argument: ``at_ten * magnitude / 10``, at most ``limit``."""

    at_ten: float
    limit: float

    def __call__(self, magnitude: tf.Tensor) -> tf.Tensor:
        """Returns the argument, a float32 scalar."""
        return tf.minimum(self.at_ten * tf.cast(magnitude, tf.float32) / 10.0, self.limit)


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation of a table.

    Attributes:
      function: takes ``(image)``; with a strength, ``(image, argument)``; if placed,
        ``(image, argument, centre)``.
      strength: maps a magnitude to the argument; None if the operation has no argument.
      signed: whether the argument's sign is random.
      lowest: smallest argument, its sign included; None: any.
      placed: whether the operation has a random centre.
    """

    function: Callable[..., tf.Tensor]
    strength: Callable[[tf.Tensor], tf.Tensor] | None = None
    signed: bool = False
    lowest: float | None = None
    placed: bool = False

    def __call__(
        self, image: tf.Tensor, *, magnitude: tf.Tensor, sign: tf.Tensor, centre: tf.Tensor
    ) -> tf.Tensor:
        """Applies the operation.

        Args:
          image: uint8 ``[S, S, 3]``.
          magnitude: float scalar, 0 or more, in the unit of ``strength``; in the tables of
            RandAugment and AutoAugment, 10 is the official full range.
          sign: float32 scalar, 1 or -1.
          centre: float32 ``[2]``, row and column, each in [0, 1).
        """
        if self.strength is None:
            return self.function(image)
        argument = self.strength(magnitude)
        if self.signed:
            argument = argument * tf.cast(sign, argument.dtype)
        if self.lowest is not None:
            argument = tf.maximum(argument, self.lowest)
        return (
            self.function(image, argument, centre)
            if self.placed
            else self.function(image, argument)
        )


def invert(image: tf.Tensor) -> tf.Tensor:
    """Returns 255 - image."""
    return tf.bitwise.invert(image)


def posterize(image: tf.Tensor, dropped_bits: tf.Tensor) -> tf.Tensor:
    """Clears the lowest ``dropped_bits`` (float32 scalar, rounded down) of every value."""
    mask = tf.bitwise.left_shift(tf.constant(255, tf.uint8), tf.cast(dropped_bits, tf.uint8))
    return tf.bitwise.bitwise_and(image, mask)


def solarize(image: tf.Tensor, depth: tf.Tensor) -> tf.Tensor:
    """Inverts the brightest values, those of ``256 - depth`` and more (float32 scalar)."""
    values = tf.cast(image, tf.float32)
    bright = tf.cast(values >= 256.0 - depth, tf.float32)
    return tf.cast(tf.abs(values - bright * 255.0), tf.uint8)


def solarize_add(image: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    """Adds ``addition`` (float32 scalar, 0..128, rounded down) to every value below 128."""
    values = tf.cast(image, tf.float32)
    dark = tf.cast(values < 128.0, tf.float32)
    return tf.cast(tf.minimum(values + dark * addition, 255.0), tf.uint8)


def brightness(image: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Multiplies every value by the factor ``1 + change``, for a change of -1 or more."""
    return _to_bytes(tf.cast(image, tf.float32) * (1.0 + change))


def contrast(image: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Multiplies every distance from the image's mean grey by ``1 + change``."""
    factor = 1.0 + change
    rows = tf.cast(to_rows(image), tf.float32)
    mean = tf.reduce_mean(_by_channel(tf.reduce_mean(rows, 0)), 0)
    grey = tf.reduce_sum(mean * tf.constant(_LUMA))
    return tf.reshape(_to_bytes(rows * factor, add=grey * (1.0 - factor)), tf.shape(image))


def color(image: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Multiplies every distance of a pixel from its own grey by ``1 + change``."""
    factor = 1.0 + change
    mix = factor * tf.constant(_FROM_GREY) + tf.constant(_TO_GREY)
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    return tf.reshape(_to_bytes(tf.matmul(pixels, mix)), tf.shape(image))


def hue(image: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turns the hue of every pixel by ``turn`` of the colour circle; of a third, red is green."""
    return _to_bytes(tf.image.adjust_hue(tf.cast(image, tf.float32), turn))


def sharpness(image: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
    """Multiplies every distance from the smoothed image by ``1 + change``.

    Smoothed with PIL's kernel: 5 for the pixel, 1 for each of its 8 neighbours, over 13. The
    outermost pixels stay as they are.
    """
    factor = 1.0 + change
    rows = to_rows(image)
    values = tf.cast(rows, tf.float32)
    box = tf.add_n([values[:-2], values[1:-1], values[2:]])
    box = tf.add_n([box[:, :-6], box[:, 3:-3], box[:, 6:]])  # the sum of all nine
    of_box = (1.0 - factor) / 13.0
    inner = _to_bytes(values[1:-1, 3:-3] * (factor + 4.0 * of_box) + box * of_box)
    middle = tf.concat([rows[1:-1, :3], inner, rows[1:-1, -3:]], 1)
    return tf.reshape(tf.concat([rows[:1], middle, rows[-1:]], 0), tf.shape(image))


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255; a channel of one value stays as it is."""
    rows = tf.cast(to_rows(image), tf.float32)
    low = tf.reduce_min(_by_channel(tf.reduce_min(rows, 0)), 0)
    high = tf.reduce_max(_by_channel(tf.reduce_max(rows, 0)), 0)
    stretched = high > low
    scale = tf.where(stretched, 255.0 / (high - low), 1.0)
    offset = tf.where(stretched, -low * scale, 0.0)
    times = tf.shape(image)[1:2]
    values = _to_bytes(rows * tf.tile(scale, times), add=tf.tile(offset, times))
    return tf.reshape(values, tf.shape(image))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Evens out the histogram of each channel with a look-up table, as PIL does."""
    # One histogram of 768 bins and one table, each channel with its own part.
    channel = tf.tile(tf.constant([0, 256, 512]), tf.shape(image)[1:2])
    values = tf.cast(to_rows(image), tf.int32) + channel
    counts = tf.histogram_fixed_width(values, [0, 768], 768)
    table = tf.reshape(equalization_table(tf.reshape(counts, [3, 256])), [-1])
    equalized = tf.gather_nd(table, values[..., tf.newaxis])
    return tf.reshape(tf.cast(equalized, tf.uint8), tf.shape(image))


def equalization_table(counts: tf.Tensor) -> tf.Tensor:
    """Returns each channel's look-up table for its histogram: int32 ``[3, 256]``, 0..255."""
    values = tf.range(256)
    brightest = tf.reduce_max(tf.where(counts > 0, values, 0), 1)
    of_brightest = tf.gather(counts, brightest, batch_dims=1)
    step = (tf.reduce_sum(counts, 1) - of_brightest)[:, tf.newaxis] // 255
    darker = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((darker + step // 2) // tf.maximum(step, 1), 255)
    return tf.where(step > 0, table, values)


def _by_channel(row: tf.Tensor) -> tf.Tensor:
    return tf.reshape(row, [-1, 3])


def _to_bytes(values: tf.Tensor, *, add: tf.Tensor | float = 0.0) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(values + (add + 0.5), 0.0, 255.0), tf.uint8)


def _blend(function: Callable[..., tf.Tensor]) -> Op:
    """Returns an op that changes the factor 1 of the image itself, which stays 0.1 or more."""
    return Op(function, Strength(0.9, 9.0), signed=True, lowest=0.1 - 1.0)


# The order is that of the official table. Magnitude 10 is the full range of the papers at 300
# pixels; the limits keep larger magnitudes meaningful.
DEFAULT: Mapping[str, Op] = {
    "AutoContrast": Op(auto_contrast),
    "Equalize": Op(equalize),
    "Invert": Op(invert),
    "Rotate": Op(geometry.rotate, Strength(30.0, 90.0), signed=True),  # degrees
    "Posterize": Op(posterize, Strength(4.0, 7.0)),  # bits dropped
    "Solarize": Op(solarize, Strength(256.0, 256.0)),  # values inverted, from the brightest
    "Color": _blend(color),
    "Contrast": _blend(contrast),
    "Brightness": _blend(brightness),
    "Sharpness": _blend(sharpness),
    "ShearX": Op(geometry.shear_x, Strength(0.3, 1.0), signed=True),  # pixels a row
    "ShearY": Op(geometry.shear_y, Strength(0.3, 1.0), signed=True),
    "TranslateX": Op(geometry.translate_x, Strength(1 / 3, 1.0), signed=True),  # of the side
    "TranslateY": Op(geometry.translate_y, Strength(1 / 3, 1.0), signed=True),
    "Cutout": Op(geometry.erase_square, Strength(80 / 300, 1.0), placed=True),  # of the side
    "SolarizeAdd": Op(solarize_add, Strength(110.0, 128.0)),  # added to dark values
}
