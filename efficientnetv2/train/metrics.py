"""Computes accuracies, and running means during training."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from efficientnetv2.train.target_scale import TargetScale


def top_k_correct(logits: tf.Tensor, labels: tf.Tensor, *, k: int) -> tf.Tensor:
    """Returns bool ``[B]``: whether the label is among the k largest logits.

    Args:
      logits: ``[B, K]``.
      labels: int ``[B]``.
      k: at least 1; if k >= K, the result is always True.
    """
    k = min(k, logits.shape[-1])
    return tf.math.in_top_k(tf.cast(labels, tf.int32), tf.cast(logits, tf.float32), k)


def any_in_top_k(logits: tf.Tensor, targets: tf.Tensor, *, k: int) -> tf.Tensor:
    """Returns bool ``[B]``: whether one of an image's labels is among the k largest logits.

    Args:
      logits: ``[B, K]``.
      targets: ``[B, K]``, 1 at each label and 0 elsewhere.
      k: at least 1; if k >= K, the result is True for each image that has a label.
    """
    best = tf.math.top_k(logits, k=min(k, logits.shape[-1])).indices
    return tf.reduce_max(tf.gather(targets, best, batch_dims=1), -1) > 0


class TrainingMetrics(tf.Module):
    """Means of loss, top-1 accuracy and gradient norm over the steps since the last reset.

    The sums are variables, so that they are part of a checkpoint that is saved during an epoch.

    Args:
      with_teacher: whether there is a teacher, whose term of the loss and accuracy count too.
      scale: of the targets, if they are numbers; then the mean absolute error, in the user's unit,
        takes the place of the accuracy. None: they are classes.
    """

    def __init__(self, *, with_teacher: bool = False, scale: TargetScale | None = None) -> None:
        super().__init__()
        self._scale = scale
        self._strategy = tf.distribute.get_strategy()
        self._loss = self._sum("loss")
        self._correct = self._sum("correct")
        self._images = self._sum("images")
        self._gradient_norm = self._sum("gradient_norm")
        self._updates = self._sum("updates")
        # Only with a teacher: other checkpoints have no value for these.
        self._of_teacher: tuple[tf.Variable, ...] = ()
        if with_teacher:
            self._of_teacher = self._sum("distillation"), self._sum("teacher_correct")

    @staticmethod
    def _sum(name: str) -> tf.Variable:
        return tf.Variable(
            0.0,
            name=name,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    def update_gradient(self, gradient_norm: tf.Tensor) -> None:
        """Adds the gradient norm of one replica's update; call it once per update and replica.

        One that is not finite, such as of a step that the loss scaling of float16 skips, would be
        all that the mean says, and is left out.
        """
        is_finite = tf.math.is_finite(gradient_norm)
        self._gradient_norm.assign_add(tf.where(is_finite, gradient_norm, 0.0))
        self._updates.assign_add(tf.cast(is_finite, tf.float32))

    def update(self, *, loss_sum: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor) -> None:
        """Adds one replica's step.

        Args:
          loss_sum: cross-entropy summed over this replica's images.
          logits: ``[B, K]``.
          targets: ``[B, K]``. For a mixed image the class with the largest target is correct, for
            an image with several labels each of them, and for one without a label none.
        """
        self._loss.assign_add(tf.cast(loss_sum, tf.float32))
        self._correct.assign_add(self._score(logits, targets))
        self._images.assign_add(tf.cast(tf.shape(logits)[0], tf.float32))

    def _score(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns the number of images that are right, or the sum of their errors."""
        if self._scale is None:
            return _num_correct(logits, targets)
        errors = tf.abs(self._scale.restore(tf.cast(logits, tf.float32)) - targets)
        return tf.reduce_sum(tf.reduce_mean(errors, -1))

    def update_teacher(
        self, *, distillation_sum: tf.Tensor, teacher_logits: tf.Tensor, targets: tf.Tensor
    ) -> None:
        """Adds what a teacher said in one replica's step, besides ``update``.

        Args:
          distillation_sum: the teacher's term of the loss, summed over this replica's images.
          teacher_logits: ``[B, K]``.
          targets: as in ``update``.
        """
        distillation, correct = self._of_teacher
        distillation.assign_add(tf.cast(distillation_sum, tf.float32))
        correct.assign_add(_num_correct(teacher_logits, targets))

    def result(self) -> dict[str, float]:
        """Returns the means ``loss``, ``accuracy`` (0..1; of numbers ``mae``), ``gradient_norm``.

        With a teacher also ``distillation``, its term of the loss, and ``teacher_accuracy``.
        """
        return self._means(lambda variable: float(tf.convert_to_tensor(variable)))

    def local_result(self) -> dict[str, float]:
        """Returns the same over the devices of this process only, without any communication."""
        local_values = self._strategy.experimental_local_results
        return self._means(lambda variable: sum(float(value) for value in local_values(variable)))

    def _means(self, total: Callable[[tf.Variable], float]) -> dict[str, float]:
        loss, correct, images, norm, updates, *of_teacher = map(total, self._variables_in_order())
        images, updates = max(images, 1.0), max(updates, 1.0)
        names = ("distillation", "teacher_accuracy")
        return {
            "loss": loss / images,
            "accuracy" if self._scale is None else "mae": correct / images,
            "gradient_norm": norm / updates,
            **{name: value / images for name, value in zip(names, of_teacher)},
        }

    def _variables_in_order(self) -> tuple[tf.Variable, ...]:
        always = self._loss, self._correct, self._images, self._gradient_norm, self._updates
        return (*always, *self._of_teacher)

    def reset(self) -> None:
        """Forgets all steps so far."""
        for variable in self._variables_in_order():
            variable.assign(0.0)


def _num_correct(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns how many images are right as ``TrainingMetrics.update`` counts, float32 scalar."""
    chosen = tf.gather(targets, tf.argmax(logits, -1), batch_dims=1)
    hits = (chosen > 0) & (chosen >= tf.reduce_max(targets, -1))
    return tf.reduce_sum(tf.cast(hits, tf.float32))
