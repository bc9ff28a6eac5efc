"""Images float32 ``[..., 3]``, 0..255 in; normalised float32 of the same shape out."""

from __future__ import annotations

import tensorflow as tf

from hparams.preprocess import NORMALISATIONS


def normalise(images: tf.Tensor, preprocess: str) -> tf.Tensor:
    """Applies ``(pixel - mean) / deviation`` of a row of ``hparams.preprocess``.

    Args:
      images: ``[..., 3]``, 0..255, any number type.
      preprocess: ``v1`` (ImageNet's mean and deviation), ``v2`` or ``lite`` (about -1..1).
    """
    row = NORMALISATIONS[preprocess]
    mean = tf.constant(row.mean, tf.float32)
    deviation = tf.constant(row.deviation, tf.float32)
    return (tf.cast(images, tf.float32) - mean) / deviation
