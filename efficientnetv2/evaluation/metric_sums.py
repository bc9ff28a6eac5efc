"""Computes the metrics of an evaluation from sums over images, for each kind of labels.

Sums of several batches and replicas may be added up, so no image's result has to be kept. XLA
requires that no shape depends on a value.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow as tf

from efficientnetv2.evaluation.predictions import FullPredictions, Predictions
from efficientnetv2.train.losses import loss_function, probabilities
from efficientnetv2.train.metrics import any_in_top_k, top_k_correct
from efficientnetv2.train.target_scale import TargetScale
from hparams.choices import LOSSES

_PADDING_LOGIT = -1e4  # of a padding image: as its targets are 0, its loss is 0
_THRESHOLDS = 200  # of the precision-recall curve, evenly spaced in 0..1
_KS = (1, 5)
_EQUAL = 1e-4  # a spread that is a smaller share of the squares is that of float32's rounding
_SMALLEST, _ROUNDING = 1e-38, 1e-7  # of probabilities in float32: above 0, and below 1


@dataclasses.dataclass(frozen=True)
class MetricSums(abc.ABC):
    """The metrics of one kind of labels.

    Attributes:
      loss_type: a row of ``hparams.choices.LOSSES``.
      predictions: what is kept of each image, if it is wanted.
    """

    loss_type: str
    predictions: ClassVar[type[Predictions] | type[FullPredictions]] = FullPredictions

    @abc.abstractmethod
    def num_sums(self, num_outputs: int) -> int:
        """Returns how many values ``sums`` returns for a network with so many outputs."""

    def outputs(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the network's predictions: probabilities, or numbers in the user's unit."""
        return probabilities(logits, self.loss_type)

    def rows(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Returns outputs, targets, and 1 for a real image: float32 ``[B, 2 K + 1]``."""
        flags = tf.cast(is_real, tf.float32)[:, tf.newaxis]
        return tf.concat([self.outputs(logits), targets, flags], -1)

    def merged(self, logits: tf.Tensor) -> tf.Tensor:
        """Merges views of images ``[B, V, K]``: logits ``[B, K]`` whose outputs are the means."""
        outputs = tf.reduce_mean(self.outputs(tf.cast(logits, tf.float32)), 1)
        outputs = tf.maximum(outputs, _SMALLEST)
        if LOSSES[self.loss_type].shares_target:
            return tf.math.log(outputs)
        return tf.math.log(outputs) - tf.math.log1p(-tf.minimum(outputs, 1 - _ROUNDING))

    def of_views(
        self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ``sums`` and ``rows`` of logits of several views of each image, ``[B, V, K]``."""
        merged = self.merged(logits)
        return self.sums(merged, targets, is_real), self.rows(merged, targets, is_real)

    @abc.abstractmethod
    def sums(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Returns sums over the real images, a float32 vector whose first value is their number.

        Args:
          logits: ``[B, K]``.
          targets: ``[B, K]``, as training has them.
          is_real: bool ``[B]``; False marks padding, whose targets are 0.
        """

    @abc.abstractmethod
    def means(self, sums: np.ndarray) -> dict[str, float]:
        """Returns the metrics, from sums over at least one image."""

    def result(self, sums: np.ndarray) -> dict[str, float]:
        """Returns ``images`` (their number) and the metrics; all 0 without images."""
        return {"images": int(sums[0]), **self.means(sums)}

    def loss(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Returns the sum of the losses of the real images, without label smoothing."""
        logits = tf.where(is_real[:, tf.newaxis], logits, _PADDING_LOGIT)
        loss: tf.Tensor = loss_function(self.loss_type)(
            logits, targets, label_smoothing=0.0, global_batch_size=1
        )
        return loss


class ClassMetrics(MetricSums):
    """For images of one class: loss, top-1, top-5, balanced accuracy and macro F1."""

    predictions: ClassVar[type[Predictions] | type[FullPredictions]] = Predictions

    def num_sums(self, num_outputs: int) -> int:
        """Four, and three for each class."""
        return 4 + 3 * num_outputs

    def rows(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Predicted class, its probability, the label, 1 for a real image: float32 ``[B, 4]``."""
        columns = [
            tf.argmax(logits, -1),
            tf.reduce_max(self.outputs(logits), -1),
            tf.argmax(targets, -1),
            is_real,
        ]
        return tf.stack([tf.cast(column, tf.float32) for column in columns], -1)

    def sums(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Number, loss, top-1 and top-5; by class: images, right ones, those predicted as it."""
        labels = tf.argmax(targets, -1)
        if LOSSES[self.loss_type].shares_target:
            hits = [top_k_correct(logits, labels, k=k) for k in _KS]
        else:
            hits = [any_in_top_k(logits, targets, k=k) for k in _KS]
        counts = [_count(hit & is_real) for hit in hits]
        num_classes = logits.shape[-1]
        true, predicted = (
            tf.one_hot(classes, num_classes) * tf.cast(is_real, tf.float32)[:, tf.newaxis]
            for classes in (labels, tf.argmax(logits, -1))
        )
        by_class = [tf.reduce_sum(values, 0) for values in (true, true * predicted, predicted)]
        head = tf.stack([_count(is_real), self.loss(logits, targets, is_real), *counts])
        return tf.concat([head, *by_class], 0)

    def means(self, sums: np.ndarray) -> dict[str, float]:
        """Returns loss, top1, top5, balanced_accuracy and macro_f1 (0..1 but the loss).

        Balanced accuracy is the mean recall of the classes that have images; macro F1 the mean F1
        of the classes that have images or are predicted.
        """
        images, *totals = map(float, sums[:4])
        loss, top1, top5 = (total / max(images, 1.0) for total in totals)
        true, right, predicted = np.split(np.asarray(sums[4:], np.float64), 3)
        recall = right[true > 0] / true[true > 0]
        seen = true + predicted > 0
        f1 = 2 * right[seen] / (true + predicted)[seen]
        return {
            "loss": loss,
            "top1": top1,
            "top5": top5,
            "balanced_accuracy": float(recall.mean()) if recall.size else 0.0,
            "macro_f1": float(f1.mean()) if f1.size else 0.0,
        }


class ScoredClassMetrics(ClassMetrics):
    """The same, and of each image the scores of all classes are kept."""

    predictions = FullPredictions
    rows = MetricSums.rows


class LogitMetrics(ScoredClassMetrics):
    """The same, with logits in place of scores."""

    def outputs(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the logits."""
        return tf.cast(logits, tf.float32)


@dataclasses.dataclass(frozen=True)
class CalibratedClassMetrics(ClassMetrics):
    """As ``ClassMetrics``, and the calibrated probability of each predicted class is kept.

    Attributes:
      temperature: by which the logits are divided for it.
    """

    temperature: float

    def num_sums(self, num_outputs: int) -> int:
        """Those of ``ClassMetrics``, and the loss."""
        return super().num_sums(num_outputs) + 1

    def sums(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Those of ``ClassMetrics``, and the loss with the temperature."""
        return self._sums(logits, self._divided(logits), targets, is_real)

    def _divided(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.cast(logits, tf.float32) / self.temperature

    def _sums(
        self, logits: tf.Tensor, calibrated: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tf.Tensor:
        loss = self.loss(calibrated, targets, is_real)
        return tf.concat([super().sums(logits, targets, is_real), loss[tf.newaxis]], 0)

    def of_views(
        self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As ``MetricSums``: the probabilities of each view are calibrated before the mean."""
        pair = self.merged(logits), self.merged(self._divided(logits))
        return self._sums(*pair, targets, is_real), self._rows(*pair, targets, is_real)

    def means(self, sums: np.ndarray) -> dict[str, float]:
        """Returns those of ``ClassMetrics``, and nll_calibrated: the loss with the temperature."""
        calibrated = float(sums[-1]) / max(float(sums[0]), 1.0)
        return {**super().means(sums[:-1]), "nll_calibrated": calibrated}

    def rows(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Those of ``ClassMetrics``, with the calibrated probability in column 3: ``[B, 5]``."""
        return self._rows(logits, self._divided(logits), targets, is_real)

    def _rows(
        self, logits: tf.Tensor, calibrated: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tf.Tensor:
        *columns, flags = tf.unstack(super().rows(logits, targets, is_real), axis=-1)
        return tf.stack([*columns, tf.reduce_max(self.outputs(calibrated), -1), flags], -1)


class LabelMetrics(MetricSums):
    """For images of several classes: loss, top-1, top-5 (any label counts), precision, recall."""

    def num_sums(self, num_outputs: int) -> int:
        """Eight, and two histograms."""
        del num_outputs
        return 4 + 2 + len(_KS) + 2 * _THRESHOLDS

    def sums(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Number, loss, top-1, top-5, and the sums of ``multi_label_sums``."""
        counts = [_count(any_in_top_k(logits, targets, k=k) & is_real) for k in _KS]
        head = tf.stack([_count(is_real), self.loss(logits, targets, is_real), *counts])
        return tf.concat([head, multi_label_sums(logits, targets, is_real)], 0)

    def means(self, sums: np.ndarray) -> dict[str, float]:
        """Returns loss, top1 and top5, and those of ``multi_label_result``."""
        images, *totals = map(float, sums[:4])
        loss, top1, top5 = (total / max(images, 1.0) for total in totals)
        return {"loss": loss, "top1": top1, "top5": top5, **multi_label_result(sums[4:])}


@dataclasses.dataclass(frozen=True)
class NumberMetrics(MetricSums):
    """For images with numbers: loss, mean absolute error, root of the mean squared error, R2.

    Attributes:
      scale: of the T numbers.
    """

    scale: TargetScale

    def merged(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the means over the views."""
        return tf.reduce_mean(tf.cast(logits, tf.float32), 1)

    def num_sums(self, num_outputs: int) -> int:
        """Two, and four for each number."""
        return 2 + 4 * num_outputs

    def outputs(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the numbers in the user's unit."""
        return self.scale.restore(tf.cast(logits, tf.float32))

    def sums(self, logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        """Number and loss; by number: absolute and squared errors, numbers and their squares.

        All in deviations of the training images, so that no digit is lost.
        """
        real = tf.cast(is_real, tf.float32)[:, tf.newaxis]
        scaled = self.scale.standardise(targets) * real
        errors = logits * real - scaled
        loss = loss_function(self.loss_type)(
            logits * real, scaled, label_smoothing=0.0, global_batch_size=1
        )
        by_number = [tf.abs(errors), tf.square(errors), scaled, tf.square(scaled)]
        sums = [tf.reduce_sum(values, 0) for values in by_number]
        return tf.concat([tf.stack([_count(is_real), loss]), *sums], 0)

    def means(self, sums: np.ndarray) -> dict[str, float]:
        """Returns loss, mae and rmse (in the user's unit) and r2, each the mean over the numbers.

        R2 is 1 for perfect predictions, and 0 for the mean of these images, or if all have the same
        number.
        """
        result = self.by_number(sums)
        loss = float(sums[1]) / max(float(sums[0]), 1.0)
        return {"loss": loss, **{name: float(values.mean()) for name, values in result.items()}}

    def by_number(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Returns mae, rmse and r2 of each number, float64 ``[T]``."""
        count = max(float(sums[0]), 1.0)
        absolute, squared, first, second = np.split(np.asarray(sums[2:], np.float64), 4)
        deviation = np.array(self.scale.deviation)
        spread = second - first**2 / count
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(spread > _EQUAL * second, 1 - squared / spread, 0.0)
        return {
            "mae": absolute / count * deviation,
            "rmse": np.sqrt(squared / count) * deviation,
            "r2": r2,
        }


def metric_sums(
    loss_type: str,
    *,
    multi_label: bool,
    scale: TargetScale | None,
    with_scores: bool = False,
    with_logits: bool = False,
    temperature: float | None = None,
) -> MetricSums:
    """Returns the metrics of one kind of labels.

    Args:
      loss_type: a row of ``hparams.choices.LOSSES``.
      multi_label: whether images have any number of labels.
      scale: of the targets, if they are numbers; None: they are classes.
      with_scores: whether predictions have the scores of all classes, also where an image has one.
      with_logits: whether they have logits; where an image has one class only.
      temperature: of calibrated probabilities, where an image has one class; None: none are kept.
    """
    if scale is not None:
        return NumberMetrics(loss_type, scale)
    if multi_label:
        return LabelMetrics(loss_type)
    if with_logits:
        return LogitMetrics(loss_type)
    if with_scores:
        return ScoredClassMetrics(loss_type)
    if temperature is not None:
        return CalibratedClassMetrics(loss_type, temperature)
    return ClassMetrics(loss_type)


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.float32))


def multi_label_sums(
    logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the sums over images from which ``multi_label_result`` computes its metrics.

    Sums of several batches and replicas may be added up.

    Args:
      logits: ``[B, K]``; their sigmoid is the probability of each class.
      targets: ``[B, K]``, above 0 at each label and 0 elsewhere.
      is_real: bool ``[B]``; False marks padding, which has no label and does not count. None: all
        images count.

    Returns:
      float32 vector: number of images; number of labels; number of labels among the 1 and the 5
      largest logits; histogram of the probabilities of labels; histogram of the probabilities of
      other classes.
    """
    weight = tf.ones(tf.shape(logits)[0]) if is_real is None else tf.cast(is_real, tf.float32)
    is_label = tf.cast(targets > 0, tf.float32)
    labels = tf.reduce_sum(is_label)
    hits = []
    for k in _KS:
        best = tf.math.top_k(logits, k=min(k, logits.shape[-1])).indices
        hits.append(tf.reduce_sum(tf.gather(is_label, best, batch_dims=1)))
    bucket = tf.cast(tf.sigmoid(tf.cast(logits, tf.float32)) * _THRESHOLDS, tf.int32)
    bucket = tf.minimum(bucket, _THRESHOLDS - 1)
    counts = [
        tf.math.bincount(bucket, weights=weights, minlength=_THRESHOLDS, maxlength=_THRESHOLDS)
        for weights in (is_label, (1.0 - is_label) * weight[:, tf.newaxis])
    ]
    return tf.concat([tf.stack([tf.reduce_sum(weight), labels, *hits]), *counts], 0)


def multi_label_result(sums: np.ndarray) -> dict[str, float]:
    """Returns precision and recall at 1 and 5, and the area under the precision-recall curve.

    All are micro-averaged: over all images and classes together. The area is the average precision,
    the sum of precision times increase of recall, of probabilities rounded down to 1/200.

    Args:
      sums: from ``multi_label_sums``, added up over any number of images.
    """
    images, labels, *hits = sums[: 2 + len(_KS)]
    positives, negatives = np.split(np.asarray(sums[2 + len(_KS) :], np.float64), 2)
    right, wrong = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    precision = right / np.maximum(right + wrong, 1.0)
    result = {"pr_auc": float(precision @ positives[::-1] / max(labels, 1.0))}
    for k, hit in zip(_KS, hits):
        result[f"precision_at_{k}"] = float(hit / max(k * images, 1.0))
        result[f"recall_at_{k}"] = float(hit / max(labels, 1.0))
    return result
