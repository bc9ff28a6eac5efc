"""Measures how well a network tells images of its classes from images of none of them."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.sources import Source
from efficientnetv2.data.sources.image_splits import LEFT_OUT
from efficientnetv2.data.views import ONE_VIEW, Views
from efficientnetv2.evaluation.predictions import FullPredictions, Predictions
from hparams.config import Config
from hparams.label_kinds import SEVERAL

_ALL = "unknown"  # name of the only split
_KNOWN_SHARE = 0.95  # of FPR95


class UnlabelledImages(Source):
    """Image files without labels, as a data set with the split ``unknown``; the labels are 0.

    Args:
      paths: of the files.
      class_names: of the network.
      label_kind: of the network, a row of ``hparams.label_kinds.LABEL_KINDS``.
    """

    def __init__(
        self, paths: Sequence[pathlib.Path], class_names: Sequence[str], *, label_kind: str
    ) -> None:
        self.class_names = list(class_names)
        self.label_kind = label_kind
        self._paths = tf.constant([str(path) for path in paths])

    @property
    def default_splits(self) -> tuple[str, str, str]:
        """The only split, three times."""
        return _ALL, _ALL, _ALL

    def num_images(self, split: str) -> int:
        """Returns the number of files."""
        del split
        return len(self._paths)

    def _references(
        self, split: str, *, seed: tf.Tensor | None, buffer: int, count: int, skip_broken: bool
    ) -> tf.data.Dataset:
        del split, seed, buffer, skip_broken
        return tf.data.Dataset.range(count)

    def name(self, reference: tf.Tensor) -> tf.Tensor:
        """Returns the path of the file."""
        return tf.gather(self._paths, reference)

    def load(self, reference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads the file; see ``Source``."""
        name = self.name(reference)
        label = tf.zeros([1] if self.label_kind == SEVERAL else [], tf.int64)
        return name, tf.io.read_file(name), label


def open_unknown(
    config: Config,
    source: Source,
    paths: Sequence[pathlib.Path] | None,
    *,
    views: Views = ONE_VIEW,
) -> EvaluationInput | None:
    """Opens images of none of the classes; None: there are none.

    Args:
      config: of the evaluation.
      source: its data set; the images of classes that it leaves out are unknown.
      paths: of image files that are unknown, instead; None: there are none.
      views: of each image.
    """
    if paths is not None:
        files = UnlabelledImages(paths, source.class_names, label_kind=source.label_kind)
        return EvaluationInput(config, files, split=_ALL, views=views)
    if config.data.leave_out:
        return EvaluationInput(config, source, split=LEFT_OUT, views=views)
    return None


def scores(predictions: Predictions | FullPredictions) -> np.ndarray:
    """Returns the best probability of each image ``[N]``, calibrated if there is a temperature."""
    if isinstance(predictions, FullPredictions):
        return np.asarray(predictions.outputs.max(-1))
    return predictions.confidence if predictions.calibrated is None else predictions.calibrated


def unknown_metrics(
    known: np.ndarray, unknown: np.ndarray, threshold: float | None
) -> dict[str, float]:
    """Returns how well the scores of known images tell them from unknown ones.

    >>> unknown_metrics(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.65, 0.1]), 0.65)
    {'unknown_images': 2, 'unknown_auroc': 0.875, 'unknown_fpr95': 0.5, 'unknown_found': 0.5, ...

    ``unknown_auroc`` is the area under the ROC curve: how often a known image has a higher score
    than an unknown one. ``unknown_fpr95`` is the share of the unknown images that pass as known at
    the threshold that 95% of these known images reach. ``unknown_found`` and ``known_rejected`` are
    the shares of unknown and known images below the threshold of the run.

    Args:
      known: ``[N]``, higher for images that are more surely known.
      unknown: ``[M]``.
      threshold: of the run; None: it has none, and the last two are left out.
    """
    from sklearn.metrics import roc_auc_score, roc_curve  # takes a second

    is_known = np.repeat([1, 0], [len(known), len(unknown)])
    values = np.concatenate([known, unknown])
    false_positives, true_positives, _ = roc_curve(is_known, values, drop_intermediate=False)
    metrics = {
        "unknown_images": len(unknown),
        "unknown_auroc": float(roc_auc_score(is_known, values)),
        "unknown_fpr95": float(false_positives[true_positives >= _KNOWN_SHARE].min()),
    }
    if threshold is not None:
        metrics["unknown_found"] = float((unknown < threshold).mean())
        metrics["known_rejected"] = float((known < threshold).mean())
    return metrics
