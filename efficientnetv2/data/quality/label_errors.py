"""Finds labels that are probably wrong, from what a pretrained network sees in the images.

Confident learning (Northcutt et al., arXiv 1911.00068, section 3): a simple classifier is trained
on the network's features, and says of each image what it is without having seen its label. An image
is suspect if that is another class, by a wide margin, and the classifier is at least half as sure
as it usually is of images that do have that label. The classifier and its folds are scikit-learn's.

"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

_FOLDS = 5
_COMPONENTS = 128  # of the features: enough for hundreds of classes, and quick
_ITERATIONS = 300
_SURE = 0.5  # of the usual probability of a class: 1 (the paper's) misses a quarter more errors
_MARGIN = 5  # times as probable as the class of the label


@dataclasses.dataclass(frozen=True)
class SuspectLabel:
    """An image whose label is probably wrong.

    Attributes:
      image: number of the image.
      suggestion: number of the class that it seems to be.
      probability: of that class, 0..1.
      own_probability: of the class that it is labelled as.
    """

    image: int
    suggestion: int
    probability: float
    own_probability: float


def find_label_errors(
    features: np.ndarray, labels: Sequence[Any], groups: Sequence[int] | np.ndarray
) -> list[SuspectLabel]:
    """Returns the images whose labels are probably wrong, the surest first.

    Args:
      features: float32 ``[N, F]``, of a network that has not been trained on these labels.
      labels: N numbers of classes.
      groups: N numbers; images of one group, such as copies, are never used to judge each other.

    Returns:
      Nothing if there are fewer than two classes or groups to learn from, also without the images
      of any group.
    """
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    folds = min(_FOLDS, len(np.unique(groups)), int(np.bincount(numbers).max(initial=0)))
    if len(classes) < 2 or folds < 2:
        return []
    probabilities = _out_of_fold(np.float32(features), numbers, groups, folds)
    if probabilities is None:
        return []
    own = probabilities[np.arange(len(numbers)), numbers]
    counts = np.bincount(numbers)
    usual = np.bincount(numbers, own) / counts  # how sure it is of images of each class
    confident = np.where(probabilities >= np.maximum(_SURE * usual, 1e-6), probabilities, 0)
    guess = confident.argmax(1)
    highest = confident.max(1)
    is_suspect = (guess != numbers) & (highest > _MARGIN * own)
    order = np.argsort(own - highest, kind="stable")
    return [
        SuspectLabel(int(n), int(classes[guess[n]]), float(highest[n]), float(own[n]))
        for n in order
        if is_suspect[n]
    ]


def _out_of_fold(
    features: np.ndarray, labels: np.ndarray, groups: Sequence[int] | np.ndarray, folds: int
) -> np.ndarray | None:
    """Returns float64 ``[N, K]``: probabilities by a classifier that has not seen the image.

    None: without the images that it is asked about, it would learn from a single class.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fewest = len(labels) - -(-len(labels) // folds) - 1  # images in a training part, at the least
    components = max(1, min(_COMPONENTS, features.shape[1], fewest // 2))
    classifier = make_pipeline(
        StandardScaler(),
        PCA(components, svd_solver="randomized", random_state=0),
        LogisticRegression(C=0.1, max_iter=_ITERATIONS),
    )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may be rarer than there are folds
        parts = list(splitter.split(features, labels, groups))
        if any(len(np.unique(labels[training])) < 2 for training, _ in parts):
            return None
        probabilities: np.ndarray = cross_val_predict(
            classifier, features, labels, cv=parts, method="predict_proba"
        )
    return probabilities
