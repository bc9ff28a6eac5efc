"""Crops, flips and augments one training image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from efficientnetv2.data import augment
from efficientnetv2.data.decode import decode_training
from efficientnetv2.data.schedule import StepSettings
from hparams.choices import AUGMENTATIONS, NORMALISATIONS

_FLIP = 1 << 40  # keeps the seeds of flips apart from those of crops


@dataclasses.dataclass(frozen=True)
class TrainingImage:
    """The decoding and augmentation of each training image.

    Attributes:
      preprocess: ``v1``, ``v2`` or ``lite``, as in ``decode_evaluation``.
      area: smallest and largest fraction of the image's area in a crop.
      aspect: smallest and largest ratio of a crop's width to its height.
      flip: whether half of the images are mirrored.
      name: a row of ``hparams.choices.AUGMENTATIONS``.
      ops: ``default`` or ``official``: the table of operations, and of mixing.
      layers: RandAugment operations per image.
      cutout: side of the erased square divided by that of the image; 0: no cutout.
      random_erasing: probability of random erasing.
      resize: a row of ``hparams.choices.RESIZES``.
    """

    preprocess: str
    area: Sequence[float] = (0.08, 1.0)
    aspect: Sequence[float] = (0.75, 1.3333)
    flip: bool = True
    name: str = "none"
    ops: str = "default"
    layers: int = 2
    cutout: float = 0.0
    random_erasing: float = 0.0
    resize: str = "published"

    def image(self, encoded: tf.Tensor, seed: tf.Tensor, settings: StepSettings) -> tf.Tensor:
        """Decodes, crops, flips and augments one image: ``[S, S, 3]``, 0..255.

        It is uint8 if the last step of it works on bytes, else float32.
        """
        image = decode_training(
            encoded,
            seed,
            image_size=settings.image_size,
            preprocess=self.preprocess,
            area=self.area,
            aspect=self.aspect,
            resize=self.resize,
        )
        if self.flip:
            salt = tf.constant([0, _FLIP], tf.int64)
            image = tf.image.stateless_random_flip_left_right(image, seed + salt)
        if self.name != "none" or self.cutout:
            image = self._augmented_bytes(image, seed, settings)
        if not self.random_erasing:
            return image
        return augment.random_erase(
            tf.cast(image, tf.float32),  # not every family's mean is a whole number
            seed,
            probability=self.random_erasing,
            colour=NORMALISATIONS[self.preprocess].mean,
        )

    def _augmented_bytes(
        self, image: tf.Tensor, seed: tf.Tensor, settings: StepSettings
    ) -> tf.Tensor:
        image = tf.saturate_cast(tf.round(image), tf.uint8)
        row = AUGMENTATIONS[self.name]
        if row.function:
            available = {
                "magnitude": settings.magnitude,
                "num_layers": self.layers,
                "ops": self.ops,
            }
            arguments = {name: available[name] for name in row.arguments}
            image = getattr(augment, row.function)(image, seed, **arguments)
        return augment.cutout(image, seed, size=self.cutout) if self.cutout else image
