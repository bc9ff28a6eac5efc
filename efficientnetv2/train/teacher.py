"""Asks a trained network what it sees in the training images, for knowledge distillation.

arXiv:1503.02531. The teacher sees the batch that the network sees, augmented and mixed, at its own
image size and in its own normalisation.
"""

from __future__ import annotations

import zlib

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.checkpoints.file_settings import model_settings, settings_of_weights
from efficientnetv2.checkpoints.loader import load_weights
from efficientnetv2.checkpoints.pretrained_model import stored_weights
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import for_inference
from efficientnetv2.model.layers import dtype_policy
from efficientnetv2.runtime.teacher_run import TeacherNetwork, find_teacher
from efficientnetv2.train.train_state import precision_policy
from hparams.channels import normalisation_of
from hparams.choices import Normalisation
from hparams.config import Config, ModelSection
from hparams.errors import UserError
from hparams.resolve import resolve_model


class Teacher:
    """A trained network that answers, and is not trained.

    Args:
      model: maps normalised images ``[B, S, S, C]`` to logits ``[B, K]``.
      image_size: S, pixels.
      normalisation: how its images are normalised.
      own_normalisation: how those of the training are.
      origin: where its weights come from, as text for messages.
      checksum: of its weights.

    Attributes:
      image_size: as given.
      origin: as given.
      checksum: as given.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        image_size: int,
        normalisation: Normalisation,
        own_normalisation: Normalisation,
        origin: str,
        checksum: int,
    ) -> None:
        self._model = model
        self._normalisations = own_normalisation, normalisation
        self.image_size = image_size
        self.origin = origin
        self.checksum = checksum

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Returns its float32 logits ``[B, K]`` for images of the training, of any size."""
        images = renormalise(tf.cast(images, tf.float32), *self._normalisations)
        images = resize(images, self.image_size)
        return tf.cast(self._model(images, training=False), tf.float32)


def renormalise(images: tf.Tensor, before: Normalisation, after: Normalisation) -> tf.Tensor:
    """Turns images that are normalised in one way into images normalised in another.

    Args:
      images: float32 ``[..., C]``.
      before: how they are normalised.
      after: how they should be.
    """
    if before == after:
        return images
    scale = np.divide(before.deviation, after.deviation)
    offset = np.subtract(before.mean, after.mean) / np.array(after.deviation)
    return images * tf.constant(scale, tf.float32) + tf.constant(offset, tf.float32)


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes float32 ``[B, H, W, C]`` to ``size`` x ``size`` pixels, bilinear with antialiasing.

    Equals ``tf.image.resize`` but for rounding. It is two matrix products, as XLA, and so a TPU,
    has no antialiasing. Images of this size stay as they are, to the bit.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    rows = tf.einsum("oh,bhwc->bowc", _interpolation(height, size), images)
    resized = tf.einsum("pw,bowc->bopc", _interpolation(width, size), rows)
    return tf.ensure_shape(resized, [None, size, size, images.shape[-1]])


def _interpolation(old: tf.Tensor, new: int) -> tf.Tensor:
    """Returns the weights of the old pixels in each new one, ``[new, old]``; a row sums to 1."""
    old = tf.cast(old, tf.float32)
    scale = old / new
    centres = (tf.range(new, dtype=tf.float32) + 0.5) * scale - 0.5
    distances = tf.abs(tf.range(old) - centres[:, tf.newaxis])
    weights = tf.nn.relu(1.0 - distances / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, -1, keepdims=True)


def build_teacher(config: Config) -> Teacher | None:
    """Builds the teacher that ``train.teacher`` names, in the scope of the strategy; None: none.

    It computes in ``train.precision``, with BatchNormalization folded into its convolutions. A run
    gives the moving average of its weights, where it has one.

    Raises:
      UserError: as ``find_teacher``; if its weights cannot be read, or it has other classes.
    """
    network = find_teacher(config)
    if network is None:
        return None
    section = _section(config, network)
    stored = stored_weights(section, network.weights)
    num_classes, taught = len(stored.values.get("predictions/bias", ())), config.model.num_classes
    if num_classes not in (0, taught):
        raise UserError(
            f"the teacher '{network.weights}' has {num_classes} classes, but the data has {taught}"
        )
    precision = config.train.precision
    with precision_policy(precision):
        model = build_model(section)
    report = load_weights(model, stored)
    # On a CPU, layers round to bfloat16 by themselves; elsewhere the policy above has decided.
    rounds = precision == "bfloat16" and dtype_policy(precision) == "float32"
    folded = for_inference(model, precision="bfloat16" if rounds else "float32")
    folded.trainable = False
    return Teacher(
        folded,
        image_size=network.image_size,
        normalisation=normalisation_of(section),
        own_normalisation=normalisation_of(config.model),
        origin=str(report),
        checksum=_checksum(model),
    )


def _section(config: Config, network: TeacherNetwork) -> ModelSection:
    """Returns the ``model`` section to build, of the classes of the data."""
    settings = {**network.model.to_dict(), "num_classes": config.model.num_classes}
    settings["data_format"] = "channels_last"  # in which the images come
    if network.run is None:
        of_file = settings_of_weights(network.weights, model_name=network.model.model_name)
        settings |= model_settings(of_file)
    name = settings.pop("model_name")
    return resolve_model(name, settings)


def _checksum(model: keras.Model) -> int:
    """Returns the CRC-32 of all weights."""
    checksum = 0
    for value in model.get_weights():
        checksum = zlib.crc32(np.ascontiguousarray(value).tobytes(), checksum)
    return checksum
