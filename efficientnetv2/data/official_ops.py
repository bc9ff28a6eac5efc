"""Reproduces the official augmentation operations byte for byte.

They are those of google/automl's efficientnetv2, which the released weights were trained with;
tests/golden/augment.npz pins the bytes. Images are uint8 ``[S, S, 3]``, before and after. The
oddities are the official code's: strengths are in pixels at every image size, Posterize and Cutout
differ from the papers, Contrast's mean is not a mean, Solarize wraps around. Nothing here is made
for speed; ``data/default_ops.py`` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from efficientnetv2.data import default_ops
from efficientnetv2.data.default_ops import Op
from efficientnetv2.data.geometry import GREY


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns the image about its centre, counter-clockwise for positive degrees."""
    radians = degrees * (math.pi / 180)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2] - 1, tf.float32))
    x_offset = (width - (cosine * width - sine * height)) / 2
    y_offset = (height - (sine * width + cosine * height)) / 2
    return _project(image, [cosine, -sine, x_offset, sine, cosine, y_offset])


def shear_x(image: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Moves row y by ``rate * y`` pixels."""
    return _project(image, [1.0, rate, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Moves column x by ``rate * x`` pixels."""
    return _project(image, [1.0, 0.0, 0.0, rate, 1.0, 0.0])


def translate_x(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Moves the image to the left by ``pixels``, possibly out of sight."""
    return _project(image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Moves the image up by ``pixels``, possibly out of sight."""
    return _project(image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels])


def cutout(image: tf.Tensor, reach: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    """Paints a grey square of ``2 * reach`` pixels a side (int32 scalar) about the centre."""
    size = tf.shape(image)[:2]
    middle = tf.cast(centre * tf.cast(size, tf.float32), tf.int32)
    top, left = tf.unstack(tf.maximum(middle - reach, 0))
    bottom, right = tf.unstack(tf.minimum(middle + reach, size))
    row, column = tf.range(size[0])[:, tf.newaxis], tf.range(size[1])
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return tf.where(inside[..., tf.newaxis], tf.constant(GREY, tf.uint8), image)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest ``bits`` (int32 scalar, 0..8): a larger level is a weaker effect.

    With 0 bits one is still kept: TensorFlow shifts bytes by 7 at most.
    """
    shift = tf.cast(tf.minimum(8 - bits, 7), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts values of ``threshold % 256`` (int32 scalar) and more: 256 inverts everything."""
    return tf.where(image < tf.cast(threshold % 256, tf.uint8), image, 255 - image)


def solarize_add(image: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    """Adds ``addition`` (int32 scalar) to every value below 128."""
    added = tf.clip_by_value(tf.cast(image, tf.int32) + addition, 0, 255)
    return tf.where(image < 128, tf.cast(added, tf.uint8), image)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends between the grey image (factor 0) and the image (1), or beyond."""
    grey = tf.cast(tf.image.rgb_to_grayscale(image), tf.float32)
    return _blend(grey, image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends between one level of grey (factor 0) and the image (1), or beyond.

    That grey should be the mean value, but is the mean COUNT of 256 histogram bins: pixels / 256.
    """
    pixels = tf.cast(tf.size(image) // 3, tf.float32)
    grey = tf.floor(tf.minimum(pixels / 256, 255.0))
    return _blend(grey, image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends between black (factor 0) and the image (1), or beyond."""
    return _blend(tf.constant(0.0), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends between the smoothed image (factor 0) and the image (1), or beyond."""
    smooth = tf.floor(tf.clip_by_value(_smooth(tf.cast(image, tf.float32)), 0.0, 255.0))
    inner = _blend(smooth, image[1:-1, 1:-1], factor)
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], 1)
    return tf.concat([image[:1], middle, image[-1:]], 0)


def _smooth(values: tf.Tensor) -> tf.Tensor:
    """The 3x3 mean with a weight of 5 in the middle, of all but the border: float32.

    Where the weighted sum is a multiple of 13, rounding decides which of two levels it is truncated
    to. The official bytes were computed by a convolution that adds row by row with fused multiply
    and add, which rounds once for each weight; so it is done here, whatever the processor has. (A
    convolution of another library or processor differs by 1 in 0.3% of the pixels.)
    """
    height, width = tf.shape(values)[0] - 2, tf.shape(values)[1] - 2
    total = tf.zeros([height, width, 3])
    for row in range(3):
        for column in range(3):
            weight = np.float32(5 if row == column == 1 else 1) / np.float32(13)
            window = values[row : row + height, column : column + width]
            exact = tf.cast(window, tf.float64) * np.float64(weight)  # no bit is lost in float64
            total = tf.cast(tf.cast(total, tf.float64) + exact, tf.float32)
    return total


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255; a channel of one value stays as it is."""
    values = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(values, [0, 1]), tf.reduce_max(values, [0, 1])
    scale = 255.0 / (high - low)
    stretched = tf.clip_by_value(values * scale - low * scale, 0.0, 255.0)
    return tf.where(high > low, tf.cast(stretched, tf.uint8), image)


def _blend(start: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    blended = start + factor * (tf.cast(image, tf.float32) - start)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)  # truncated, not rounded


def _project(image: tf.Tensor, transform: list) -> tf.Tensor:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([*transform, 0.0, 0.0])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=float(GREY),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _linear(at_ten: float, *, at_zero: float = 0.0) -> Callable[[tf.Tensor], tf.Tensor]:
    # In double precision, like Python's floats in the official code: the last bit of float32
    # decides pixels.
    return lambda level: tf.cast(tf.cast(level, tf.float64) / 10 * at_ten + at_zero, tf.float32)


def _whole(at_ten: float) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda level: tf.cast(tf.cast(level, tf.float64) / 10 * at_ten, tf.int32)


def _table(*, translate_pixels: float, cutout_pixels: float) -> Mapping[str, Op]:
    factor = _linear(1.8, at_zero=0.1)
    return {
        "AutoContrast": Op(auto_contrast),
        "Equalize": Op(default_ops.equalize),
        "Invert": Op(default_ops.invert),
        "Rotate": Op(rotate, _linear(30.0), signed=True),
        "Posterize": Op(posterize, _whole(4.0)),
        "Solarize": Op(solarize, _whole(256.0)),
        "Color": Op(color, factor),
        "Contrast": Op(contrast, factor),
        "Brightness": Op(brightness, factor),
        "Sharpness": Op(sharpness, factor),
        "ShearX": Op(shear_x, _linear(0.3), signed=True),
        "ShearY": Op(shear_y, _linear(0.3), signed=True),
        "TranslateX": Op(translate_x, _linear(translate_pixels), signed=True),
        "TranslateY": Op(translate_y, _linear(translate_pixels), signed=True),
        "Cutout": Op(cutout, _whole(cutout_pixels), placed=True),
        "SolarizeAdd": Op(solarize_add, _whole(110.0)),
    }


RANDAUGMENT = _table(translate_pixels=100.0, cutout_pixels=40.0)
AUTOAUGMENT = _table(translate_pixels=250.0, cutout_pixels=100.0)
