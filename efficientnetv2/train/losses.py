"""Computes the training objective: cross-entropy, a teacher's term, and the L2 term."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.weight_decay import WeightDecay
from hparams.choices import LOSSES


def softmax_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy summed over this replica's images and divided by the GLOBAL batch.

    Summed over all replicas it is the mean over the global batch, whatever their number.

    Args:
      logits: ``[B, K]``.
      targets: ``[B, K]``; each row sums to 1 (one-hot, or mixed).
      label_smoothing: fraction of each target that is spread over all K classes, in [0, 1).
      global_batch_size: number of images over all replicas, a number or a scalar tensor.

    Returns:
      float32 scalar.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)


def sigmoid_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """Binary cross-entropy, mean over the classes, for images with any number of labels.

    Arguments as in ``softmax_cross_entropy``, except that each value of ``targets`` is in 0..1 and
    label smoothing moves it towards 1/2.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    total = summed_sigmoid_cross_entropy(
        logits, targets, label_smoothing=label_smoothing, global_batch_size=global_batch_size
    )
    return total / classes


def summed_sigmoid_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """As ``sigmoid_cross_entropy``, but summed over the classes, so K times as large.

    With thousands of classes, the gradient of the mean is negligible beside that of the L2 term.
    """
    targets = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)


def distillation_loss(
    logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    *,
    loss_type: str,
    temperature: float,
    global_batch_size: tf.Tensor,
) -> tf.Tensor:
    """Divergence from a teacher's softened probabilities: ``T^2 KL(teacher / T || student / T)``.

    Knowledge distillation, arXiv:1503.02531 section 2. ``T^2`` keeps the size of the gradient when
    T changes. KL is the cross-entropy with the teacher's probabilities as targets, less their own
    entropy; so with a sigmoid loss it is that of each class by itself, averaged or summed over the
    classes as the loss does.

    Args:
      logits: ``[B, K]``.
      teacher_logits: ``[B, K]``; no gradient flows into them.
      loss_type: a row of ``hparams.choices.LOSSES``.
      temperature: T, above 0.
      global_batch_size: as in ``softmax_cross_entropy``.

    Returns:
      float32 scalar, at least 0 but for rounding; it is 0 where both have the same logits.
    """
    softened = tf.stop_gradient(tf.cast(teacher_logits, tf.float32)) / temperature
    targets = probabilities(softened, loss_type)
    cross_entropy, entropy = (
        loss_function(loss_type)(
            values, targets, label_smoothing=0.0, global_batch_size=global_batch_size
        )
        for values in (tf.cast(logits, tf.float32) / temperature, softened)
    )
    return temperature**2 * (cross_entropy - entropy)


def loss_function(loss_type: str) -> Callable[..., tf.Tensor]:
    """Returns the function of this module that a row of ``hparams.choices.LOSSES`` names."""
    function: Callable[..., tf.Tensor] = globals()[LOSSES[loss_type].function]
    return function


def probabilities(logits: tf.Tensor, loss_type: str) -> tf.Tensor:
    """Returns the probabilities that a loss derives from logits: float32 ``[B, K]``, 0..1."""
    activation = keras.activations.get(LOSSES[loss_type].activation)
    return activation(tf.cast(logits, tf.float32))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimises: cross-entropy, a teacher's term, and the L2 term of some variables.

    Attributes:
      loss_type: a row of ``hparams.choices.LOSSES``.
      label_smoothing: fraction of the label that is spread evenly, in [0, 1).
      weight_decay: weight decay by the loss; the optimizers that apply it beside their update leave
        none to the loss.
      temperature: by which logits are divided before they are compared with the teacher's.
      distill_weight: share of the teacher's term, 0..1, where there is a teacher; the
        cross-entropy has the rest.
    """

    loss_type: str
    label_smoothing: float
    weight_decay: WeightDecay
    temperature: float
    distill_weight: float

    def cross_entropy(
        self, logits: tf.Tensor, targets: tf.Tensor, *, global_batch_size: tf.Tensor
    ) -> tf.Tensor:
        """Returns the loss of these images, divided by the size of the global batch."""
        return loss_function(self.loss_type)(
            logits,
            targets,
            label_smoothing=self.label_smoothing,
            global_batch_size=global_batch_size,
        )

    def distillation(
        self, logits: tf.Tensor, teacher_logits: tf.Tensor, *, global_batch_size: tf.Tensor
    ) -> tf.Tensor:
        """Returns the teacher's term for these images, before it is weighted."""
        return distillation_loss(
            logits,
            teacher_logits,
            loss_type=self.loss_type,
            temperature=self.temperature,
            global_batch_size=global_batch_size,
        )

    def weighted(self, cross_entropy: tf.Tensor, distillation: tf.Tensor) -> tf.Tensor:
        """Returns ``(1 - w) cross_entropy + w distillation``; w is ``distill_weight``."""
        weight = self.distill_weight
        return (1.0 - weight) * cross_entropy + weight * distillation

    def penalty(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the L2 term after ``step`` finished steps, a float32 scalar."""
        return self.weight_decay.l2_term(step)
