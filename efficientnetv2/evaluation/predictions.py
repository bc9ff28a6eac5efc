"""Stores a network's predictions for images, and computes confusions and calibration error.

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
      calibrated: float32, the same, calibrated; None: there is no temperature.
    """

    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    calibrated: np.ndarray | None = None

    @classmethod
    def from_rows(cls, index: np.ndarray, rows: np.ndarray) -> Predictions:
        """Returns the predictions in rows, ``[N, 3]`` or ``[N, 4]``.

        Their columns: predicted class, confidence, label; calibrated confidence.
        """
        predicted, confidence, label, *more = rows.T
        calibrated = np.float32(more[0]) if more else None
        return cls(index, np.int64(label), np.int64(predicted), np.float32(confidence), calibrated)

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
        columns = vars(self).items()
        return Predictions(
            **{name: values[chosen] for name, values in columns if values is not None}
        )

    def as_calibrated(self) -> Predictions | None:
        """Returns the same with calibrated confidences; None: there is no temperature."""
        if self.calibrated is None:
            return None
        return dataclasses.replace(self, confidence=self.calibrated)


@dataclasses.dataclass(frozen=True)
class FullPredictions:
    """All outputs of a network for N images, of several classes each or of numbers.

    Attributes:
      index: int64 ``[N]``, the image's number in the split.
      outputs: float32 ``[N, K]``, the probability of each class, 0..1, or the numbers.
      targets: float32 ``[N, K]``, above 0 at each class of the image, or the true numbers.
    """

    index: np.ndarray
    outputs: np.ndarray
    targets: np.ndarray

    @classmethod
    def from_rows(cls, index: np.ndarray, rows: np.ndarray) -> FullPredictions:
        """Returns the predictions in rows of outputs and targets: ``[N, 2 K]``."""
        outputs, targets = np.split(rows, 2, axis=1)
        return cls(index, outputs, targets)


def calibration_error(predictions: Predictions) -> float:
    """Returns the expected calibration error, 0..1 (arXiv 1706.04599, equation 3).

    The confidences are put into 15 bins of equal width; the result is the mean distance between
    accuracy and confidence in a bin, weighted by its share of the images.
    """
    if not len(predictions.index):
        return 0.0
    gaps = [count * abs(right - mean) for _, _, count, mean, right in calibration_bins(predictions)]
    return float(sum(gaps) / len(predictions.index))


def calibration_bins(predictions: Predictions) -> list[tuple[float, float, int, float, float]]:
    """Returns, of 15 ranges of confidence: its ends, its images, their confidence and accuracy.

    The last two are means, 0 where there is no image.
    """
    confidence = np.float64(predictions.confidence)
    bins = np.clip(np.ceil(predictions.confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    means = [
        np.bincount(bins, values, minlength=BINS) / np.maximum(counts, 1)
        for values in (confidence, predictions.right)
    ]
    return [
        (number / BINS, (number + 1) / BINS, int(count), float(mean), float(right))
        for number, (count, mean, right) in enumerate(zip(counts, *means))
    ]


def merge_replicas(rows: np.ndarray, *, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Merges what is known of each image by all replicas and steps, in the order of the split.

    Args:
      rows: float32 ``[steps, replicas, b, C + 1]``: C values, and 1 for a real image. The replicas
        of a worker are neighbours and took turns with its batches; image n is in the shard of
        worker ``n % workers``.
      workers: the number of workers that shared the images.

    Returns:
      The number of each image in the split, int64 ``[N]``, rising; and its values ``[N, C]``. Those
      of images that ``data.on_bad_image=skip`` leaves out are missing.
    """
    steps, replicas, batch, _ = rows.shape
    per_worker = replicas // workers
    step, replica, row = np.ix_(range(steps), range(replicas), range(batch))
    place = (step * per_worker + replica % per_worker) * batch + row  # in the worker's shard
    index = place * workers + replica // per_worker
    real = rows[..., -1] > 0
    order = np.argsort(index[real])
    return index[real][order], rows[real][order][:, :-1]
