"""Chooses the probability threshold of each class, for images that may have several classes."""

from __future__ import annotations

import numpy as np

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.open_data import open_split
from efficientnetv2.data.sources import Source
from efficientnetv2.evaluation.evaluator import evaluate_split, open_evaluator
from efficientnetv2.evaluation.label_scores import choose_thresholds
from efficientnetv2.evaluation.loaded_model import load_trained
from efficientnetv2.evaluation.predictions import FullPredictions
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.workers import Workers
from hparams.config import Config
from hparams.errors import DataError


def fit_thresholds(
    config: Config,
    source: Source,
    run: RunDirectory,
    *,
    workers: Workers,
    images: EvaluationInput | None = None,
) -> np.ndarray | None:
    """Returns the thresholds that are best on the minival split, float64 ``[K]``.

    They are those of the weights that prediction and export use; see ``load_trained``.

    Args:
      config: of the run, complete.
      source: its data set.
      run: holds a checkpoint.
      workers: this process.
      images: of minival, which may be in memory; None: they are opened.

    Returns:
      None: the minival split has no image, or too many predictions to keep.
    """
    min_precision = config.train.min_precision
    predictions = predict_minival(config, source, run, workers=workers, images=images)
    return (
        None if predictions is None else choose_thresholds(predictions, min_precision=min_precision)
    )


def predict_minival(
    config: Config,
    source: Source,
    run: RunDirectory,
    *,
    workers: Workers,
    images: EvaluationInput | None = None,
    with_logits: bool = False,
) -> FullPredictions | None:
    """Returns the predictions for minival by the weights that prediction and export use.

    Args:
      config: as in ``fit_thresholds``, as the others.
      source: as there.
      run: as there.
      workers: as there.
      images: as there.
      with_logits: the outputs are logits, of a network that names one class.

    Returns:
      None: the split has no image, or too many predictions to keep.
    """
    try:
        source.num_images(config.data.minival_split)
    except DataError:
        return None
    loaded = load_trained(config, run)
    evaluator = open_evaluator(config, loaded.model, with_logits=with_logits)
    images = images or open_split(config, source, run, split=config.data.minival_split)
    predictions: list = []
    evaluate_split(evaluator, images, workers=workers, predictions=predictions)
    if not predictions:
        return None
    assert isinstance(predictions[0], FullPredictions)
    return predictions[0]
