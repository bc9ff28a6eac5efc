"""Builds the evaluation dataset: every image of a split once, in order, as ``data.resize`` says."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import tensorflow as tf

from efficientnetv2.data.bad_images import Element, SkippedLog, prepare_readable, raise_bad_image
from efficientnetv2.data.corruptions import CORRUPTIONS
from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.shard import WHOLE, Shard
from efficientnetv2.data.sources import Source
from efficientnetv2.data.sources.source import MIB
from efficientnetv2.data.targets import target_of
from efficientnetv2.data.views import ONE_VIEW, Views
from hparams.channels import RGB, normalisation_of
from hparams.choices import LOSSES
from hparams.config import Config


class EvaluationInput:
    """The evaluation dataset of one split.

    What ``padded`` gives is kept in memory if it takes at most ``data.cache_mib``: then only the
    first evaluation decodes the images.

    Args:
      config: the sections model, eval and data.
      source: the data set.
      split: name of the split.
      skipped: log of the images that cannot be read and that ``data.on_bad_image=skip`` leaves out;
        None: they are named on stderr.
      normalised: as in ``TrainingInput``.
      views: of each image; more than one adds an axis V to the images of ``batches`` and
        ``padded``: ``[b, V, S, S, C]``.
      corruption: a row of ``CORRUPTIONS``, which is done to the pixels; None: nothing is.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        *,
        split: str,
        skipped: SkippedLog | None = None,
        normalised: bool = True,
        views: Views = ONE_VIEW,
        corruption: str | None = None,
    ) -> None:
        self._normalised, self._views, self._corruption = normalised, views, corruption
        self._config = config
        self._source = source
        self._split = split
        skips = config.data.on_bad_image == "skip"
        self._skipped = (skipped or SkippedLog()) if skips else None
        self._padded: dict[Shard, tf.data.Dataset] = {}

    def batches(self, shard: Shard = WHOLE) -> tf.data.Dataset:
        """Returns every image exactly once, in order; a batch may be smaller than the others.

        Args:
          shard: image n is in the shard of index ``n % count``.

        Yields:
          Images float32 ``[b, S, S, C]``, normalised, and targets float32 ``[b, K]``.
        """
        batch_size = self._replica_batch_size(shard)
        plain = tf.autograph.experimental.do_not_convert
        prepare = plain(self._prepare)
        references = self._references(shard)
        if self._skipped is None:
            prepared = references.map(
                prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
            batches = prepared.batch(batch_size)
        else:
            prepared = self._readable(shard, self._skipped)
            not_empty = prepared.filter(plain(lambda positions, *_: tf.size(positions) > 0))
            batches = not_empty.map(plain(lambda _, images, targets: (images, targets)))
        return batches.prefetch(tf.data.AUTOTUNE)

    def _readable(self, shard: Shard, log: SkippedLog) -> tf.data.Dataset:
        """Returns batches as ``prepare_readable``; some may have no image."""
        return prepare_readable(
            self._references(shard),
            tf.autograph.experimental.do_not_convert(self._prepare),
            batch_size=self._replica_batch_size(shard),
            drop_remainder=False,
            name=self._source.name,
            log=log,
        )

    def padded(self, shard: Shard = WHOLE) -> tf.data.Dataset:
        """Returns the batches of a shard for its replicas, padded as by ``pad_batches``.

        The dataset is built once and can be iterated any number of times: an evaluation after each
        epoch, of the raw weights and of the moving average, does not trace the preprocessing again.
        """
        if shard not in self._padded:
            skipped = self._skipped
            padded = pad_batches(
                self.batches(shard) if skipped is None else self._readable(shard, skipped),
                shard,
                num_images=self._source.num_images(self._split),
                batch_size=self._replica_batch_size(shard),
                image_shape=self._image_shape,
            )
            self._padded[shard] = padded.cache() if self.kept_bytes else padded
        return self._padded[shard]

    @property
    def _image_shape(self) -> tuple[int, ...]:
        """``(S, S, C)``, or ``(V, S, S, C)``."""
        side, channels = self._config.eval.isize, self._config.model.channels
        shape = (side, side, channels)
        return shape if self._views.count == 1 else (self._views.count, *shape)

    @property
    def kept_bytes(self) -> int:
        """The memory that the images of ``padded`` take after the first evaluation; 0: too much.

        Those of a corruption are looked at once or twice, and are not kept either.

        Raises:
          DataError: if the split has no images.
        """
        size = 4 * self._source.num_images(self._split) * math.prod(self._image_shape)
        fits = size <= self._config.data.cache_mib * MIB
        return size if fits and self._corruption is None else 0

    def _replica_batch_size(self, shard: Shard) -> int:
        """Returns the images per batch of one replica, fewer than configured for a small split."""
        images = min(self._config.eval.batch_size, self._source.num_images(self._split))
        return -(-images // (shard.count * shard.replicas))

    def pick(self, indices: Sequence[int]) -> np.ndarray:
        """Returns some of the images, float32 ``[N, S, S, C]``, normalised, in the requested order.

        Of several views of an image, the first.

        Args:
          indices: numbers of the images in the split, of those that can be read; each at most once.
        """
        if WHOLE in self._padded and self.kept_bytes:
            return self._picked_from_memory(indices)
        requested = tf.constant(sorted(indices), tf.int64)
        plain = tf.autograph.experimental.do_not_convert
        is_requested = plain(lambda index, _: tf.reduce_any(requested == index))
        images = self._references(WHOLE).filter(is_requested).map(plain(self._prepare))
        by_index = dict(zip(sorted(indices), (image.numpy() for image, _ in images)))
        picked = np.stack([by_index[index] for index in indices])
        return picked[:, 0] if self._views.count > 1 else picked

    def _picked_from_memory(self, indices: Sequence[int]) -> np.ndarray:
        """Returns the images of ``pick``, of those that an evaluation has read."""
        wanted, first = np.array(indices), 0
        picked = np.empty((len(indices), *self._image_shape), np.float32)
        for images, _, _ in self._padded[WHOLE]:
            count = len(images)  # each image has its place, also beside those that are left out
            (here,) = np.nonzero((wanted >= first) & (wanted < first + count))
            picked[here] = images.numpy()[wanted[here] - first]
            first += count
        return picked[:, 0] if self._views.count > 1 else picked

    def raise_bad_image(self, error: tf.errors.OpError, shard: Shard = WHOLE) -> NoReturn:
        """Raises a ``DataError`` that names a shard's first unreadable image, or ``error``."""
        raise_bad_image(
            error,
            self._source,
            self._references(shard),
            split=self._split,
            prepare=self._prepare,
            skips=self._skipped is not None,
        )

    def _references(self, shard: Shard) -> tf.data.Dataset:
        references = self._source.references(
            self._split, seed=None, buffer=1, skip_broken=self._skipped is not None
        )
        references = references.enumerate()
        return references.shard(shard.count, shard.index) if shard.count > 1 else references

    def _prepare(self, index: tf.Tensor, reference: Element) -> tuple[tf.Tensor, tf.Tensor]:
        _, encoded, label = self._source.load(reference)
        target = target_of(
            label,
            num_classes=self._config.model.num_classes,
            share_weight=LOSSES[self._config.train.loss_type].shares_target,
        )
        return self._image(index, encoded), target

    def _image(self, index: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        """Returns the image as batches have it; ``index`` is its number in the split."""
        pixels = evaluation_pixels(
            self._config, encoded, image_size=self._views.source_size(self._config.eval.isize)
        )
        if self._corruption is not None:
            pixels = CORRUPTIONS[self._corruption](pixels, index)
        if self._normalised:
            pixels = normalise(pixels, normalisation_of(self._config.model))
        views = self._views.of_image(pixels)
        return views if self._views.count > 1 else views[0]


def pad_batches(
    batches: tf.data.Dataset,
    shard: Shard,
    *,
    num_images: int,
    batch_size: int,
    image_shape: tuple[int, ...],
) -> tf.data.Dataset:
    """Pads batches with blank images, and adds blank batches to shards that have fewer than others.

    So every replica runs the same number of steps, on batches of one shape: replicas that add up
    their results need the former, a TPU the latter.

    Args:
      batches: images float32 ``[b, H, W, C]`` (or ``[b, V, H, W, C]``) and targets ``[b, K]``, b at
        most ``batch_size``; at most ``num_images / shard.count`` images in all, rounded up. If some
        images are left out, their places in the batch, int64 ``[b]``, come first.
      shard: the shard that the batches belong to; its replicas take them in turn.
      num_images: images of all shards together, at most.
      batch_size: images per batch of one replica.
      image_shape: ``(H, W, C)``, or ``(V, H, W, C)``.

    Yields:
      Images ``[batch_size, H, W, C]``, targets ``[batch_size, K]``, and bool ``[batch_size]``:
      which images are real.
    """
    *_, spec = batches.element_spec
    classes = spec.shape[-1]

    @tf.autograph.experimental.do_not_convert
    def pad(*batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        *places, images, targets = batch
        count = tf.shape(images, tf.int64)[0]
        (place,) = places or (tf.range(count),)
        in_place = functools.partial(tf.scatter_nd, place[:, tf.newaxis])
        return (
            in_place(images, tf.constant([batch_size, *image_shape], tf.int64)),
            in_place(targets, tf.constant([batch_size, classes], tf.int64)),
            in_place(tf.ones([count], tf.bool), tf.constant([batch_size], tf.int64)),
        )

    padded = batches.map(pad, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    blank = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), padded.element_spec
    )
    max_batches = math.ceil(math.ceil(num_images / shard.count) / batch_size)
    steps = math.ceil(max_batches / shard.replicas)
    blanks = tf.data.Dataset.from_tensors(blank).repeat()
    return padded.concatenate(blanks).take(steps * shard.replicas).prefetch(tf.data.AUTOTUNE)


def evaluation_pixels(
    config: Config, encoded: tf.Tensor, *, image_size: int | None = None
) -> tf.Tensor:
    """Decodes, crops and resizes one image as evaluation does: float32 ``[S, S, C]``, 0..255.

    Args:
      config: the sections model, eval and data.
      encoded: the file's bytes, a string scalar.
      image_size: S, pixels; None: ``eval.isize``.

    Raises:
      tf.errors.InvalidArgumentError: if the file is not an image, or is damaged.
    """
    return decode_evaluation(
        encoded,
        image_size=config.eval.isize if image_size is None else image_size,
        preprocess=config.model.preprocess,
        resize=config.data.resize,
        crop_pct=config.eval.crop_pct,
        channels=config.model.channels,
        fill=None if config.model.channels == RGB else normalisation_of(config.model).mean,
    )


def evaluation_image(
    config: Config, encoded: tf.Tensor, *, image_size: int | None = None
) -> tf.Tensor:
    """Returns the image of ``evaluation_pixels``, normalised: float32 ``[S, S, C]``."""
    pixels = evaluation_pixels(config, encoded, image_size=image_size)
    return normalise(pixels, normalisation_of(config.model))
