"""Encoded images in; cropped and resized images out: float32 ``[S, S, 3]``, 0..255.

JPEG files are decoded only inside the window that is used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

_CROP_PADDING = 32  # pixels: the published evaluation crop leaves S / (S + 32) of the shorter side
_V2_WHOLE_IMAGE_FROM = 320  # pixels: V2 models evaluated at this size or more see the whole image


def image_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Returns int32 ``[height, width]`` of an encoded image; of a JPEG, without decoding it."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(decode_image(encoded))[:2],
    )


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Returns uint8 ``[H, W, 3]`` of a JPEG, PNG, BMP or GIF (first frame); grey becomes RGB."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def decode_window(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns uint8 ``[h, w, 3]``: the part of an image given by int32 ``[y, x, h, w]``."""

    def crop_decoded() -> tf.Tensor:
        y, x, height, width = tf.unstack(window)
        return decode_image(encoded)[y : y + height, x : x + width]

    cropped = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_and_crop_jpeg(encoded, window, channels=3),
        crop_decoded,
    )
    return tf.ensure_shape(cropped, [None, None, 3])


def random_window(
    shape: tf.Tensor, seed: tf.Tensor, *, area: Sequence[float], aspect: Sequence[float]
) -> tf.Tensor:
    """Draws int32 ``[y, x, h, w]`` inside an image (Inception's random crop).

    Args:
      shape: int32 ``[height, width]`` of the image.
      seed: int64 ``[2]``; the same seed draws the same window.
      area: smallest and largest share of the image's area, in (0, 1].
      aspect: smallest and largest width by height.

    Returns:
      The window; the whole image where 10 draws find none that fits.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([shape, [3]], 0),
        bounding_boxes=tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=aspect,
        area_range=area,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def decode_training(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    *,
    image_size: int,
    preprocess: str,
    area: Sequence[float],
    aspect: Sequence[float],
) -> tf.Tensor:
    """Returns a random crop, resized to float32 ``[image_size, image_size, 3]``.

    It is resized as ``decode_evaluation`` resizes, so that a network is evaluated on what it was
    trained on. An image smaller than ``image_size`` is enlarged before it is cropped: its own
    pixels would allow few windows (an 8x8 digit has nine of 75% or more), and all of them coarse.
    ``seed``, ``area`` and ``aspect`` as in ``random_window``.
    """
    shape = image_shape(encoded)
    draw = functools.partial(random_window, seed=seed, area=area, aspect=aspect)

    def crop_enlarged() -> tf.Tensor:
        shorter = tf.reduce_min(shape)
        enlarged = -(-shape * image_size // shorter)  # rounded up
        image = _resize(decode_image(encoded), enlarged, preprocess=preprocess)
        y, x, height, width = tf.unstack(draw(enlarged))
        return tf.image.resize(image[y : y + height, x : x + width], [image_size, image_size])

    def crop() -> tf.Tensor:
        image = decode_window(encoded, draw(shape))
        return _resize(image, [image_size, image_size], preprocess=preprocess)

    image = tf.cond(tf.reduce_max(shape) < image_size, crop_enlarged, crop)
    return tf.ensure_shape(image, [image_size, image_size, 3])


def decode_evaluation(
    encoded: tf.Tensor, *, image_size: int, preprocess: str, crop: bool = True
) -> tf.Tensor:
    """Returns the image as evaluation sees it: float32 ``[image_size, image_size, 3]``.

    Args:
      encoded: one image.
      image_size: pixels.
      preprocess: ``v2`` (centre crop below 320 pixels, bilinear), ``v1`` (centre crop, bicubic: a
        few values overshoot 0..255) or ``lite`` (centre crop, bilinear).
      crop: False squeezes the whole image in, whatever the chain.
    """
    if not crop or (preprocess == "v2" and image_size >= _V2_WHOLE_IMAGE_FROM):
        image = decode_image(encoded)
    elif preprocess == "v2":
        # Decoded whole, then cut: a JPEG decoded inside a window differs by a few grey levels near
        # the window's edge, and the published V2 accuracies were measured this way.
        image = decode_image(encoded)
        window = central_window(tf.shape(image)[:2], image_size=image_size, round_up=False)
        y, x, height, width = tf.unstack(window)
        image = image[y : y + height, x : x + width]
    else:
        window = central_window(image_shape(encoded), image_size=image_size, round_up=True)
        image = decode_window(encoded, window)
    image = _resize(image, [image_size, image_size], preprocess=preprocess)
    return tf.ensure_shape(image, [image_size, image_size, 3])


def central_window(shape: tf.Tensor, *, image_size: int, round_up: bool) -> tf.Tensor:
    """Returns int32 ``[y, x, h, w]``: a central square of S / (S + 32) of the shorter side.

    Args:
      shape: int32 ``[height, width]`` of the image.
      image_size: S, pixels.
      round_up: offsets of half a pixel round up (V1) or down (V2).
    """
    share = image_size / (image_size + _CROP_PADDING)
    side = tf.cast(share * tf.cast(tf.reduce_min(shape), tf.float32), tf.int32)
    offset = (shape - side + (1 if round_up else 0)) // 2
    return tf.concat([offset, [side, side]], 0)


def _resize(image: tf.Tensor, size: tf.Tensor | list[int], *, preprocess: str) -> tf.Tensor:
    if preprocess != "v1":
        return tf.image.resize(image, size)
    # TensorFlow 1's kernel, corners aligned to pixel 0: the V1 weights were trained with it.
    return tf.raw_ops.ResizeBicubic(images=image[tf.newaxis], size=size, half_pixel_centers=False)[
        0
    ]
