"""A source in, evaluation batches out: every image once, in order, cropped as published."""

from __future__ import annotations

from typing import NoReturn

import tensorflow as tf

from efficientnetv2.data.broken import Nest, SkippedLog, prepare_readable, raise_bad_image
from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.data.preprocess import normalise
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

    def batches(self) -> tf.data.Dataset:
        """Returns every image exactly once, in order; the last batch may be smaller.

        Yields:
          Images float32 ``[b, S, S, 3]``, normalised, and targets float32 ``[b, K]``.
        """
        batch_size = self._config.eval.batch_size
        plain = tf.autograph.experimental.do_not_convert
        prepare = plain(self._prepare)
        if self._skipped is None:
            prepared = self._references().map(
                prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
            batches = prepared.batch(batch_size)
        else:
            tried = prepare_readable(
                self._references(),
                prepare,
                batch_size=batch_size,
                drop_remainder=False,
                name=self._source.name,
                log=self._skipped,
            )
            readable = tried.filter(plain(lambda places, *_: tf.size(places) > 0))
            batches = readable.map(plain(lambda _, images, targets: (images, targets)))
        return batches.prefetch(tf.data.AUTOTUNE)

    def raise_bad_image(self, error: tf.errors.OpError) -> NoReturn:
        """Raises a ``DataError`` that names the first unreadable image, or ``error``."""
        raise_bad_image(
            error,
            self._source,
            self._references(),
            split=self._split,
            prepare=self._prepare,
        )

    def _references(self) -> tf.data.Dataset:
        references = self._source.references(
            self._split, seed=None, buffer=1, skip_broken=self._skipped is not None
        )
        return references.enumerate()

    def _prepare(self, index: tf.Tensor, reference: Nest) -> tuple[tf.Tensor, tf.Tensor]:
        del index
        _, encoded, label = self._source.load(reference)
        target = target_of(
            label,
            num_classes=self._config.model.num_classes,
            share=self._config.train.loss_type == "softmax",
        )
        return evaluation_image(self._config, encoded), target


def evaluation_image(config: Config, encoded: tf.Tensor) -> tf.Tensor:
    """Decodes, crops and normalises one image as evaluation sees it: float32 ``[S, S, 3]``."""
    image = decode_evaluation(
        encoded,
        image_size=config.eval.isize,
        preprocess=config.model.preprocess,
        crop=config.data.eval_crop,
    )
    return normalise(image, config.model.preprocess)
