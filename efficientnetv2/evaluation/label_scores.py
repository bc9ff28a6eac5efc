"""Computes metrics and thresholds from all predictions, where an image may have several classes.

scikit-learn does the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from efficientnetv2.evaluation.predictions import FullPredictions
from hparams.label_kinds import DEFAULT_THRESHOLD


class ClassScore(NamedTuple):
    """How well one class is found.

    Attributes:
      name: of the class.
      images: number of images that have it.
      average_precision: area under the precision-recall curve, 0..1; NaN without such images.
      threshold: from which probability on an image has the class.
      precision: share of the images found that have it, 0..1; 0 if none is found.
      recall: share of the images that have it that are found, 0..1.
      f1: harmonic mean of both, 0..1.
    """

    name: str
    images: int
    average_precision: float
    threshold: float
    precision: float
    recall: float
    f1: float


def choose_thresholds(
    predictions: FullPredictions, *, min_precision: float | None = None
) -> np.ndarray:
    """Returns the threshold of each class that is best on these images, float64 ``[K]``.

    That is the one with the best F1; or, with ``min_precision``, the one with the highest recall
    among those with such a precision (if there is none, with the highest precision). It lies half
    way between two probabilities that it tells apart, so that rounding in an exported file changes
    nothing. A class without an image, or that all images have, gets the default.
    """
    from sklearn.metrics import precision_recall_curve  # takes a second

    thresholds = np.full(predictions.outputs.shape[1], DEFAULT_THRESHOLD)
    for number, (outputs, targets) in enumerate(zip(predictions.outputs.T, predictions.targets.T)):
        is_label = targets > 0
        if not 0 < is_label.sum() < len(is_label):
            continue
        precision, recall, cuts = precision_recall_curve(is_label, outputs)
        if min_precision is None:
            with np.errstate(invalid="ignore"):
                merit = np.nan_to_num(2 * precision * recall / (precision + recall))
        else:
            # Recall is below 1 or 1: what is precise enough comes before all that is not.
            merit = np.where(precision >= min_precision, 2 + recall, precision)
        cut = cuts[int(merit[:-1].argmax())]
        below = outputs[outputs < cut]
        thresholds[number] = (cut + (below.max() if below.size else 0.0)) / 2
    return thresholds


def label_metrics(predictions: FullPredictions, thresholds: np.ndarray) -> dict[str, float]:
    """Returns mean average precision, micro average precision and macro F1, 0..1.

    The first is the mean over the classes that have images, the second over all pairs of image and
    class (scikit-learn's ``average_precision_score``, macro and micro).
    """
    from sklearn.metrics import average_precision_score

    names = [""] * len(thresholds)
    scores = [score for score in class_scores(predictions, names, thresholds) if score.images]
    if not scores:
        return {"map": 0.0, "ap_micro": 0.0, "macro_f1": 0.0}
    is_label = predictions.targets > 0
    return {
        "map": float(np.mean([score.average_precision for score in scores])),
        "ap_micro": float(average_precision_score(is_label, predictions.outputs, average="micro")),
        "macro_f1": float(np.mean([score.f1 for score in scores])),
    }


def with_label_metrics(
    metrics: Mapping[str, dict[str, float]],
    predictions: Mapping[str, object],
    thresholds: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Returns metrics of several weights, with those of ``label_metrics``.

    Args:
      metrics: "raw" and "ema" -> the metrics of these weights.
      predictions: likewise; those of images of one class change nothing.
      thresholds: ``[K]``.
    """
    added = {}
    for name, values in metrics.items():
        found = predictions.get(name)
        added[name] = dict(values)
        if isinstance(found, FullPredictions):
            added[name].update(label_metrics(found, thresholds))
    return added


def class_scores(
    predictions: FullPredictions, names: list[str], thresholds: np.ndarray
) -> list[ClassScore]:
    """Returns the score of each class, in the order of the names.

    Args:
      predictions: of N images.
      names: of the K classes.
      thresholds: ``[K]``.
    """
    from sklearn.metrics import average_precision_score

    scores = []
    for name, outputs, targets, threshold in zip(
        names, predictions.outputs.T, predictions.targets.T, thresholds
    ):
        is_label, is_found = targets > 0, outputs >= threshold
        images, found, right = (
            int(is_label.sum()),
            int(is_found.sum()),
            int((is_label & is_found).sum()),
        )
        average = float(average_precision_score(is_label, outputs)) if images else float("nan")
        scores.append(
            ClassScore(
                name,
                images,
                average,
                float(threshold),
                precision=right / found if found else 0.0,
                recall=right / images if images else 0.0,
                f1=2 * right / (images + found) if images + found else 0.0,
            )
        )
    return scores
