"""Normalises pixels for a network, and turns normalised images back into pixels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hparams.choices import NORMALISATIONS


def normalise(images: tf.Tensor, preprocess: str) -> tf.Tensor:
    """Returns ``(pixel - mean) / deviation``, float32 ``[..., 3]``.

    Args:
      images: ``[..., 3]``, 0..255, any numeric type.
      preprocess: a row of ``NORMALISATIONS``: ``v1`` (ImageNet's mean and deviation), ``v2`` or
        ``lite`` (about -1..1).
    """
    row = NORMALISATIONS[preprocess]
    mean = tf.constant(row.mean, tf.float32)
    deviation = tf.constant(row.deviation, tf.float32)
    return (tf.cast(images, tf.float32) - mean) / deviation


def denormalise(images: np.ndarray, preprocess: str) -> np.ndarray:
    """Undoes ``normalise``; returns float32 ``[..., 3]``, clipped to 0..255 and not rounded.

    Args:
      images: normalised, ``[..., 3]``.
      preprocess: as in ``normalise``.
    """
    row = NORMALISATIONS[preprocess]
    pixels = images * np.array(row.deviation, np.float32) + np.array(row.mean, np.float32)
    return np.clip(pixels, 0, 255)


def to_pixels(images: np.ndarray, preprocess: str) -> np.ndarray:
    """Returns normalised images as uint8 pixels ``[..., 3]``; arguments as in ``denormalise``."""
    return np.rint(denormalise(images, preprocess)).astype(np.uint8)
