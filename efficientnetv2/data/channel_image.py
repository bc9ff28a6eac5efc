"""Decodes image files to any number of channels; see ``model.channels``.

Images of 3 channels are uint8, as ``image_formats`` decodes them. All others are float32, 0..255:
16 bits are divided by 257 and keep their precision, and floats stay as they are.

- 1 channel: ``.npy`` files of one, and every image file, whose colours become brightness.
- 2 and 4 to 16 channels: ``.npy`` and TIFF files of exactly so many, and PNG files with alpha.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from efficientnetv2.data.array_image import LUMA, decode_array
from efficientnetv2.data.image_formats import (
    JpegHeader,
    decode_image,
    decode_jpeg_window,
    read_jpeg_header,
)
from efficientnetv2.data.pillow_image import decode_with_pillow, keeps_precision
from efficientnetv2.data.sources.image_suffixes import NPY_START, TIFF_STARTS
from hparams.channels import GREY, RGB

_PNG_START = b"\x89P"
_PNG_BITS = 24  # position of the bits a channel in the header


def decode_channels(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes a whole image: uint8 ``[H, W, 3]``, or float32 ``[H, W, channels]``.

    Raises:
      tf.errors.InvalidArgumentError: if the file is damaged, or has another number of channels.
    """
    if channels == RGB:
        return decode_image(encoded)
    if channels == GREY:
        return _decode_grey(encoded)
    return _traced(channels)(encoded)


@functools.cache
def _traced(channels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a decoder that is traced once: called eagerly, NumPy would get no bytes."""
    signature = [tf.TensorSpec([], tf.string)]
    decode = functools.partial(_with_numpy, channels=channels)
    return tf.function(decode, input_signature=signature, autograph=False)


def read_header(encoded: tf.Tensor, channels: int) -> JpegHeader:
    """Reads the header of a JPEG, as ``read_jpeg_header``; a JPEG never has 2 or 4 channels."""
    if channels in (GREY, RGB):
        return read_jpeg_header(encoded)
    return JpegHeader(tf.zeros([2], tf.int32), tf.constant(1))


def decode_window(
    encoded: tf.Tensor,
    window: tf.Tensor,
    *,
    header: JpegHeader,
    channels: int,
    smallest: int | tf.Tensor | None = None,
) -> tf.Tensor:
    """Decodes only a window of a JPEG, as ``decode_jpeg_window``: ``[h, w, channels]``."""
    image = decode_jpeg_window(encoded, window, header=header, smallest=smallest)
    if channels == RGB:
        return image
    grey = _brightness(image)
    # With several channels no file has a JPEG's header; the graph has this branch all the same.
    return grey if channels == GREY else tf.repeat(grey, channels, axis=-1)


def _brightness(image: tf.Tensor) -> tf.Tensor:
    """Returns the brightness ``[H, W, 1]`` of an image ``[H, W, 3]``, float32."""
    return tf.tensordot(tf.cast(image, tf.float32), tf.constant(LUMA, shape=[3, 1]), 1)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _decode_grey(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 2)
    bits = tf.strings.substr(encoded, _PNG_BITS, 1)
    is_deep_png = tf.equal(start, _PNG_START) & tf.equal(bits, b"\x10")
    is_array = tf.equal(start, NPY_START[:2])
    is_tiff = tf.reduce_any([tf.equal(start, begin[:2]) for begin in TIFF_STARTS])
    image = tf.case(
        [
            (is_deep_png, functools.partial(_decode_deep_png, encoded)),
            (is_array | is_tiff, functools.partial(_with_numpy, encoded, channels=GREY)),
        ],
        default=lambda: _brightness(decode_image(encoded)),
    )
    return tf.ensure_shape(image, [None, None, GREY])


def _decode_deep_png(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_png(encoded, channels=4, dtype=tf.uint16)
    colour, alpha = tf.split(tf.cast(image, tf.float32) / 257.0, [3, 1], -1)
    return 255.0 - (255.0 - _brightness(colour)) * alpha / 255.0


def _with_numpy(encoded: tf.Tensor, *, channels: int) -> tf.Tensor:
    # Works only in the process that made the graph, so not in the workers of a tf.data service.
    image, problem = tf.numpy_function(
        functools.partial(_decode, channels=channels),
        [encoded],
        [tf.float32, tf.string],
        stateful=False,
    )
    is_good = tf.debugging.Assert(tf.equal(problem, b""), [problem])
    with tf.control_dependencies([is_good]):
        return tf.ensure_shape(image, [None, None, channels])


def _decode(encoded: bytes, *, channels: int) -> tuple[np.ndarray, bytes]:
    is_photo = channels == GREY and encoded.startswith(TIFF_STARTS)
    if not is_photo or keeps_precision(encoded):
        return decode_array(encoded, channels)
    image, problem = decode_with_pillow(encoded)  # turns it upright, and knows palettes and alpha
    grey = image.astype(np.float32) @ np.array(LUMA, np.float32)[:, np.newaxis]
    return grey, problem
