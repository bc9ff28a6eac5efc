"""A source in, training batches out: float32 ``[B, S, S, 3]`` normalised, with targets.

The stream is a pure function of (seed, step): started at step k, it gives what an uninterrupted run
would have seen from step k on, and decodes nothing of what it skips. Sizes and strengths are looked
up by step inside the graph, so a new stage builds nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import tensorflow as tf

from efficientnetv2.data.broken import (
    Nest,
    SkippedLog,
    fill,
    prepare_readable,
    raise_bad_image,
)
from efficientnetv2.data.mix import mix
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.service import served
from efficientnetv2.data.settings import SettingsSchedule
from efficientnetv2.data.share import WHOLE, Share
from efficientnetv2.data.sources import Source
from efficientnetv2.data.targets import target_of
from efficientnetv2.data.training_image import Augmentation
from hparams.resolve import Config

_PRIME = 1_000_003  # keeps seeds of neighbouring (seed, epoch) pairs apart
_MIX = 1 << 41  # another stream than the images', which have the bare seed
_FOREVER = tf.int64.max


class Leg(NamedTuple):
    """Epochs of one batch size.

    Attributes:
      first_epoch: from 0.
      first_step: from 0.
      steps_per_epoch: whole batches in one pass over the split.
      batch_size: images a step, over all devices.
    """

    first_epoch: int
    first_step: int
    steps_per_epoch: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class TrainingInput:
    """The training stream of a whole training.

    Attributes:
      source: the data set.
      split: of the source.
      legs: epochs by batch size; the last one has no end.
      settings: sizes and strengths by step.
      augmentation: of the images.
      num_classes: length of the targets.
      share_targets: an image's labels share a weight of 1 (softmax); otherwise each has 1.
      shuffle_buffer: encoded images held to shuffle, where files are read in order.
      seed: of shuffling, crops, augmentation and mixing.
      skipped: names of images that cannot be read go here and others take their place; None: such
        an image is an error.
      service: address of a tf.data service that does the work; None: this process.
      service_streams: parts of the stream that the service's workers share out.
      parts: of a step's batch, which come one after the other, each mixed on its own.
    """

    source: Source
    split: str
    legs: Sequence[Leg]
    settings: SettingsSchedule
    augmentation: Augmentation
    num_classes: int
    share_targets: bool
    shuffle_buffer: int
    seed: int
    skipped: SkippedLog | None = None
    service: str | None = None
    service_streams: int = 1
    parts: int = 1

    def batches(self, *, start_step: int = 0, share: Share = WHOLE) -> tf.data.Dataset:
        """Returns an endless stream of training batches, or of their parts.

        Only the images of the share are decoded. Mixing takes its partners from the share, too: of
        one share, whatever its replicas, the batches are those of a single device, and of several
        where nothing is mixed.

        Args:
          start_step: the step of the first batch, counted from the start of the training.
          share: the rows of each batch that are wanted; count times replicas divides every one.

        Yields:
          Images float32 ``[B, S, S, 3]``, normalised, and targets float32 ``[B, num_classes]``; of
          a share, its replicas' parts one after the other, ``[B / count / replicas, ...]``.
        """
        streams = [
            self._leg(leg, end, start_step=start_step, share=share)
            for leg, end in self._legs_from(start_step)
        ]
        joined = functools.reduce(tf.data.Dataset.concatenate, streams)
        return joined.prefetch(tf.data.AUTOTUNE)

    def raise_bad_image(
        self, error: tf.errors.OpError, *, step: int, share: Share = WHOLE
    ) -> NoReturn:
        """Raises a one-line error that names the image at which the batch of a step failed.

        Raises:
          DataError: names the image.
          OpError: ``error``, if no image is at fault.
        """
        leg, end = self._legs_from(step)[0]
        raise_bad_image(
            error,
            self.source,
            self._rows(self._references(leg, end, start_step=step), leg, share).take(
                leg.batch_size // share.count
            ),
            split=self.split,
            prepare=functools.partial(self._prepare, leg),
        )

    def _legs_from(self, step: int) -> list[tuple[Leg, Leg | None]]:
        """The leg of a step and those after it, each with the one that follows it."""
        pairs = zip(self.legs, [*self.legs[1:], None])
        return [(leg, end) for leg, end in pairs if end is None or step < end.first_step]

    def _leg(self, leg: Leg, end: Leg | None, *, start_step: int, share: Share) -> tf.data.Dataset:
        references = self._rows(self._references(leg, end, start_step=start_step), leg, share)
        batches = self._made(leg, end, references, start_step=start_step, share=share)
        if share.replicas == 1:
            return batches
        rows = leg.batch_size // self.parts // share.count // share.replicas
        return batches.rebatch(rows, drop_remainder=True)

    def _made(
        self,
        leg: Leg,
        end: Leg | None,
        references: tf.data.Dataset,
        *,
        start_step: int,
        share: Share,
    ) -> tf.data.Dataset:
        """Batches of references, made here or by the service."""
        if self.service is None:
            return self._batches_of(leg, references, share)

        def part(number: tf.Tensor) -> tf.data.Dataset:
            mine = references.filter(
                lambda epoch, index, _: (
                    self._step(leg, epoch, index) % self.service_streams == number
                )
            )
            return self._batches_of(leg, mine, share)

        return served(
            part,
            parts=self.service_streams,
            address=self.service,
            steps=(max(start_step, leg.first_step), _FOREVER if end is None else end.first_step),
            batches_per_step=self.parts,
        )

    def _references(self, leg: Leg, end: Leg | None, *, start_step: int) -> tf.data.Dataset:
        """(epoch, index in the epoch, reference) from ``start_step`` to the end of the leg."""
        steps = max(start_step - leg.first_step, 0)
        epoch, step = divmod(steps, leg.steps_per_epoch)
        epochs = tf.data.Dataset.range(
            leg.first_epoch + epoch, _FOREVER if end is None else end.first_epoch
        )
        examples = epochs.flat_map(lambda epoch: self._one_epoch(leg, epoch))
        return examples.skip(step * leg.batch_size)

    def _rows(self, references: tf.data.Dataset, leg: Leg, share: Share) -> tf.data.Dataset:
        """A share's references: each batch or part of one is cut evenly, and it has one piece."""
        if share.count == 1:
            return references
        pieces = references.batch(leg.batch_size // self.parts // share.count, drop_remainder=True)
        return pieces.shard(share.count, share.index).unbatch()

    def _one_epoch(self, leg: Leg, epoch: tf.Tensor) -> tf.data.Dataset:
        seed = self.seed * _PRIME + epoch
        skip = self.skipped is not None
        shuffled = self.source.references(
            self.split, seed=seed, buffer=self.shuffle_buffer, skip_broken=skip
        )
        if skip:
            shuffled = shuffled.repeat()  # broken records are missing; an epoch keeps its length
        used = shuffled.take(leg.steps_per_epoch * leg.batch_size).enumerate()
        return used.map(lambda index, reference: (epoch, index, reference))

    def _batches_of(self, leg: Leg, references: tf.data.Dataset, share: Share) -> tf.data.Dataset:
        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        # Nothing here has control flow that AutoGraph would have to convert, which takes seconds.
        plain = tf.autograph.experimental.do_not_convert
        prepare = plain(functools.partial(self._prepare, leg))
        size = leg.batch_size // self.parts // share.count
        mix_rows = functools.partial(self._mix, index=share.index)
        if self.skipped is None:
            batches = references.map(prepare, **parallel).batch(size, drop_remainder=True)
            return batches.map(plain(mix_rows), **parallel)
        batches = prepare_readable(
            references,
            prepare,
            batch_size=size,
            drop_remainder=True,
            name=self.source.name,
            log=self.skipped,
        )
        filled = functools.partial(fill, batch_size=size)
        return batches.map(plain(lambda places, *b: mix_rows(*filled(places, b))), **parallel)

    def _step(self, leg: Leg, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        epochs = epoch - leg.first_epoch
        return leg.first_step + epochs * leg.steps_per_epoch + index // leg.batch_size

    def _prepare(self, leg: Leg, epoch: tf.Tensor, index: tf.Tensor, reference: Nest) -> Nest:
        """Returns the number of the batch, the image ``[S, S, 3]`` in 0..255 and its target."""
        step = self._step(leg, epoch, index)
        number = step * self.parts + index % leg.batch_size // (leg.batch_size // self.parts)
        _, encoded, label = self.source.load(reference)
        seed = tf.stack([self.seed * _PRIME + epoch, index])
        image = self.augmentation.image(encoded, seed, self.settings.at(step))
        target = target_of(label, num_classes=self.num_classes, share=self.share_targets)
        return number, image, target

    def _mix(
        self, numbers: tf.Tensor, images: tf.Tensor, targets: tf.Tensor, *, index: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        settings = self.settings.at(numbers[0] // self.parts)
        images = normalise(images, self.augmentation.preprocess)
        return mix(
            images,
            targets,
            tf.stack([tf.constant(self.seed * _PRIME + _MIX + index, tf.int64), numbers[0]]),
            mixup_alpha=settings.mixup_alpha,
            cutmix_alpha=settings.cutmix_alpha,
            table=self.augmentation.ops,
        )


def build_training_input(
    config: Config,
    source: Source,
    *,
    legs: Sequence[Leg],
    settings: SettingsSchedule,
    skipped: SkippedLog | None = None,
    parts: int = 1,
) -> TrainingInput:
    """Opens the configuration for the training stream.

    Args:
      config: the sections train and data.
      source: the data set.
      legs: epochs by batch size.
      settings: sizes and strengths by step.
      skipped: where ``data.on_bad_image=skip`` writes names.
      parts: of a step's batch.
    """
    data = config.data
    return TrainingInput(
        source=source,
        split=data.train_split,
        legs=legs,
        settings=settings,
        augmentation=Augmentation(
            preprocess=config.model.preprocess,
            area=tuple(data.crop_area),
            aspect=tuple(data.crop_aspect),
            flip=data.flip,
            name=data.augname,
            ops=data.augment_ops,
            layers=data.randaug_layers,
            cutout=data.cutout,
        ),
        num_classes=config.model.num_classes,
        share_targets=config.train.loss_type == "softmax",
        shuffle_buffer=data.shuffle_buffer,
        seed=config.train.seed,
        skipped=skipped if data.on_bad_image == "skip" else None,
        service=data.service,
        service_streams=data.service_streams,
        parts=parts,
    )
