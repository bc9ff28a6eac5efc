"""Measures how many points of accuracy a file loses, with a confidence interval.

The file and the float network see the same images, so the interval is one for paired proportions:
it depends on the images that one of them gets right and the other wrong, not on the accuracy.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from efficientnetv2.export.answers import Answers, FirstClass

_Z = 1.959964  # of 95%
_BISECTIONS = 50


@dataclasses.dataclass(frozen=True)
class PointsLost:
    """The accuracy that a file loses on N images, in percentage points.

    Attributes:
      points: the share of images that the float network gets right and the file wrong, less that of
        the opposite, times 100. Negative: the file is better.
      low: lower end of its 95% interval.
      high: upper end.
    """

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:.1f} points, 95% interval {self.low:.1f}..{self.high:.1f}"


def points_lost(
    answers: Answers, outputs: np.ndarray, expected: np.ndarray, labels: np.ndarray | None
) -> PointsLost:
    """Compares a file with the float network, image by image.

    Where each image has one class and labels are known, an image counts if one of the two gets it
    right and the other wrong. Otherwise an image counts, as lost, if the file's answer clearly
    differs from the float network's.

    Args:
      answers: compares outputs.
      outputs: of the file, ``[N, K]``.
      expected: of the float network, ``[N, K]``.
      labels: int ``[N]``, or those of other kinds of labels; None: not known.
    """
    if labels is not None and isinstance(answers, FirstClass):
        right, was_right = (values.argmax(axis=1) == labels for values in (outputs, expected))
        lost, gained = int((was_right & ~right).sum()), int((right & ~was_right).sum())
    else:
        lost, gained = int(answers.differ(outputs, expected)[1].sum()), 0
    low, high = paired_interval(lost, gained, count=len(outputs))
    points = 100 * (lost - gained) / len(outputs)
    return PointsLost(round(points, 4), round(100 * low, 4), round(100 * high, 4))


def paired_interval(lost: int, gained: int, *, count: int) -> tuple[float, float]:
    """Returns the 95% score interval of the difference of two paired proportions.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), equations 5 to 8. It also holds where
    few images differ, or none: of 360 equal answers, it is -1.1..1.1 points.

    Args:
      lost: images that only the first gets right.
      gained: images that only the second gets right.
      count: the number of all images.
    """

    def score(difference: float) -> float:
        # The most likely share of "gained", were this the true difference.
        b = -lost - gained + (2 * count - lost + gained) * difference
        c = -gained * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 8 * count * c, 0.0)) - b) / (4 * count)
        variance = count * (2 * share + difference * (1 - difference))
        return (lost - gained - count * difference) / math.sqrt(max(variance, 1e-300))

    estimate = (lost - gained) / count

    def end(target: float, outside: float) -> float:
        """The difference between the estimate and ``outside`` whose score is ``target``."""
        inside = estimate
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            if abs(score(middle)) < abs(target):
                inside = middle
            else:
                outside = middle
        return inside

    return end(_Z, -1.0), end(-_Z, 1.0)
