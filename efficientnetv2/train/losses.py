"""Computes the training objective: the labels' loss, a teacher's term, and the L2 term."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.target_scale import TargetScale
from efficientnetv2.train.weight_decay import WeightDecay
from hparams.choices import LOSSES


def softmax_cross_entropy(
    logits: tf.Tensor,
    targets: tf.Tensor,
    *,
    label_smoothing: float,
    global_batch_size: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy summed over this replica's images and divided by the GLOBAL batch.

    Summed over all replicas it is the mean over the global batch, whatever their number.

    Args:
      logits: ``[B, K]``.
      targets: ``[B, K]``; each row sums to 1 (one-hot, or mixed).
      label_smoothing: fraction of each target that is spread over all K classes, in [0, 1).
      global_batch_size: number of images over all replicas, a number or a scalar tensor.
      weights: of the images, float32 ``[B]``; None: all 1.

    Returns:
      float32 scalar.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return _share(losses, global_batch_size, weights)


def _share(losses: tf.Tensor, global_batch_size: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Returns the sum of the losses ``[B]`` of these images, divided by the global batch."""
    if weights is not None:
        losses *= weights
    return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)


def sigmoid_cross_entropy(
    logits: tf.Tensor,
    targets: tf.Tensor,
    *,
    label_smoothing: float,
    global_batch_size: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Binary cross-entropy, mean over the classes, for images with any number of labels.

    Arguments as in ``softmax_cross_entropy``, except that each value of ``targets`` is in 0..1 and
    label smoothing moves it towards 1/2.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    total = summed_sigmoid_cross_entropy(
        logits,
        targets,
        label_smoothing=label_smoothing,
        global_batch_size=global_batch_size,
        weights=weights,
    )
    return total / classes


def summed_sigmoid_cross_entropy(
    logits: tf.Tensor,
    targets: tf.Tensor,
    *,
    label_smoothing: float,
    global_batch_size: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """As ``sigmoid_cross_entropy``, but summed over the classes, so K times as large.

    With thousands of classes, the gradient of the mean is negligible beside that of the L2 term.
    """
    targets = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    if weights is None:
        return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)
    return _share(tf.reduce_sum(losses, -1), global_batch_size, weights)


def focal_loss(
    logits: tf.Tensor,
    targets: tf.Tensor,
    *,
    loss_type: str,
    gamma: float,
    label_smoothing: float,
    global_batch_size: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Focal loss: each term of the cross-entropy is multiplied with ``(1 - p)^gamma``.

    p is the probability of what the term asks for: of the class, with softmax; of the class or of
    its absence, with sigmoid (arXiv:1708.02002, equation 4, without its alpha, which are class
    weights). Images that are right already count less.

    Args:
      logits: as in ``softmax_cross_entropy``.
      targets: as there.
      loss_type: a row of ``hparams.choices.LOSSES`` for classes.
      gamma: at least 0; 0 is the cross-entropy.
      label_smoothing: as in the row's own function.
      global_batch_size: as there.
      weights: as there.
    """
    logits = tf.cast(logits, tf.float32)
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    if LOSSES[loss_type].shares_target:
        targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
        log_p = tf.nn.log_softmax(logits)
        terms = -targets * _power(1.0 - tf.exp(log_p), gamma) * log_p
        return _share(tf.reduce_sum(terms, -1), global_batch_size, weights)
    targets = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    has = -targets * _power(tf.sigmoid(-logits), gamma) * tf.math.log_sigmoid(logits)
    has_not = -(1.0 - targets) * _power(tf.sigmoid(logits), gamma) * tf.math.log_sigmoid(-logits)
    losses = tf.reduce_sum(has + has_not, -1)
    if LOSSES[loss_type].function == "sigmoid_cross_entropy":
        losses /= classes
    return _share(losses, global_batch_size, weights)


def _power(values: tf.Tensor, gamma: float) -> tf.Tensor:
    # The gradient of x^gamma at 0 is infinite for gamma below 1.
    return tf.pow(tf.maximum(values, 1e-7), gamma)


def _number_loss(of_error: Callable[[tf.Tensor], tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns a loss of numbers, from the loss of an error ``[B, T]``: the mean over the T numbers.

    Its arguments are those of ``softmax_cross_entropy``; outputs and targets ``[B, T]`` have mean 0
    and deviation 1 (see ``TargetScale``), and there is no label smoothing.
    """

    def loss(
        outputs: tf.Tensor,
        targets: tf.Tensor,
        *,
        label_smoothing: float,
        global_batch_size: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        if label_smoothing:
            raise ValueError("numbers have no label smoothing")
        losses = of_error(tf.cast(outputs, tf.float32) - targets)
        return _share(tf.reduce_mean(losses, -1), global_batch_size, weights)

    return loss


def _huber(error: tf.Tensor) -> tf.Tensor:
    """Half the square up to 1, above it the size less 1/2 (P. J. Huber 1964)."""
    size = tf.abs(error)
    return tf.where(size <= 1.0, 0.5 * tf.square(error), size - 0.5)


squared_error = _number_loss(tf.square)
absolute_error = _number_loss(tf.abs)
huber = _number_loss(_huber)


def distillation_loss(
    logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    *,
    loss_type: str,
    temperature: float,
    global_batch_size: tf.Tensor,
    weights: tf.Tensor | None = None,
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
      weights: as there.

    Returns:
      float32 scalar, at least 0 but for rounding; it is 0 where both have the same logits.
    """
    softened = tf.stop_gradient(tf.cast(teacher_logits, tf.float32)) / temperature
    targets = probabilities(softened, loss_type)
    cross_entropy, entropy = (
        loss_function(loss_type)(
            values,
            targets,
            label_smoothing=0.0,
            global_batch_size=global_batch_size,
            weights=weights,
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
    """What training minimises: the labels' loss, a teacher's term, and some variables' L2 term.

    Attributes:
      loss_type: a row of ``hparams.choices.LOSSES``.
      label_smoothing: fraction of the label that is spread evenly, in [0, 1).
      weight_decay: weight decay by the loss; the optimizers that apply it beside their update leave
        none to the loss.
      temperature: by which logits are divided before they are compared with the teacher's.
      distill_weight: share of the teacher's term, 0..1, where there is a teacher; the labels'
        loss has the rest.
      scale: of the targets, if they are numbers; None: they are classes.
      focal_gamma: power of the focal loss; 0: cross-entropy.
      log_priors: float32 ``[K]``, added to the logits (logit adjustment); None: nothing.
    """

    loss_type: str
    label_smoothing: float
    weight_decay: WeightDecay
    temperature: float
    distill_weight: float
    scale: TargetScale | None = None
    focal_gamma: float = 0.0
    log_priors: np.ndarray | None = None

    def label_loss(
        self,
        logits: tf.Tensor,
        targets: tf.Tensor,
        *,
        global_batch_size: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the loss of these images, divided by the size of the global batch."""
        if self.scale is not None:
            targets = self.scale.standardise(targets)
        if self.log_priors is not None:
            logits = tf.cast(logits, tf.float32) + self.log_priors
        if self.focal_gamma:
            return focal_loss(
                logits,
                targets,
                loss_type=self.loss_type,
                gamma=self.focal_gamma,
                label_smoothing=self.label_smoothing,
                global_batch_size=global_batch_size,
                weights=weights,
            )
        return loss_function(self.loss_type)(
            logits,
            targets,
            label_smoothing=self.label_smoothing,
            global_batch_size=global_batch_size,
            weights=weights,
        )

    def distillation(
        self,
        logits: tf.Tensor,
        teacher_logits: tf.Tensor,
        *,
        global_batch_size: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the teacher's term for these images, before it is weighted."""
        return distillation_loss(
            logits,
            teacher_logits,
            loss_type=self.loss_type,
            temperature=self.temperature,
            global_batch_size=global_batch_size,
            weights=weights,
        )

    def weighted(self, label_loss: tf.Tensor, distillation: tf.Tensor) -> tf.Tensor:
        """Returns ``(1 - w) label_loss + w distillation``; w is ``distill_weight``."""
        weight = self.distill_weight
        return (1.0 - weight) * label_loss + weight * distillation

    def penalty(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the L2 term after ``step`` finished steps, a float32 scalar."""
        return self.weight_decay.l2_term(step)
