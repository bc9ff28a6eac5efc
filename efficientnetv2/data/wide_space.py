"""The 14 operations of TrivialAugment's wide space, each with 31 strengths (arXiv:2103.10158).

The strengths are those of table 1 there and of torchvision's TrivialAugmentWide; translations are
in pixels at every image size. What lies outside the image is grey, as in our other policies; there
it is black.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import tensorflow as tf

from efficientnetv2.data import default_ops, geometry
from efficientnetv2.data.default_ops import Op

BINS = 31


@dataclasses.dataclass(frozen=True)
class Bin:
    """Maps a bin, 0 to 30, to an op's argument, from ``first`` to ``last`` in equal steps.

    Attributes:
      last: the argument of bin 30.
      first: the argument of bin 0.
      is_whole: whether it is rounded to the nearest whole number.
    """

    last: float
    first: float = 0.0
    is_whole: bool = False

    def __call__(self, number: tf.Tensor) -> tf.Tensor:
        """Returns the argument, a float32 scalar, for the bin ``number`` (float scalar)."""
        # Divided last: whole numbers among the arguments, such as thresholds, are exact.
        steps = tf.cast(number, tf.float32) * (self.last - self.first)
        argument = self.first + steps / (BINS - 1)
        return tf.round(argument) if self.is_whole else argument


def _signed(function: Callable[..., tf.Tensor], last: float) -> Op:
    return Op(function, Bin(last), signed=True)


# About the outer corner of the first pixel, as Pillow and torchvision shear.
_shear_x = functools.partial(geometry.shear_x, origin=-0.5)
_shear_y = functools.partial(geometry.shear_y, origin=-0.5)

WIDE: Mapping[str, Op] = {
    "Identity": Op(tf.identity),
    "ShearX": _signed(_shear_x, 0.99),  # pixels a row
    "ShearY": _signed(_shear_y, 0.99),
    "TranslateX": _signed(geometry.shift_x, 32.0),  # pixels
    "TranslateY": _signed(geometry.shift_y, 32.0),
    "Rotate": _signed(geometry.rotate, 135.0),  # degrees
    "Brightness": _signed(default_ops.brightness, 0.99),  # change of the factor 1
    "Color": _signed(default_ops.color, 0.99),
    "Contrast": _signed(default_ops.contrast, 0.99),
    "Sharpness": _signed(default_ops.sharpness, 0.99),
    "Posterize": Op(default_ops.posterize, Bin(6.0, is_whole=True)),  # bits dropped
    "Solarize": Op(default_ops.solarize, Bin(256.0, first=1.0)),  # values inverted
    "AutoContrast": Op(default_ops.auto_contrast),
    "Equalize": Op(default_ops.equalize),
}
