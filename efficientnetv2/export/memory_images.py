"""Takes the images to calibrate and check an exported model on from arrays and data sets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from efficientnetv2.data.sample_images import MAX_VERIFICATION, Images, calibration_count
from hparams.errors import UserError, shown
from hparams.label_kinds import ONE, SEVERAL


def memory_images(
    data: Any, *, shape: tuple[int, int, int], kind: str, outputs: int
) -> tuple[Images, Images]:
    """Returns the images to calibrate with and the images to check with.

    The images are used for the one and the other in turn; a single one is used for both.

    Args:
      data: an array ``[N, H, W, C]``, a pair of it and labels, or a ``tf.data.Dataset`` of images
        or pairs, in batches or not. The images are as the exported file takes them; labels are
        class indices ``[N]``, one-hot or 0 and 1 ``[N, K]``, or numbers.
      shape: of one image.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      outputs: K.

    Raises:
      UserError: if there are no images, or they have another shape or are not finite.
    """
    limit = calibration_count(shape[0]) + MAX_VERIFICATION
    pairs = list(itertools.islice(_pairs(data, shape), limit))
    if not pairs:
        raise UserError("images holds no image; give an array [N, H, W, C] or a tf.data.Dataset")
    pixels = np.stack([image for image, _ in pairs])
    if not np.isfinite(pixels).all():
        raise UserError("images has values that are not finite numbers")
    labels = None
    if pairs[0][1] is not None:
        labels = _labels(np.stack([label for _, label in pairs]), kind=kind, outputs=outputs)
    if len(pixels) == 1:
        return Images(pixels, None), Images(pixels, labels)
    return Images(pixels[::2], None), Images(
        pixels[1::2][:MAX_VERIFICATION],
        None if labels is None else labels[1::2][:MAX_VERIFICATION],
    )


def _pairs(data: Any, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields each image, float32, with its label or None."""
    if isinstance(data, tf.data.Dataset):
        for element in data.as_numpy_iterator():
            yield from _of_element(element, shape)
    else:
        yield from _of_element(data, shape)


def _of_element(element: Any, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, Any]]:
    images, labels = element, None
    if isinstance(element, (tuple, list)) and len(element) in (2, 3) and np.ndim(element[0]) >= 3:
        images, labels = element[0], np.asarray(element[1])
    try:
        images = np.asarray(images, np.float32)
    except (TypeError, ValueError):
        raise UserError(
            "images must be a path, an array [N, H, W, C], a pair (images, labels) or a "
            f"tf.data.Dataset, got {shown(element)}"
        ) from None
    if images.ndim == 3:
        images, labels = images[np.newaxis], None if labels is None else labels[np.newaxis]
    if images.shape[1:] != shape:
        raise UserError(
            f"images must be [N, {', '.join(map(str, shape))}], as the model takes them, got "
            f"{list(images.shape)}"
        )
    if labels is not None and len(labels) != len(images):
        raise UserError(f"images has {len(images)} images and {len(labels)} labels")
    yield from zip(images, itertools.repeat(None) if labels is None else labels)


def _labels(labels: np.ndarray, *, kind: str, outputs: int) -> np.ndarray:
    """Returns class indices ``[N]``; or 0 and 1, or numbers, ``[N, K]``."""
    if kind == ONE and labels.ndim == 2 and labels.shape[1] == outputs > 1:
        labels = labels.argmax(axis=1)
    if kind != ONE and labels.ndim == 1:
        labels = labels[:, np.newaxis]
    expected = (len(labels),) if kind == ONE else (len(labels), outputs)
    if labels.shape != expected and labels.size != np.prod(expected):
        raise UserError(f"images has labels of shape {list(labels.shape)}, not {list(expected)}")
    labels = labels.reshape(expected)
    if kind == ONE and not ((labels >= 0) & (labels < outputs)).all():
        wrong = labels[~((labels >= 0) & (labels < outputs))][0]
        raise UserError(f"images has the label {float(wrong):g}; labels must be 0 to {outputs - 1}")
    return labels > 0.5 if kind == SEVERAL else labels if kind == ONE else np.float32(labels)
