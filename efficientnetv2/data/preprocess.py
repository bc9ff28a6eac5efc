"""Normalises pixels for a network, and turns normalised images back into pixels."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hparams.channels import RGB
from hparams.choices import NORMALISATIONS, Normalisation

_SHOWN_DEVIATIONS = 2.5  # to either side of the mean: what is shown of images without colours


def normalise(images: tf.Tensor, normalisation: Normalisation | str) -> tf.Tensor:
    """Returns ``(pixel - mean) / deviation``, float32 ``[..., C]``.

    Args:
      images: ``[..., C]``, 0..255, any numeric type.
      normalisation: of C channels; or a row of ``NORMALISATIONS``: ``v1`` (ImageNet's mean and
        deviation), ``v2`` or ``lite`` (about -1..1).
    """
    row = _row(normalisation)
    mean = tf.constant(row.mean, tf.float32)
    deviation = tf.constant(row.deviation, tf.float32)
    return (tf.cast(images, tf.float32) - mean) / deviation


def denormalise(images: np.ndarray, normalisation: Normalisation | str) -> np.ndarray:
    """Undoes ``normalise``; returns float32 ``[..., C]``, not rounded.

    With 3 channels, pixels are clipped to 0..255. Others may come from files of any range.

    Args:
      images: normalised, ``[..., C]``.
      normalisation: as in ``normalise``.
    """
    row = _row(normalisation)
    pixels = images * np.array(row.deviation, np.float32) + np.array(row.mean, np.float32)
    return np.clip(pixels, 0, 255) if row.channels == RGB else pixels


def to_pixels(images: np.ndarray, normalisation: Normalisation | str) -> np.ndarray:
    """Returns normalised images as uint8 pixels that people can look at, ``[..., 3]``.

    With other numbers of channels than 3 these are the first three channels, or the first one in
    grey if there are fewer: the mean of each in medium grey, and 2.5 deviations to either side.
    Arguments as in ``denormalise``.
    """
    return np.rint(shown_pixels(images, normalisation)).astype(np.uint8)


def shown_pixels(images: np.ndarray, normalisation: Normalisation | str) -> np.ndarray:
    """Returns the pixels of ``to_pixels`` before rounding: float32 ``[..., 3]``, 0..255."""
    row = _row(normalisation)
    if row.channels == RGB:
        return denormalise(images, row)
    few = images.shape[-1] < RGB
    chosen = np.repeat(images[..., :1], RGB, -1) if few else images[..., :RGB]
    return np.clip(127.5 * (1 + chosen / _SHOWN_DEVIATIONS), 0, 255)


def _row(normalisation: Normalisation | str) -> Normalisation:
    return NORMALISATIONS[normalisation] if isinstance(normalisation, str) else normalisation
