"""A source in, batches out: float32 ``[B, S, S, 3]`` normalised, with labels.

The training stream is a pure function of (seed, step): started at step k, it gives what an
uninterrupted run would have seen from step k on, and decodes nothing of what it skips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from efficientnetv2.data.decode import decode_evaluation, decode_training
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.sources import Source
from hparams.resolve import Config

_PRIME = 1_000_003  # keeps seeds of neighbouring (seed, epoch) pairs apart


@dataclasses.dataclass(frozen=True)
class TrainingInput:
    """What the training stream of all stages has in common.

    Attributes:
      source: the data set.
      split: TFDS notation.
      batch_size: images a step, over all devices.
      num_classes: length of the one-hot labels.
      preprocess: row of ``hparams.preprocess``.
      area: smallest and largest share of the image in a crop.
      aspect: smallest and largest width by height of a crop.
      flip: whether half of the images are mirrored.
      shuffle_buffer: encoded images held to shuffle.
      seed: of shuffling, crops and flips.
    """

    source: Source
    split: str
    batch_size: int
    num_classes: int
    preprocess: str
    area: Sequence[float]
    aspect: Sequence[float]
    flip: bool
    shuffle_buffer: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass; the images left over differ from epoch to epoch."""
        return self.source.num_images(self.split) // self.batch_size

    def batches(self, *, image_size: int, start_step: int) -> tf.data.Dataset:
        """Returns an endless stream of training batches.

        Args:
          image_size: pixels.
          start_step: the step of the first batch, counted from the start of the training.

        Yields:
          Images float32 ``[B, S, S, 3]`` and one-hot labels float32 ``[B, num_classes]``.
        """
        epoch, step = divmod(start_step, self.steps_per_epoch)
        epochs = tf.data.Dataset.range(epoch, tf.int64.max)
        ordered = self.source.examples(self.split).enumerate()
        shuffled = epochs.flat_map(lambda epoch: self._one_epoch(ordered, epoch))
        examples = shuffled.skip(step * self.batch_size)

        def prepare(
            epoch: tf.Tensor, index: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            seed = tf.stack([self.seed * _PRIME + epoch, index])
            image = self._training_image(encoded, seed, image_size=image_size)
            return normalise(image, self.preprocess), tf.one_hot(label, self.num_classes)

        return (
            examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(self.batch_size, drop_remainder=True)
            .map(_any_size)
            .prefetch(tf.data.AUTOTUNE)
        )

    def _one_epoch(self, ordered: tf.data.Dataset, epoch: tf.Tensor) -> tf.data.Dataset:
        # This function is traced into a graph of its own, whose seed is set here: the stream must
        # not depend on the program's global seed.
        tf.compat.v1.set_random_seed(_PRIME)
        shuffled = ordered.shuffle(
            self.shuffle_buffer, seed=self.seed * _PRIME + epoch, reshuffle_each_iteration=False
        )
        used = shuffled.take(self.steps_per_epoch * self.batch_size)
        return used.map(lambda index, example: (epoch, index, *example))

    def _training_image(self, encoded: tf.Tensor, seed: tf.Tensor, *, image_size: int) -> tf.Tensor:
        image = decode_training(
            encoded,
            seed,
            image_size=image_size,
            preprocess=self.preprocess,
            area=self.area,
            aspect=self.aspect,
        )
        # The crop has used this seed: another number for the flip, or the two would go together.
        flip_seed = seed + tf.constant([0, 1 << 40], tf.int64)
        return tf.image.stateless_random_flip_left_right(image, flip_seed) if self.flip else image


def _any_size(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Hides height and width from the type of the stream, so that the streams of all stages have the
    # same type and the training step is traced once for all of them.
    batch, _, _, channels = images.shape
    return tf.compat.v1.placeholder_with_default(images, [batch, None, None, channels]), labels


def build_training_input(config: Config, source: Source) -> TrainingInput:
    """Opens the configuration for the training stream."""
    return TrainingInput(
        source=source,
        split=config.data.train_split,
        batch_size=config.train.batch_size,
        num_classes=config.model.num_classes,
        preprocess=config.model.preprocess,
        area=tuple(config.data.crop_area),
        aspect=tuple(config.data.crop_aspect),
        flip=config.data.flip,
        shuffle_buffer=config.data.shuffle_buffer,
        seed=config.train.seed,
    )


def build_evaluation_batches(config: Config, source: Source, *, split: str) -> tf.data.Dataset:
    """Returns every image of a split exactly once, in order; the last batch may be smaller.

    Yields:
      Images float32 ``[b, S, S, 3]``, normalised, and labels int64 ``[b]``.
    """

    def prepare(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return evaluation_image(config, encoded), label

    return (
        source.examples(split)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(config.eval.batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_image(config: Config, encoded: tf.Tensor) -> tf.Tensor:
    """Decodes, crops and normalises one image as evaluation sees it: float32 ``[S, S, 3]``."""
    image = decode_evaluation(
        encoded,
        image_size=config.eval.isize,
        preprocess=config.model.preprocess,
        crop=config.data.eval_crop,
    )
    return normalise(image, config.model.preprocess)
