"""An encoded image in; what training sees of it out: cropped, flipped and augmented."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from efficientnetv2.data.augment import auto_augment, cutout, rand_augment
from efficientnetv2.data.decode import decode_training
from efficientnetv2.data.settings import StepSettings

_FLIP = 1 << 40  # another stream than the crop's, which has the bare seed


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to the images of the training stream.

    Attributes:
      preprocess: row of ``hparams.preprocess``.
      area: smallest and largest share of the image in a crop.
      aspect: smallest and largest width by height of a crop.
      flip: whether half of the images are mirrored.
      name: ``none``, ``randaug`` or ``autoaug``.
      ops: ``default`` or ``official``: the table of operations, and of mixing.
      layers: RandAugment operations an image.
      cutout: side of the erased square by that of the image; 0: none.
    """

    preprocess: str
    area: Sequence[float] = (0.08, 1.0)
    aspect: Sequence[float] = (0.75, 1.3333)
    flip: bool = True
    name: str = "none"
    ops: str = "default"
    layers: int = 2
    cutout: float = 0.0

    @property
    def dtype(self) -> tf.DType:
        """uint8 where an operation asks for whole numbers, else float32."""
        return tf.float32 if self.name == "none" and not self.cutout else tf.uint8

    def image(self, encoded: tf.Tensor, seed: tf.Tensor, settings: StepSettings) -> tf.Tensor:
        """Decodes, crops, flips and augments one image: ``[S, S, 3]`` of ``dtype``, 0..255."""
        image = decode_training(
            encoded,
            seed,
            image_size=settings.image_size,
            preprocess=self.preprocess,
            area=self.area,
            aspect=self.aspect,
        )
        if self.flip:
            salt = tf.constant([0, _FLIP], tf.int64)
            image = tf.image.stateless_random_flip_left_right(image, seed + salt)
        if self.dtype == tf.float32:
            return image
        image = tf.saturate_cast(tf.round(image), tf.uint8)
        if self.name == "randaug":
            image = rand_augment(
                image, seed, magnitude=settings.magnitude, num_layers=self.layers, ops=self.ops
            )
        elif self.name == "autoaug":
            image = auto_augment(image, seed, ops=self.ops)
        return cutout(image, seed, size=self.cutout) if self.cutout else image
