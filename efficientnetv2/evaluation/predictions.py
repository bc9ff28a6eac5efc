"""Stores a network's prediction for each image, and computes confusions and calibration error.

Needs NumPy only, no TensorFlow.
"""

from __future__ import annotations

import dataclasses

import numpy as np

BINS = 15  # of the calibration error, as in arXiv 1706.04599 (section 4)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions for N images; each array has one entry per image.

    Attributes:
      index: int64, the image's number in the split.
      label: int64, its true class.
      predicted: int64, the most likely class.
      confidence: float32, the probability of the predicted class, 0..1.
    """

    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Bool ``[N]``: which predictions are correct."""
        return self.label == self.predicted

    def confusion(self, num_classes: int) -> np.ndarray:
        """Counts the images of class i (row) that are predicted as j (column): int64 ``[K, K]``."""
        cells = self.label * num_classes + self.predicted
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    def mistakes(self, limit: int) -> Predictions:
        """Returns up to ``limit`` wrong predictions, the most confident first."""
        order = np.argsort(-self.confidence, kind="stable")
        chosen = order[~self.right[order]][:limit]
        return Predictions(*(values[chosen] for values in dataclasses.astuple(self)))


def calibration_error(predictions: Predictions) -> float:
    """Returns the expected calibration error, 0..1 (arXiv 1706.04599, equation 3).

    The confidences are put into 15 bins of equal width; the result is the mean distance between
    accuracy and confidence in a bin, weighted by its share of the images.
    """
    if not len(predictions.index):
        return 0.0
    confidence = np.float64(predictions.confidence)
    bins = np.clip(np.ceil(predictions.confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, predictions.right - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(predictions.index))


def merge_replicas(rows: np.ndarray, *, workers: int) -> Predictions:
    """Merges the predictions of all replicas and steps, in the order of the split.

    Args:
      rows: float32 ``[steps, replicas, b, 4]``: predicted class, confidence, label, and 1 for a
        real image. The replicas of a worker are neighbours and took turns with its batches; image
        n is in the shard of worker ``n % workers``.
      workers: the number of workers that shared the images.
    """
    steps, replicas, batch, _ = rows.shape
    per_worker = replicas // workers
    step, replica, row = np.ix_(range(steps), range(replicas), range(batch))
    place = (step * per_worker + replica % per_worker) * batch + row  # in the worker's shard
    index = place * workers + replica // per_worker
    real = rows[..., 3] > 0
    order = np.argsort(index[real])
    predicted, confidence, label = (rows[..., column][real][order] for column in range(3))
    return Predictions(
        index[real][order], np.int64(label), np.int64(predicted), np.float32(confidence)
    )
