"""Corrupts evaluation images a little: blur, noise, brightness and JPEG.

The kinds are among those of ImageNet-C (arXiv 1903.12261, appendix B); the strengths are mild ones,
and blur is relative to the image size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

Corruption = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
_NOISE_SEED = 2104_00298


def blur(pixels: tf.Tensor, number: tf.Tensor, *, sigma: float) -> tf.Tensor:
    """Blurs by a Gaussian.

    Args:
      pixels: float32 ``[S, S, C]``, 0..255.
      number: of the image in its split; not used.
      sigma: deviation of the Gaussian, as a share of S.
    """
    del number
    size, channels = pixels.shape[0], pixels.shape[-1]
    radius = min(math.ceil(3 * sigma * size), size - 1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma * size)) ** 2)
    kernel = np.tile((weights / weights.sum())[:, None, None, None], [1, 1, channels, 1])
    edges = [[radius, radius], [radius, radius], [0, 0]]
    image = tf.pad(pixels, edges, mode="REFLECT")[tf.newaxis]
    for shape in ((-1, 1, channels, 1), (1, -1, channels, 1)):
        line = tf.constant(kernel.reshape(shape), tf.float32)
        image = tf.nn.depthwise_conv2d(image, line, strides=[1] * 4, padding="VALID")
    return image[0]


def noise(pixels: tf.Tensor, number: tf.Tensor, *, deviation: float) -> tf.Tensor:
    """Adds normal noise of a deviation (a share of 255), which ``number`` alone decides."""
    seed = tf.stack([tf.cast(number, tf.int64), tf.constant(_NOISE_SEED, tf.int64)])
    added = tf.random.stateless_normal(tf.shape(pixels), seed, stddev=255 * deviation)
    return tf.clip_by_value(pixels + added, 0.0, 255.0)


def brightness(pixels: tf.Tensor, number: tf.Tensor, *, added: float) -> tf.Tensor:
    """Adds a share of 255 to all pixels."""
    del number
    return tf.clip_by_value(pixels + 255 * added, 0.0, 255.0)


def jpeg(pixels: tf.Tensor, number: tf.Tensor, *, quality: int) -> tf.Tensor:
    """Stores as JPEG of a quality, 1..100, and reads it again; C is 1 or 3."""
    del number
    whole = tf.saturate_cast(tf.round(pixels), tf.uint8)  # bicubic resizing goes beyond 0..255
    encoded = tf.io.encode_jpeg(whole, quality=quality)
    decoded = tf.io.decode_jpeg(encoded, channels=pixels.shape[-1])
    return tf.ensure_shape(tf.cast(decoded, tf.float32), pixels.shape)


# Name, as in results -> what it does.
CORRUPTIONS: Mapping[str, Corruption] = {
    "blur_1": functools.partial(blur, sigma=0.01),
    "blur_2": functools.partial(blur, sigma=0.02),
    "noise_1": functools.partial(noise, deviation=0.04),
    "noise_2": functools.partial(noise, deviation=0.08),
    "brightness_1": functools.partial(brightness, added=0.1),
    "brightness_2": functools.partial(brightness, added=0.2),
    "jpeg_1": functools.partial(jpeg, quality=50),
    "jpeg_2": functools.partial(jpeg, quality=25),
}
