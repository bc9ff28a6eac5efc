"""Logits float32 ``[B, K]`` and targets in; float32 scalars out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow import keras

from hparams.errors import UserError
from hparams.resolve import Config


def softmax_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy summed over this replica's images and divided by the GLOBAL batch.

    Summed over all replicas it is the mean over the global batch, whatever their number.

    Args:
      logits: ``[B, K]``.
      targets: ``[B, K]``, rows that sum to 1 (one-hot, or mixed).
      label_smoothing: share of each target that is spread over all K classes, in [0, 1).
      global_batch_size: images over all replicas, a number or a scalar tensor.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)


def sigmoid_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """Binary cross-entropy, mean over the classes, for images of any number of labels.

    Arguments as in ``softmax_cross_entropy``, but for ``targets``: ``[B, K]``, each 0..1; smoothing
    draws each towards 1/2.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    total = summed_sigmoid_cross_entropy(
        logits, targets, label_smoothing=label_smoothing, global_batch_size=global_batch_size
    )
    return total / classes


def summed_sigmoid_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """As ``sigmoid_cross_entropy``, but the sum over the classes: K times as much.

    With thousands of classes the mean leaves almost no gradient beside the L2 term.
    """
    targets = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
    "sigmoid_sum": summed_sigmoid_cross_entropy,
}


def l2_term(kernels: Sequence[tf.Tensor], *, weight_decay: float) -> tf.Tensor:
    """``weight_decay * sum(w ** 2) / 2`` over all kernels; biases and BatchNorm are left out."""
    if not weight_decay or not kernels:
        return tf.constant(0.0)
    return weight_decay * tf.add_n([tf.nn.l2_loss(tf.cast(k, tf.float32)) for k in kernels])


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training makes small: cross-entropy, and the L2 term of some variables.

    Attributes:
      loss_type: a row of ``LOSSES``.
      label_smoothing: share of the label that is spread evenly, in [0, 1).
      weight_decay: factor of the L2 term at the first step.
      weight_decay_growth: of the factor, a step, as a share of the first one.
      decayed: values of the variables in the L2 term.
    """

    loss_type: str
    label_smoothing: float
    weight_decay: float
    weight_decay_growth: float
    decayed: Sequence[tf.Variable]

    def cross_entropy(
        self, logits: tf.Tensor, targets: tf.Tensor, *, global_batch_size: tf.Tensor
    ) -> tf.Tensor:
        """Returns the loss of these images, divided by the size of the global batch."""
        return LOSSES[self.loss_type](
            logits,
            targets,
            label_smoothing=self.label_smoothing,
            global_batch_size=global_batch_size,
        )

    def penalty(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the L2 term at a step, the number of finished ones."""
        term = l2_term(self.decayed, weight_decay=self.weight_decay)
        if not self.weight_decay_growth:
            return term
        return term * (1.0 + self.weight_decay_growth * tf.cast(step, tf.float32))


def build_objective(
    config: Config, variables: Sequence[keras.Variable], *, total_steps: float
) -> Objective:
    """Opens the configuration for what training makes small.

    Args:
      config: the section train.
      variables: those that are trained.
      total_steps: of the training.

    Raises:
      UserError: if there is weight decay and no variable to have it.
    """
    train = config.train
    decayed = matching(variables, train.weight_decay_vars)
    if train.weight_decay and not decayed:
        raise UserError(
            f"train.weight_decay_vars='{train.weight_decay_vars}' is in no trained variable's "
            f"name, such as '{variables[0].path}'; train.weight_decay=0 is for none"
        )
    return Objective(
        loss_type=train.loss_type,
        label_smoothing=train.label_smoothing,
        weight_decay=train.weight_decay,
        weight_decay_growth=train.weight_decay_inc / max(total_steps - 1, 1),
        decayed=[variable.value for variable in decayed],
    )


def matching(variables: Sequence[keras.Variable], expression: str) -> list[keras.Variable]:
    """Returns the variables in whose ``layer/variable`` a regular expression is found."""
    return [variable for variable in variables if re.search(expression, variable.path)]
