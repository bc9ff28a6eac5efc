"""Builds the training dataset: shuffled, augmented, mixed and normalised batches.

The stream is a pure function of (seed, step): started at step k, it gives what an uninterrupted run
would have seen from step k on, and decodes nothing of what it skips. Image sizes and augmentation
strengths are looked up by step inside the graph, so a new stage needs no new graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import tensorflow as tf

from efficientnetv2.data.bad_images import (
    Element,
    SkippedLog,
    fill_gaps,
    prepare_readable,
    raise_bad_image,
)
from efficientnetv2.data.class_balance import class_weights
from efficientnetv2.data.mix import Batch, mix
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.schedule import SettingsSchedule
from efficientnetv2.data.shard import WHOLE, Shard
from efficientnetv2.data.sources import Source
from efficientnetv2.data.targets import target_of
from efficientnetv2.data.tfdata_service import distribute
from efficientnetv2.data.training_image import TrainingImage
from hparams.channels import measured_normalisation
from hparams.choices import LOSSES
from hparams.config import Config

_PRIME = 1_000_003  # keeps seeds of neighbouring (seed, epoch) pairs apart
_MIX = 1 << 41  # keeps the seeds of mixing apart from those of the images
_FOREVER = tf.int64.max
# In place of a weight of 0, so that what is right of such an image can still be told. Its share of
# the loss is nothing in float32.
_LEAST_WEIGHT = 1e-30
_REPEATED_AT_ONCE = 8


class Phase(NamedTuple):
    """A run of epochs with one batch size; it may span several stages.

    Attributes:
      first_epoch: from 0.
      first_step: from 0.
      steps_per_epoch: whole batches in one pass over the split.
      batch_size: images per step over all devices.
    """

    first_epoch: int
    first_step: int
    steps_per_epoch: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class TrainingInput:
    """The training dataset, from the first step to the last.

    Attributes:
      source: the data set.
      split: name of the training split.
      phases: epochs by batch size; the last phase has no end.
      settings: image sizes and augmentation strengths by step.
      transform: crops, flips and augments an image.
      num_classes: length of the targets.
      share_targets: whether an image's labels share a weight of 1 (softmax); otherwise each has 1.
      shuffle_buffer: encoded images in the shuffle buffer, if the source reads its files in order.
      seed: of shuffling, crops, augmentation and mixing.
      repeats: times that an image comes in a row, augmented anew each time (arXiv:1901.09960).
      skipped: log of the images that cannot be read and are replaced by others; None: such an image
        is an error.
      service: address of a tf.data service that prepares the images; None: this process does.
      num_streams: streams into which the steps are dealt for the service's workers.
      microbatches: pieces in which a step's batch comes, one after the other; each is mixed on its
        own.
      normalised: whether images are normalised; False: pixels of 0..255, for a network that
        normalises them itself.
      class_weights: float32 ``[num_classes]``, by which the weight of an image is multiplied; None:
        not at all.
    """

    source: Source
    split: str
    phases: Sequence[Phase]
    settings: SettingsSchedule
    transform: TrainingImage
    num_classes: int
    share_targets: bool
    shuffle_buffer: int
    seed: int
    repeats: int = 1
    skipped: SkippedLog | None = None
    service: str | None = None
    num_streams: int = 1
    microbatches: int = 1
    normalised: bool = True
    class_weights: np.ndarray | None = None

    @property
    def has_weights(self) -> bool:
        """Whether batches have weights of the images."""
        return self.source.has_weights or self.class_weights is not None

    def batches(self, *, start_step: int = 0, shard: Shard = WHOLE) -> tf.data.Dataset:
        """Returns an endless dataset of training batches, or of their microbatches.

        Only the images of the shard are decoded, and mixing takes partners from the shard alone.
        So a single shard, whatever its number of replicas, gives the batches of a single device;
        several shards do so only if nothing is mixed.

        Args:
          start_step: the step of the first batch, counted from the start of the training.
          shard: the rows of each batch to return; ``count * replicas`` must divide every batch.

        Yields:
          Images float32 ``[B, S, S, C]``, normalised, and targets float32 ``[B, num_classes]``; if
          images have weights, these too, float32 ``[B]``. For a shard, the batches of its
          replicas one after the other, ``[B / count / replicas, ...]``.
        """
        datasets = [
            self._phase(phase, next_phase, start_step=start_step, shard=shard)
            for phase, next_phase in self._phases_from(start_step)
        ]
        joined = functools.reduce(tf.data.Dataset.concatenate, datasets)
        return joined.prefetch(tf.data.AUTOTUNE)

    def from_epoch(self, epoch: tf.Variable) -> tf.data.Dataset:
        """Returns an endless dataset whose first epoch is read when an iteration begins.

        So one dataset, traced once, can be started at any epoch. Its batches are those of
        ``batches``. There must be a single phase and no tf.data service.

        Args:
          epoch: int64 scalar on a CPU, the number of the epoch from 0.
        """
        (phase,) = self.phases
        plain = tf.autograph.experimental.do_not_convert
        first = tf.data.Dataset.range(1).map(plain(lambda _: epoch.read_value()))
        epochs = first.flat_map(plain(lambda number: tf.data.Dataset.range(number, _FOREVER)))
        references = epochs.flat_map(plain(lambda number: self._one_epoch(phase, number)))
        options = tf.data.Options()  # the workers of a strategy may not divide the files
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return self._prepared_batches(phase, references, WHOLE).with_options(options)

    def raise_bad_image(
        self, error: tf.errors.OpError, *, step: int, shard: Shard = WHOLE
    ) -> NoReturn:
        """Raises a one-line error that names the image at which the batch of a step failed.

        Raises:
          DataError: names the image.
          OpError: ``error``, if no image is at fault.
        """
        phase, next_phase = self._phases_from(step)[0]
        references = self._rows(self._references(phase, next_phase, start_step=step), phase, shard)
        raise_bad_image(
            error,
            self.source,
            references.take(phase.batch_size // shard.count),
            split=self.split,
            prepare=functools.partial(self._prepare, phase),
            skips=self.skipped is not None,
        )

    def _phases_from(self, step: int) -> list[tuple[Phase, Phase | None]]:
        """Returns the phase of a step and those after it, each with the one that follows it."""
        pairs = zip(self.phases, [*self.phases[1:], None])
        return [
            (phase, next_phase)
            for phase, next_phase in pairs
            if next_phase is None or step < next_phase.first_step
        ]

    def _phase(
        self, phase: Phase, next_phase: Phase | None, *, start_step: int, shard: Shard
    ) -> tf.data.Dataset:
        """Returns one phase's batches from ``start_step`` on; the methods below are its steps."""
        references = self._references(phase, next_phase, start_step=start_step)
        references = self._rows(references, phase, shard)
        if self.service is None:
            batches = self._prepared_batches(phase, references, shard)
        else:
            batches = self._served_batches(
                phase, next_phase, references, start_step=start_step, shard=shard
            )
        if shard.replicas == 1:
            return batches
        rows = self._microbatch_size(phase) // shard.count // shard.replicas
        return batches.rebatch(rows, drop_remainder=True)

    def _references(
        self, phase: Phase, next_phase: Phase | None, *, start_step: int
    ) -> tf.data.Dataset:
        """Returns (epoch, index in it, reference) from ``start_step`` to the end of the phase."""
        steps = max(start_step - phase.first_step, 0)
        epoch, step = divmod(steps, phase.steps_per_epoch)
        epochs = tf.data.Dataset.range(
            phase.first_epoch + epoch, _FOREVER if next_phase is None else next_phase.first_epoch
        )
        plain = tf.autograph.experimental.do_not_convert  # nothing in it needs AutoGraph's time
        examples = epochs.flat_map(plain(lambda epoch: self._one_epoch(phase, epoch)))
        return examples.skip(step * phase.batch_size)

    def _one_epoch(self, phase: Phase, epoch: tf.Tensor) -> tf.data.Dataset:
        seed = self.seed * _PRIME + epoch
        skip = self.skipped is not None
        shuffled = self.source.references(
            self.split, seed=seed, buffer=self.shuffle_buffer, skip_broken=skip
        )
        if skip:
            shuffled = shuffled.repeat()  # fills up the epoch where broken records are missing
        if self.repeats > 1:
            shuffled = _repeat_each(shuffled, self.repeats)
        used = shuffled.take(phase.steps_per_epoch * phase.batch_size).enumerate()
        return used.map(lambda index, reference: (epoch, index, reference))

    def _rows(self, references: tf.data.Dataset, phase: Phase, shard: Shard) -> tf.data.Dataset:
        """Returns a shard's references: its piece of each microbatch, which is cut evenly."""
        if shard.count == 1:
            return references
        size = self._microbatch_size(phase) // shard.count
        pieces = references.batch(size, drop_remainder=True)
        return pieces.shard(shard.count, shard.index).unbatch()

    def _microbatch_size(self, phase: Phase) -> int:
        return phase.batch_size // self.microbatches

    def _served_batches(
        self,
        phase: Phase,
        next_phase: Phase | None,
        references: tf.data.Dataset,
        *,
        start_step: int,
        shard: Shard,
    ) -> tf.data.Dataset:
        """Returns the batches of ``_prepared_batches``, prepared by the tf.data service."""
        end_step = _FOREVER if next_phase is None else next_phase.first_step

        def stream(number: tf.Tensor) -> tf.data.Dataset:
            mine = references.filter(
                lambda epoch, index, _: self._step(phase, epoch, index) % self.num_streams == number
            )
            return self._prepared_batches(phase, mine, shard)

        return distribute(
            stream,
            num_streams=self.num_streams,
            address=self.service or "",
            steps=(max(start_step, phase.first_step), end_step),
            batches_per_step=self.microbatches,
        )

    def _prepared_batches(
        self, phase: Phase, references: tf.data.Dataset, shard: Shard
    ) -> tf.data.Dataset:
        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        # AutoGraph would take seconds to find that there is no control flow to convert here.
        plain = tf.autograph.experimental.do_not_convert
        prepare = plain(functools.partial(self._prepare, phase))
        size = self._microbatch_size(phase) // shard.count
        mix_rows = functools.partial(self._mix, index=shard.index)
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
        fill = functools.partial(fill_gaps, batch_size=size)
        return batches.map(plain(lambda positions, *b: mix_rows(*fill(positions, b))), **parallel)

    def _prepare(
        self, phase: Phase, epoch: tf.Tensor, index: tf.Tensor, reference: Element
    ) -> Element:
        """Returns the microbatch's number, the image ``[S, S, C]`` in 0..255 and its target.

        With weights, the target is multiplied by the image's weight, which follows as one more
        value. So mixing, which is linear, mixes the weights too: a mixture of two images has the
        loss that the two have in these proportions, each with its own weight.
        """
        step = self._step(phase, epoch, index)
        piece = index % phase.batch_size // self._microbatch_size(phase)
        _, encoded, label = self.source.load(reference)
        seed = tf.stack([self.seed * _PRIME + epoch, index])
        image = self.transform.image(encoded, seed, self.settings.at(step))
        target = target_of(label, num_classes=self.num_classes, share_weight=self.share_targets)
        if self.has_weights:
            weight = self._weight(reference, label)
            target = tf.concat([target * weight, [weight]], 0)
        return step * self.microbatches + piece, image, target

    def _weight(self, reference: Element, label: tf.Tensor) -> tf.Tensor:
        """Returns the weight of an image in the loss, a float32 scalar."""
        weight = tf.constant(1.0)
        if self.source.has_weights:
            weight = self.source.weight(reference)
        if self.class_weights is not None:
            weight *= tf.gather(tf.constant(self.class_weights), label)
        return tf.maximum(weight, _LEAST_WEIGHT)

    def _step(self, phase: Phase, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        epochs = epoch - phase.first_epoch
        return phase.first_step + epochs * phase.steps_per_epoch + index // phase.batch_size

    def _mix(
        self, numbers: tf.Tensor, images: tf.Tensor, targets: tf.Tensor, *, index: int
    ) -> tuple[tf.Tensor, ...]:
        images, targets = self._mixed(numbers, images, targets, index=index)
        if not self.has_weights:
            return images, targets
        weights = targets[:, -1]
        return images, tf.math.divide_no_nan(targets[:, :-1], weights[:, tf.newaxis]), weights

    def _mixed(
        self, numbers: tf.Tensor, images: tf.Tensor, targets: tf.Tensor, *, index: int
    ) -> Batch:
        images = (
            normalise(images, self.transform.normalisation)
            if self.normalised
            else tf.cast(images, tf.float32)
        )
        alphas = self.settings.rows.mixup_alpha, self.settings.rows.cutmix_alpha
        if not any(np.any(alpha) for alpha in alphas):  # in no stage
            return images, targets
        settings = self.settings.at(numbers[0] // self.microbatches)
        return _traced_mix(self.transform.ops)(
            images,
            targets,
            tf.stack([tf.constant(self.seed * _PRIME + _MIX + index, tf.int64), numbers[0]]),
            mixup_alpha=settings.mixup_alpha,
            cutmix_alpha=settings.cutmix_alpha,
        )


def _repeat_each(references: tf.data.Dataset, times: int) -> tf.data.Dataset:
    """Returns a dataset with each element several times in a row."""

    @tf.autograph.experimental.do_not_convert
    def repeated(batch: Element) -> Element:
        return tf.nest.map_structure(lambda tensor: tf.repeat(tensor, times, axis=0), batch)

    # Not flat_map with a dataset for each element, which takes ten times as long. References may
    # hold encoded images, so the batches are small.
    return references.batch(_REPEATED_AT_ONCE).map(repeated).unbatch()


@functools.cache
def _traced_mix(table: str) -> Callable[..., Batch]:
    """Returns ``mix`` with a row of ``MIXERS``, traced once for all batches of one shape."""
    return tf.function(functools.partial(mix, table=table), autograph=False)


def build_training_input(
    config: Config,
    source: Source,
    *,
    phases: Sequence[Phase],
    settings: SettingsSchedule,
    skipped: SkippedLog | None = None,
    microbatches: int = 1,
    normalised: bool = True,
) -> TrainingInput:
    """Builds the training dataset from the config.

    Args:
      config: the sections train and data.
      source: the data set.
      phases: epochs by batch size.
      settings: image sizes and augmentation strengths by step.
      skipped: log of the images that ``data.on_bad_image=skip`` leaves out; None: they are named on
        stderr.
      microbatches: pieces in which a step's batch comes.
      normalised: as in ``TrainingInput``.
    """
    data = config.data
    return TrainingInput(
        source=source,
        split=data.train_split,
        phases=phases,
        settings=settings,
        transform=TrainingImage(
            preprocess=config.model.preprocess,
            area=tuple(data.crop_area),
            aspect=tuple(data.crop_aspect),
            flip=data.flip,
            vertical_flip=data.vertical_flip,
            quarter_turns=data.quarter_turns,
            rotate=data.rotate,
            color_jitter=tuple(data.color_jitter),
            name=data.augname,
            ops=data.augment_ops,
            layers=data.randaug_layers,
            cutout=data.cutout,
            random_erasing=data.random_erasing,
            resize=data.resize,
            measured=measured_normalisation(config.model),
        ),
        num_classes=config.model.num_classes,
        share_targets=LOSSES[config.train.loss_type].shares_target,
        repeats=data.repeats,
        shuffle_buffer=data.shuffle_buffer,
        seed=config.train.seed,
        skipped=(skipped or SkippedLog()) if data.on_bad_image == "skip" else None,
        service=data.service,
        num_streams=data.service_streams,
        microbatches=microbatches,
        normalised=normalised,
        class_weights=class_weights(config),
    )
