"""A source in, evaluation batches out: every image once, in order, cropped as published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import tensorflow as tf

from efficientnetv2.data.broken import Nest, SkippedLog, prepare_readable, raise_bad_image
from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.share import WHOLE, Share
from efficientnetv2.data.sources import Source
from efficientnetv2.data.targets import target_of
from hparams.resolve import Config


class EvaluationInput:
    """The images of one split.

    Args:
      config: the sections model, eval and data.
      source: the data set.
      split: of the source.
      skipped: with ``data.on_bad_image=skip``, names of images that cannot be read go here and the
        images are left out.
    """

    def __init__(
        self, config: Config, source: Source, *, split: str, skipped: SkippedLog | None = None
    ) -> None:
        self._config = config
        self._source = source
        self._split = split
        self._skipped = skipped if config.data.on_bad_image == "skip" else None

    def batches(self, share: Share = WHOLE) -> tf.data.Dataset:
        """Returns every image exactly once, in order; a batch may be smaller than the others.

        Args:
          share: image n is in the share of index n modulo its count.

        Yields:
          Images float32 ``[b, S, S, 3]``, normalised, and targets float32 ``[b, K]``.
        """
        batch_size = self._rows(share)
        plain = tf.autograph.experimental.do_not_convert
        prepare = plain(self._prepare)
        references = self._references(share)
        if self._skipped is None:
            prepared = references.map(
                prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
            batches = prepared.batch(batch_size)
        else:
            tried = prepare_readable(
                references,
                prepare,
                batch_size=batch_size,
                drop_remainder=False,
                name=self._source.name,
                log=self._skipped,
            )
            readable = tried.filter(plain(lambda places, *_: tf.size(places) > 0))
            batches = readable.map(plain(lambda _, images, targets: (images, targets)))
        return batches.prefetch(tf.data.AUTOTUNE)

    def padded(self, share: Share = WHOLE) -> tf.data.Dataset:
        """Returns the batches of a share, filled up as ``padded`` does, for its replicas."""
        return padded(
            self.batches(share),
            share,
            num_images=self._source.num_images(self._split),
            batch_size=self._rows(share),
            image_shape=(self._config.eval.isize, self._config.eval.isize, 3),
        )

    def _rows(self, share: Share) -> int:
        """Images a batch of one replica: a small data set is not blown up to the batch size."""
        images = min(self._config.eval.batch_size, self._source.num_images(self._split))
        return -(-images // (share.count * share.replicas))

    def pick(self, indices: Sequence[int]) -> np.ndarray:
        """Returns some of the images, float32 ``[N, S, S, 3]``, normalised, in the order asked for.

        Args:
          indices: numbers in the split, as ``batches`` counts; each at most once.
        """
        wanted = tf.constant(sorted(indices), tf.int64)
        plain = tf.autograph.experimental.do_not_convert
        chosen = plain(lambda index, _: tf.reduce_any(wanted == index))
        if self._skipped is None:
            images = self._references(WHOLE).filter(chosen).map(plain(self._prepare))
        else:  # which images are left out is known after they were read
            numbered = self.batches().unbatch().enumerate()
            images = numbered.filter(chosen).map(plain(lambda _, pair: pair))
        found = dict(zip(sorted(indices), (image.numpy() for image, _ in images)))
        return np.stack([found[index] for index in indices])

    def raise_bad_image(self, error: tf.errors.OpError, share: Share = WHOLE) -> NoReturn:
        """Raises a ``DataError`` that names a share's first unreadable image, or ``error``."""
        raise_bad_image(
            error,
            self._source,
            self._references(share),
            split=self._split,
            prepare=self._prepare,
        )

    def _references(self, share: Share) -> tf.data.Dataset:
        references = self._source.references(
            self._split, seed=None, buffer=1, skip_broken=self._skipped is not None
        )
        references = references.enumerate()
        return references.shard(share.count, share.index) if share.count > 1 else references

    def _prepare(self, index: tf.Tensor, reference: Nest) -> tuple[tf.Tensor, tf.Tensor]:
        del index
        _, encoded, label = self._source.load(reference)
        target = target_of(
            label,
            num_classes=self._config.model.num_classes,
            share=self._config.train.loss_type == "softmax",
        )
        return evaluation_image(self._config, encoded), target


def padded(
    batches: tf.data.Dataset,
    share: Share,
    *,
    num_images: int,
    batch_size: int,
    image_shape: tuple[int, int, int],
) -> tf.data.Dataset:
    """Fills batches up with blank images, and adds blank batches where others have more.

    So every replica runs as many steps as any other, on batches of one shape, which replicas that
    add up their results must do; a TPU takes no other.

    Args:
      batches: images float32 ``[b, H, W, C]`` and targets ``[b, K]``, b at most ``batch_size``; of
        a share in which no more than every ``share.count``-th image is, rounded up.
      share: of the images; its replicas take turns with the batches.
      num_images: of all shares together, at most.
      batch_size: images a batch of one replica.
      image_shape: ``(H, W, C)``.

    Yields:
      Images ``[batch_size, H, W, C]``, targets ``[batch_size, K]``, and bool ``[batch_size]``:
      which images are real.
    """
    classes = batches.element_spec[1].shape[-1]

    @tf.autograph.experimental.do_not_convert
    def fill(images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        count = tf.shape(images)[0]
        more = batch_size - count
        images = tf.pad(images, [[0, more], [0, 0], [0, 0], [0, 0]])
        return (
            tf.ensure_shape(images, [batch_size, *image_shape]),
            tf.ensure_shape(tf.pad(targets, [[0, more], [0, 0]]), [batch_size, classes]),
            tf.ensure_shape(tf.range(batch_size) < count, [batch_size]),
        )

    filled = batches.map(fill, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    blank = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), filled.element_spec
    )
    most = math.ceil(math.ceil(num_images / share.count) / batch_size)
    steps = math.ceil(most / share.replicas)
    blanks = tf.data.Dataset.from_tensors(blank).repeat()
    return filled.concatenate(blanks).take(steps * share.replicas).prefetch(tf.data.AUTOTUNE)


def evaluation_image(config: Config, encoded: tf.Tensor) -> tf.Tensor:
    """Decodes, crops and normalises one image as evaluation sees it: float32 ``[S, S, 3]``."""
    image = decode_evaluation(
        encoded,
        image_size=config.eval.isize,
        preprocess=config.model.preprocess,
        crop=config.data.eval_crop,
    )
    return normalise(image, config.model.preprocess)
