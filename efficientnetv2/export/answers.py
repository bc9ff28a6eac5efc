"""Compares the outputs of an exported file with the Keras model's, for each kind of labels."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping

import numpy as np

from hparams.label_kinds import NUMBERS, ONE, SEVERAL

_TIE = 0.01  # of the largest output: between two classes this close, rounding decides
_SAME = 0.05  # deviations: numbers this close are the same
_CLEAR = 0.1  # deviations: numbers further apart differ clearly


@dataclasses.dataclass(frozen=True)
class Answers(abc.ABC):
    """How the outputs of a file are compared and scored.

    Attributes:
      levels: ``[K]``: the threshold of each class where an image may have several, the deviation of
        each number; else not used.
      title: of the score.
      same: title of the share of images with the same answer.
      other: what a file gives for the other images, in a message.
    """

    levels: np.ndarray
    title = ""
    same = ""
    other = ""

    def unit(self, expected: np.ndarray) -> np.ndarray:
        """Returns the unit of differences, a number or ``[K]``: the largest output.

        That is at least 1, so probabilities are measured as they are.
        """
        return np.array(max(1.0, float(np.abs(expected).max())))

    @abc.abstractmethod
    def differ(self, outputs: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns bool ``[N]`` twice: which answers differ, and which differ clearly.

        Args:
          outputs: of the file, ``[N, K]``.
          expected: of the Keras model, ``[N, K]``.
        """

    @abc.abstractmethod
    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Returns how good the outputs are, at most 1."""


class FirstClass(Answers):
    """For images of one class: compares the most likely class; the score is top-1 accuracy."""

    title = "top-1"
    same = "same first class"
    other = "another class"

    def differ(self, outputs: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clearly: the Keras model prefers its own first class to the file's by more than a tie."""
        top1 = outputs.argmax(axis=1)
        chosen = np.take_along_axis(expected, top1[:, np.newaxis], axis=1)[:, 0]
        gap = expected.max(axis=1) - chosen
        return gap > 0, gap > _TIE * self.unit(expected)

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Returns the share of images whose likeliest class is ``labels`` ``[N]``."""
        return float((outputs.argmax(axis=1) == labels).mean())


class ClassesAboveThresholds(Answers):
    """For images of several classes: compares those above their thresholds; scores micro F1."""

    title = "F1"
    same = "same classes"
    other = "other classes"

    def differ(self, outputs: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A class is on the other side of its threshold; clearly: for Keras by more than a tie."""
        other = (outputs >= self.levels) != (expected >= self.levels)
        clear = other & (np.abs(expected - self.levels) > _TIE * self.unit(expected))
        return other.any(axis=1), clear.any(axis=1)

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Returns the F1 over all pairs of image and class; ``labels`` ``[N, K]`` are above 0."""
        found, true = outputs >= self.levels, labels > 0
        return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


class Numbers(Answers):
    """For images with numbers: compares to a twentieth of their deviation; the score is R2."""

    title = "R2"
    same = "same numbers"
    other = "other numbers"

    def unit(self, expected: np.ndarray) -> np.ndarray:
        """Returns the deviation of each number."""
        del expected
        return self.levels

    def differ(self, outputs: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A number is off by more than a twentieth of its deviation; clearly: by a tenth."""
        distance = np.abs((outputs - expected) / self.levels).max(axis=1)
        return distance > _SAME, distance > _CLEAR

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Returns R2, the mean over the numbers; ``labels`` are ``[N, T]``."""
        errors = ((outputs - labels) ** 2).sum(axis=0)
        spread = ((labels - labels.mean(axis=0)) ** 2).sum(axis=0)
        return float(np.mean(1 - errors / np.maximum(spread, 1e-12)))


ANSWERS: Mapping[str, type[Answers]] = {
    ONE: FirstClass,
    SEVERAL: ClassesAboveThresholds,
    NUMBERS: Numbers,
}
