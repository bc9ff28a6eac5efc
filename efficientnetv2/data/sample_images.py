"""Collects images that calibrate 8-bit networks, and images that verify exported files."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.bad_images import ADVICE, SKIPPED, unreadable_file
from efficientnetv2.data.decode import decode_training
from efficientnetv2.data.eval_input import EvaluationInput, evaluation_pixels
from efficientnetv2.data.preprocess import denormalise
from efficientnetv2.data.shard import Shard
from efficientnetv2.data.sources import Source
from hparams.channels import RGB, normalisation_of
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import ONE, label_kind

# Of all calibration images together, as of 128 images of 224 px; more brought no visible gain.
_CALIBRATION_PIXELS = 128 * 224 * 224
_MAX_CALIBRATION = 512  # images
MAX_VERIFICATION = 1000


@dataclasses.dataclass(frozen=True)
class Images:
    """Cropped and resized images, as an app would pass them to an exported file.

    Attributes:
      pixels: float32 ``[N, S, S, C]``, whole numbers in 0..255 if C is 3.
      labels: int64 ``[N]``, of images with several classes or with numbers float32 ``[N, K]``;
        None: not known.
    """

    pixels: np.ndarray
    labels: np.ndarray | None


def calibration_count(image_size: int) -> int:
    """Returns how many images of a size in pixels calibrate an int8 file."""
    return max(16, min(_MAX_CALIBRATION, _CALIBRATION_PIXELS // image_size**2))


def split_images(config: Config, source: Source, *, split: str, limit: int) -> Images:
    """Returns images that are spread evenly over a split.

    With ``data.on_bad_image=skip``, those that cannot be read are left out and named on stderr.

    Args:
      config: says how they are cropped and resized.
      source: the data set.
      split: the name of a split of the source.
      limit: the largest number of images to return.

    Raises:
      UserError: if an image cannot be read; with ``data.on_bad_image=skip``, if none can.
    """
    shard = Shard(count=max(1, math.ceil(source.num_images(split) / limit)), index=0, replicas=1)
    evaluation = EvaluationInput(config, source, split=split)
    normalisation = normalisation_of(config.model)
    images, targets = [], []
    try:
        for batch, target in evaluation.batches(shard):
            images.append(_as_in_files(denormalise(batch.numpy(), normalisation)))
            targets.append(target.numpy())
    except tf.errors.OpError as error:
        evaluation.raise_bad_image(error, shard)
    if not images:
        raise UserError(f"none of the images of the split '{split}' can be read")
    labels = np.concatenate(targets)[:limit]
    if label_kind(config) == ONE:
        labels = labels.argmax(axis=1)
    return Images(np.concatenate(images)[:limit], labels)


def verification_images(config: Config, source: Source) -> Images:
    """Returns up to 1000 images of the final split."""
    return split_images(config, source, split=config.data.eval_split, limit=MAX_VERIFICATION)


def calibration_images(config: Config, source: Source) -> Images:
    """Returns images of the training split, not augmented, in random order."""
    limit = calibration_count(config.eval.isize)
    images = split_images(config, source, split=config.data.train_split, limit=limit)
    return Images(images.pixels[_shuffled(len(images.pixels))], None)


def file_images(config: Config, paths: Sequence[pathlib.Path]) -> tuple[Images, Images]:
    """Returns the images to calibrate with and the images to verify with.

    The files are used for the one and the other in turn; a single file is used for both. If there
    are too few files to calibrate with, several random crops are taken of each, as in training.
    With ``data.on_bad_image=skip``, files that cannot be read are left out and named on stderr.

    Raises:
      UserError: if a file is not an image; with ``data.on_bad_image=skip``, if none is.
    """
    calibration_paths, verification_paths = paths, paths
    if len(paths) > 1:
        calibration_paths, verification_paths = paths[::2], paths[1::2]
    crops = calibration_count(config.eval.isize)
    shuffled = [calibration_paths[index] for index in _shuffled(len(calibration_paths))]
    calibration = list(itertools.islice(_readable(config, shuffled), crops))
    verification = list(itertools.islice(_readable(config, verification_paths), MAX_VERIFICATION))
    if not calibration and not verification:
        raise UserError(f"none of the {len(paths):,} images of --image_path can be read")
    calibration, verification = calibration or verification[:crops], verification or calibration
    count = len(calibration)
    # The crops of a file are neighbours, because weights are fitted on the first images and
    # validated on the last: these should come from other files.
    cropped = [
        _decode(config, path, crop=index // count) if index >= count else image
        for place, (path, image) in enumerate(calibration)
        for index in range(place, crops, count)
    ]
    verified = [image for _, image in verification]
    return Images(np.stack(cropped), None), Images(np.stack(verified), None)


def _readable(
    config: Config, paths: Iterable[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, np.ndarray]]:
    """Yields each file with its image as evaluation sees it, as ``data.on_bad_image`` says."""
    for path in paths:
        try:
            image = _decode(config, path, crop=0)
        except UserError as error:
            if config.data.on_bad_image != "skip":
                raise UserError(f"{error}{ADVICE}") from None
            print(f"{SKIPPED}{error}", file=sys.stderr, flush=True)
        else:
            yield path, image


def _shuffled(count: int) -> np.ndarray:
    # Weights are fitted on the first images and validated on the last, which must not all be of
    # one class.
    return np.random.default_rng(0).permutation(count)


def _decode(config: Config, path: pathlib.Path, *, crop: int) -> np.ndarray:
    """Crop 0 is cut as in evaluation, the others at random as in training."""
    encoded = b""
    try:
        encoded = path.read_bytes()
        if crop == 0:
            image = evaluation_pixels(config, tf.constant(encoded))
        else:
            image = decode_training(
                tf.constant(encoded),
                tf.constant([crop, 0], tf.int64),
                image_size=config.eval.isize,
                preprocess=config.model.preprocess,
                area=(0.25, 1.0),
                aspect=(3 / 4, 4 / 3),
                resize=config.data.resize,
                channels=config.model.channels,
                fill=None if config.model.channels == RGB else normalisation_of(config.model).mean,
            )
    except (OSError, tf.errors.OpError) as error:
        raise UserError(unreadable_file(path, error, encoded)) from None
    return _as_in_files(image.numpy())


def _as_in_files(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels as an app would have them: of colour images, which have 8 bits, rounded."""
    if pixels.shape[-1] != RGB:
        return np.float32(pixels)
    return np.float32(np.clip(np.rint(pixels), 0, 255))
