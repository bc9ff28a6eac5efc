"""What a network said of each image of a split, and what follows from it. No TensorFlow."""

from __future__ import annotations

import dataclasses

import numpy as np

BINS = 15  # of the calibration error, as arXiv 1706.04599 (section 4) has it


@dataclasses.dataclass(frozen=True)
class Answers:
    """One answer an image; all arrays have N entries.

    Attributes:
      index: int64, the image's number in the split.
      label: int64, its class.
      predicted: int64, the class that the network gives most.
      confidence: float32, the probability that it gives that class, 0..1.
    """

    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Bool ``[N]``: which images were named right."""
        return self.label == self.predicted

    def confusion(self, num_classes: int) -> np.ndarray:
        """Returns int64 ``[K, K]``: row i, column j: images of class i that were taken for j."""
        cells = self.label * num_classes + self.predicted
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    def mistakes(self, most: int) -> Answers:
        """Returns the wrong answers of the highest confidence, the most confident first."""
        order = np.argsort(-self.confidence, kind="stable")
        chosen = order[~self.right[order]][:most]
        return Answers(*(values[chosen] for values in dataclasses.astuple(self)))


def calibration_error(answers: Answers) -> float:
    """Returns the expected calibration error, 0..1 (arXiv 1706.04599, equation 3).

    Over 15 bins of equal width: the distance of accuracy and mean confidence in each, weighted by
    its share of the images.
    """
    if not len(answers.index):
        return 0.0
    bins = np.clip(np.ceil(answers.confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, answers.right - np.float64(answers.confidence), minlength=BINS)
    return float(np.abs(gap).sum() / len(answers.index))


def in_order(rows: np.ndarray, *, workers: int) -> Answers:
    """Puts together what all replicas said in all steps.

    Args:
      rows: float32 ``[steps, replicas, b, 4]``: predicted class, confidence, label, and whether the
        image is real. The replicas of a worker stand together and took turns with its batches;
        image n is in the share of worker n modulo their number.
      workers: that shared the images.
    """
    steps, replicas, batch, _ = rows.shape
    own = replicas // workers
    step, replica, row = np.ix_(range(steps), range(replicas), range(batch))
    place = (step * own + replica % own) * batch + row
    index = place * workers + replica // own
    real = rows[..., 3] > 0
    order = np.argsort(index[real])
    predicted, confidence, label = (rows[..., column][real][order] for column in range(3))
    return Answers(index[real][order], np.int64(label), np.int64(predicted), np.float32(confidence))
