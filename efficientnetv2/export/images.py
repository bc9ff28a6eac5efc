"""A data set or image files in; the pixels that calibrate 8-bit files and check all files out."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.decode import decode_evaluation, decode_training
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.data.share import Share
from efficientnetv2.data.sources import Source
from hparams.errors import UserError
from hparams.preprocess import NORMALISATIONS
from hparams.resolve import Config

# Pixels of all calibration images together: 128 of 224 px. More gained nothing that could be seen.
_CALIBRATION_PIXELS = 128 * 224 * 224
_MOST_CALIBRATION = 512
_MOST_CHECKED = 1000


@dataclasses.dataclass(frozen=True)
class Images:
    """Cropped and resized images, as an app would hand them over.

    Attributes:
      pixels: float32 ``[N, S, S, 3]``, whole numbers of 0..255.
      labels: int64 ``[N]``; None: not known, or more than one an image.
    """

    pixels: np.ndarray
    labels: np.ndarray | None


def calibration_count(image_size: int) -> int:
    """Returns how many images of this side calibrate an 8-bit file."""
    return max(16, min(_MOST_CALIBRATION, _CALIBRATION_PIXELS // image_size**2))


def split_images(config: Config, source: Source, *, split: str, most: int) -> Images:
    """Returns images of a split, spread over all of it.

    Args:
      config: how they are cropped and resized.
      source: the data set.
      split: of the source.
      most: at most as many images.

    Raises:
      UserError: on an image that cannot be read.
    """
    share = Share(count=max(1, math.ceil(source.num_images(split) / most)), index=0, replicas=1)
    evaluation = EvaluationInput(config, source, split=split)
    row = NORMALISATIONS[config.model.preprocess]
    images, targets = [], []
    try:
        for batch, target in evaluation.batches(share):
            images.append(
                _whole(batch.numpy() * np.array(row.deviation, "f4") + np.array(row.mean, "f4"))
            )
            targets.append(target.numpy())
    except tf.errors.OpError as error:
        evaluation.raise_bad_image(error, share)
    labels = None if config.data.multi_label else np.concatenate(targets).argmax(axis=1)
    return Images(np.concatenate(images)[:most], None if labels is None else labels[:most])


def checked_images(config: Config, source: Source) -> Images:
    """Returns images of the final split."""
    return split_images(config, source, split=config.data.eval_split, most=_MOST_CHECKED)


def calibration_images(config: Config, source: Source) -> Images:
    """Returns images of the training split, not distorted, in an order of no meaning."""
    most = calibration_count(config.eval.isize)
    images = split_images(config, source, split=config.data.train_split, most=most)
    return Images(images.pixels[_shuffled(len(images.pixels))], None)


def file_images(config: Config, paths: Sequence[pathlib.Path]) -> tuple[Images, Images]:
    """Returns the images to calibrate on, and those to check with.

    Every other file is for the one and the rest for the other; a single file is for both. Where the
    files are few, more crops are cut from them, as in training.

    Raises:
      UserError: on a file that is not an image.
    """
    seen, asked = (paths[::2], paths[1::2]) if len(paths) > 1 else (paths, paths)
    seen = [seen[index] for index in _shuffled(len(seen))]
    crops = calibration_count(config.eval.isize)
    # Crops of one file stand together: the 8-bit network is tried on the last files.
    calibration = [
        _decoded(config, seen[index % len(seen)], crop=index // len(seen))
        for index in sorted(range(crops), key=lambda index: index % len(seen))
    ]
    checked = [_decoded(config, path, crop=0) for path in asked[:_MOST_CHECKED]]
    return Images(np.stack(calibration), None), Images(np.stack(checked), None)


def _shuffled(count: int) -> np.ndarray:
    # What is calibrated on the first images is tried on the last: these are not to be one class.
    return np.random.default_rng(0).permutation(count)


def _decoded(config: Config, path: pathlib.Path, *, crop: int) -> np.ndarray:
    """One image; crop 0 is evaluation's, the others are training's."""
    try:
        encoded = tf.constant(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read image '{path}': {error.strerror or error}") from None
    size, preprocess = config.eval.isize, config.model.preprocess
    try:
        if crop == 0:
            image = decode_evaluation(
                encoded, image_size=size, preprocess=preprocess, crop=config.data.eval_crop
            )
        else:
            image = decode_training(
                encoded,
                tf.constant([crop, 0], tf.int64),
                image_size=size,
                preprocess=preprocess,
                area=(0.25, 1.0),
                aspect=(3 / 4, 4 / 3),
            )
    except tf.errors.OpError:
        raise UserError(f"'{path}' is not an image, or is broken (JPEG, PNG, BMP, GIF)") from None
    return _whole(image.numpy())


def _whole(pixels: np.ndarray) -> np.ndarray:
    return np.float32(np.clip(np.round(pixels), 0, 255))
