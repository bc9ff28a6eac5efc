"""Stores the predictions of cross-validation networks for the images that each fold held out.

Needs NumPy and scikit-learn only, no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from efficientnetv2.evaluation.predictions import Predictions, calibration_error
from efficientnetv2.runtime.atomic_write import draft_of
from efficientnetv2.runtime.run_directory import RunError
from hparams.label_kinds import NUMBERS, ONE

_TOP = 5
WeightsMetrics = dict[str, dict[str, float]]  # "raw" and "ema" -> the metrics of these weights


@dataclasses.dataclass(frozen=True)
class HeldOutScores:
    """The predictions of one fold's network for the N images that the fold held out.

    Attributes:
      metrics: of these images, "raw" and "ema" -> metrics.
      test: likewise of the images that the data marks as test; empty: there are none.
      paths: N paths, as people read them.
      outputs: float32 ``[N, K]``: the score of each class, 0..1, or the numbers; of the moving
        average if there is one, else of the raw weights.
      targets: float32 ``[N, K]``: above 0 at each class of the image, or the true numbers.
      thresholds: ``[K]``, the score from which an image has the class, where it may have several.
    """

    metrics: WeightsMetrics
    test: WeightsMetrics
    paths: Sequence[str]
    outputs: np.ndarray
    targets: np.ndarray
    thresholds: np.ndarray

    def save(self, path: pathlib.Path) -> None:
        """Writes all of it to an .npz file, atomically.

        Raises:
          WriteError: if it cannot be written.
        """
        with draft_of(path) as draft:
            np.savez_compressed(
                draft,
                metrics=np.array(json.dumps({"held_out": self.metrics, "test": self.test})),
                paths=np.array(self.paths, np.str_),
                outputs=self.outputs,
                targets=self.targets,
                thresholds=self.thresholds,
            )


def load_scores(path: pathlib.Path) -> HeldOutScores:
    """Reads a file that ``HeldOutScores.save`` wrote.

    Raises:
      RunError: if it cannot be read.
    """
    try:
        # Of a damaged file, np.load would leave open what it opened itself.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
        metrics = json.loads(str(values.pop("metrics")))
        paths = values.pop("paths").tolist()
        return HeldOutScores(metrics["held_out"], metrics["test"], paths, **values)
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"cannot read '{path}': {error}; remove it, and the same command writes it anew"
        ) from None


def pooled_metrics(scores: Sequence[HeldOutScores], kind: str) -> dict[str, float]:
    """Returns the metrics of all images of all folds together, each as its own fold's network sees.

    All are computed from the outputs by scikit-learn, but the loss, which is the mean of that of
    the images.

    Args:
      scores: of the folds.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.

    Returns:
      images, loss and: top1, top5, balanced_accuracy, macro_f1, ece; of several classes map,
      ap_micro, macro_f1; of numbers r2, mae, rmse.
    """
    outputs = np.concatenate([one.outputs for one in scores])
    targets = np.concatenate([one.targets for one in scores])
    sizes = [len(one.paths) for one in scores]
    losses = [list(one.metrics.values())[-1]["loss"] for one in scores]
    common = {"images": len(outputs), "loss": float(np.average(losses, weights=sizes))}
    if kind == NUMBERS:
        return {**common, **_number_metrics(outputs, targets)}
    if kind == ONE:
        return {**common, **_class_metrics(outputs, targets)}
    found = np.concatenate([one.outputs >= one.thresholds for one in scores])
    return {**common, **_label_metrics(outputs, targets > 0, found)}


def class_predictions(outputs: np.ndarray, targets: np.ndarray) -> Predictions:
    """Returns the predictions for images of one class each, from all scores."""
    return Predictions(
        np.arange(len(outputs)), targets.argmax(1), outputs.argmax(1), outputs.max(1)
    )


def _class_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    found = class_predictions(outputs, targets)
    own = np.take_along_axis(outputs, found.label[:, np.newaxis], axis=1)
    return {
        "top1": float(accuracy_score(found.label, found.predicted)),
        "top5": float(((outputs > own).sum(1) < _TOP).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(found.label, found.predicted)),
        "macro_f1": float(f1_score(found.label, found.predicted, average="macro")),
        "ece": calibration_error(found),
    }


def _label_metrics(outputs: np.ndarray, targets: np.ndarray, found: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, f1_score

    seen = targets.any(0)  # an average precision needs an image of the class
    if not seen.any():
        return {"map": 0.0, "ap_micro": 0.0, "macro_f1": 0.0}
    true, scores, said = targets[:, seen], outputs[:, seen], found[:, seen]
    return {
        "map": float(average_precision_score(true, scores, average="macro")),
        "ap_micro": float(average_precision_score(targets, outputs, average="micro")),
        "macro_f1": float(f1_score(true, said, average="macro", zero_division=0)),
    }


def _number_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    outputs, targets = np.float64(outputs), np.float64(targets)
    squared = mean_squared_error(targets, outputs, multioutput="raw_values")
    return {
        "r2": float(r2_score(targets, outputs)),
        "mae": float(mean_absolute_error(targets, outputs)),
        "rmse": float(np.sqrt(squared).mean()),
    }
