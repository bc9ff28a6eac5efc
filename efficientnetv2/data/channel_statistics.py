"""Measures mean and deviation of each channel of the training images, to normalise them by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from efficientnetv2.data.bad_images import raise_bad_image
from efficientnetv2.data.channel_image import decode_channels
from efficientnetv2.data.sources import Source
from hparams.config import Config
from hparams.errors import DataError

_SAMPLE = 256  # images: the standard error of a mean is then a sixteenth of what images differ by
_DIGITS = 6  # that are kept: the last bits may differ from machine to machine


class ChannelStatistics(NamedTuple):
    """What a sample of images says of each channel.

    Attributes:
      mean: C numbers, in the unit of the pixels.
      deviation: C numbers above 0; 1 for a channel that never changes.
      notices: what a person should know, one line each.
    """

    mean: list[float]
    deviation: list[float]
    notices: list[str]


def channel_statistics(config: Config, source: Source, *, split: str) -> ChannelStatistics:
    """Measures a fixed sample of a split, in which each image counts as much as any other.

    Of files of one's own these are up to 256, spread evenly over the split in the order of their
    paths; of other data sets, the first 256.

    Args:
      config: the sections model and data.
      source: the data set.
      split: to measure, the training images.

    Raises:
      DataError: if an image cannot be read and ``data.on_bad_image`` is not skip, if none can, or
        if the values do not suit an augmentation that works on 0..255.
    """
    sums = _image_sums(config, source, split=split)
    means = sums[:, 0].mean(0)
    deviations = np.sqrt(np.maximum(sums[:, 1].mean(0) - means**2, 0))
    _require_suitable_range(config, sums[:, 2].min(), sums[:, 3].max())
    never = [number for number, value in enumerate(deviations, start=1) if not value > 0]
    deviations = np.where(deviations > 0, deviations, 1.0)
    count = len(sums)
    notices = []
    if never:
        notices.append(
            f"channel {', '.join(map(str, never))} has one value in all of {count} training images"
        )
    mean, deviation = ([float(f"{v:.{_DIGITS}g}") for v in row] for row in (means, deviations))
    return ChannelStatistics(mean, deviation, notices)


def _image_sums(config: Config, source: Source, *, split: str) -> np.ndarray:
    """Returns of each image the mean, mean square, minimum and maximum: float64 ``[N, 4, C]``."""
    channels = config.model.channels
    count = source.num_images(split)
    skips = config.data.on_bad_image == "skip"
    references = source.references(split, seed=None, buffer=1, skip_broken=skips)
    if config.data.source == "folder":
        references = references.shard(-(-count // _SAMPLE), 0)
    examples = references.take(_SAMPLE).enumerate()

    @tf.autograph.experimental.do_not_convert
    def measured(_: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
        image = tf.cast(decode_channels(source.load(reference)[1], channels), tf.float64)
        reduce = tf.reduce_mean, tf.reduce_min, tf.reduce_max
        mean, low, high = (function(image, [0, 1]) for function in reduce)
        return tf.stack([mean, tf.reduce_mean(image**2, [0, 1]), low, high])

    results = examples.map(measured, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if skips:
        results = results.ignore_errors()
    try:
        sums = list(results.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise_bad_image(error, source, examples, split=split, prepare=measured, skips=False)
    if not sums:
        raise DataError(f"none of the images of the split '{split}' can be read")
    return np.stack(sums)


def _require_suitable_range(config: Config, low: float, high: float) -> None:
    data = config.data
    settings = {
        f"data.augname={data.augname}": data.augname != "none",
        "data.color_jitter": any(data.color_jitter),
    }
    used = [setting for setting, is_set in settings.items() if is_set]
    if used and (low < 0 or high > 255 or high <= 1):
        raise DataError(
            f"{used[0]} works on pixels of 0..255, but those of the training images go from "
            f"{low:g} to {high:g}: scale them, or do without it"
        )
