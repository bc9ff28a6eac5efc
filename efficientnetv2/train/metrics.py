"""Logits ``[B, K]`` and targets in; counts of right answers and running means out."""

from __future__ import annotations

import tensorflow as tf


def top_k_correct(logits: tf.Tensor, labels: tf.Tensor, *, k: int) -> tf.Tensor:
    """Returns bool ``[B]``: whether the label is among the k largest logits.

    Args:
      logits: ``[B, K]``.
      labels: int ``[B]``.
      k: at least 1; with K classes or more it is always right.
    """
    k = min(k, logits.shape[-1])
    return tf.math.in_top_k(tf.cast(labels, tf.int32), tf.cast(logits, tf.float32), k)


def any_in_top_k(logits: tf.Tensor, targets: tf.Tensor, *, k: int) -> tf.Tensor:
    """Returns bool ``[B]``: whether one of an image's labels is among the k largest logits.

    Args:
      logits: ``[B, K]``.
      targets: ``[B, K]``, 1 at each label and 0 elsewhere.
      k: at least 1; with K classes or more it is always right, if there is a label.
    """
    best = tf.math.top_k(logits, k=min(k, logits.shape[-1])).indices
    return tf.reduce_max(tf.gather(targets, best, batch_dims=1), -1) > 0


class TrainingMetrics(tf.Module):
    """Means of loss and top-1 accuracy over the steps since the last reset.

    The sums are variables, so that a checkpoint inside an epoch keeps them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loss = self._sum("loss")
        self._correct = self._sum("correct")
        self._images = self._sum("images")

    @staticmethod
    def _sum(name: str) -> tf.Variable:
        return tf.Variable(
            0.0,
            name=name,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    def update(self, *, loss_sum: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor) -> None:
        """Adds one replica's step.

        Args:
          loss_sum: loss summed over this replica's images.
          logits: ``[B, K]``.
          targets: ``[B, K]``; a mixed image counts as its largest part, and one of several labels
            as any of them; one without a label is never right.
        """
        chosen = tf.gather(targets, tf.argmax(logits, -1), batch_dims=1)
        hits = (chosen > 0) & (chosen >= tf.reduce_max(targets, -1))
        self._loss.assign_add(tf.cast(loss_sum, tf.float32))
        self._correct.assign_add(tf.reduce_sum(tf.cast(hits, tf.float32)))
        self._images.assign_add(tf.cast(tf.shape(logits)[0], tf.float32))

    def result(self) -> dict[str, float]:
        """Returns the means ``loss`` and ``accuracy`` (0..1)."""
        loss, correct, images = (
            float(tf.convert_to_tensor(variable))
            for variable in (self._loss, self._correct, self._images)
        )
        images = max(images, 1.0)
        return {"loss": loss / images, "accuracy": correct / images}

    def reset(self) -> None:
        """Forgets all steps so far."""
        for variable in (self._loss, self._correct, self._images):
            variable.assign(0.0)
