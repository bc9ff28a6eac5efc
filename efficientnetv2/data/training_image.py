"""Crops, flips, turns and augments one training image.

The order: crop and resize; mirror left to right, then top to bottom; turn by quarters, then by any
angle; colour jitter; RandAugment or another policy; cutout; random erasing. Each has a stream of
random numbers of its own, so that none changes what the others draw.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf

from efficientnetv2.data import augment
from efficientnetv2.data.decode import decode_training
from efficientnetv2.data.schedule import StepSettings
from hparams.channels import RGB
from hparams.choices import AUGMENTATIONS, NORMALISATIONS, Normalisation

_FLIP = 1 << 40  # keeps the seeds of flips apart from those of crops


@dataclasses.dataclass(frozen=True)
class TrainingImage:
    """The decoding and augmentation of each training image.

    Attributes:
      preprocess: ``v1``, ``v2`` or ``lite``, as in ``decode_evaluation``.
      area: smallest and largest fraction of the image's area in a crop.
      aspect: smallest and largest ratio of a crop's width to its height.
      flip: whether half of the images are mirrored left to right.
      vertical_flip: whether half of the images are mirrored top to bottom.
      quarter_turns: whether images are turned by 0, 90, 180 or 270 degrees.
      rotate: largest angle, degrees, by which images are turned; 0: none.
      color_jitter: strengths of brightness, contrast and saturation, and of hue, which may be left
        out; or one for the first three.
      name: a row of ``hparams.choices.AUGMENTATIONS``.
      ops: ``default`` or ``official``: the table of operations, and of mixing.
      layers: RandAugment operations per image.
      cutout: side of the erased square divided by that of the image; 0: no cutout.
      random_erasing: probability of random erasing.
      resize: a row of ``hparams.choices.RESIZES``.
      measured: the normalisation of the images, by whose mean parts are painted over where images
        have no colours; None: the row of ``preprocess``.
    """

    preprocess: str
    area: Sequence[float] = (0.08, 1.0)
    aspect: Sequence[float] = (0.75, 1.3333)
    flip: bool = True
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotate: float = 0.0
    color_jitter: Sequence[float] = (0.0,)
    name: str = "none"
    ops: str = "default"
    layers: int = 2
    cutout: float = 0.0
    random_erasing: float = 0.0
    resize: str = "published"
    measured: Normalisation | None = None

    @property
    def normalisation(self) -> Normalisation:
        """How the images are normalised afterwards."""
        return self.measured or NORMALISATIONS[self.preprocess]

    @property
    def _fill(self) -> tuple[float, ...] | None:
        """The levels of what is not image; None: grey, which only colours of 0..255 have."""
        row = self.normalisation
        return None if row.channels == RGB else row.mean

    def image(self, encoded: tf.Tensor, seed: tf.Tensor, settings: StepSettings) -> tf.Tensor:
        """Decodes, crops, flips and augments one image: ``[S, S, C]``, 0..255.

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
            channels=self.normalisation.channels,
            fill=self._fill,
        )
        if self.flip:
            salt = tf.constant([0, _FLIP], tf.int64)
            image = tf.image.stateless_random_flip_left_right(image, seed + salt)
        image = self._turned(image, seed)
        if self.normalisation.channels == RGB:
            if self.name != "none" or self.cutout or any(self.color_jitter):
                image = self._augmented_bytes(image, seed, settings)
                image = augment.cutout(image, seed, size=self.cutout) if self.cutout else image
        else:
            image = self._augmented_channels(image, seed, settings)
        if not self.random_erasing:
            return image
        return augment.random_erase(
            tf.cast(image, tf.float32),  # not every family's mean is a whole number
            seed,
            probability=self.random_erasing,
            colour=self.normalisation.mean,
        )

    def _turned(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if self.vertical_flip:
            image = augment.flip_vertically(image, seed)
        if self.quarter_turns:
            image = augment.turn_quarters(image, seed)
        if self.rotate:
            image = augment.rotate(image, seed, degrees=self.rotate, colour=self._fill)
        return image

    def _augmented_channels(
        self, image: tf.Tensor, seed: tf.Tensor, settings: StepSettings
    ) -> tf.Tensor:
        """Returns a float32 image ``[S, S, C]`` without colours, augmented.

        What works on bytes sees a grey image as a colour image. Nothing else is rounded.
        """
        if self.name != "none" or any(self.color_jitter):
            augmented = functools.partial(self._augmented_bytes, seed=seed, settings=settings)
            image = tf.cast(augment.grey_as_colour(image, augmented), tf.float32)
        if self.cutout:
            image = augment.cutout(image, seed, size=self.cutout, colour=self._fill)
        return image

    def _augmented_bytes(
        self, image: tf.Tensor, seed: tf.Tensor, settings: StepSettings
    ) -> tf.Tensor:
        image = tf.saturate_cast(tf.round(image), tf.uint8)
        if any(self.color_jitter):
            strengths = jitter_strengths(self.color_jitter)
            image = augment.color_jitter(image, seed, strengths=strengths)
        row = AUGMENTATIONS[self.name]
        if row.function:
            available = {
                "magnitude": settings.magnitude,
                "num_layers": self.layers,
                "ops": self.ops,
            }
            arguments = {name: available[name] for name in row.arguments}
            image = getattr(augment, row.function)(image, seed, **arguments)
        return image


def jitter_strengths(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """Returns the strengths of brightness, contrast, saturation and hue.

    >>> jitter_strengths([0.4])
    (0.4, 0.4, 0.4, 0.0)

    Args:
      numbers: of ``data.color_jitter``: one for the first three, or three or four.
    """
    brightness, contrast, saturation = numbers[:3] if len(numbers) > 1 else [numbers[0]] * 3
    return brightness, contrast, saturation, numbers[3] if len(numbers) > 3 else 0.0
