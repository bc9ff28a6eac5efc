"""Evaluates the network of a fold on the images that the fold held out, and keeps all scores."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from efficientnetv2.data.bad_images import SkippedLog
from efficientnetv2.data.open_data import open_data, open_split
from efficientnetv2.data.sources import Source
from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import HELD_OUT, ImageFile
from efficientnetv2.data.sources.own_images import images_of_run
from efficientnetv2.evaluation.evaluator import (
    AnyPredictions,
    Metrics,
    evaluate_checkpoint,
    evaluate_with_predictions,
    open_evaluator,
)
from efficientnetv2.evaluation.held_out_scores import HeldOutScores, class_predictions
from efficientnetv2.evaluation.label_scores import with_label_metrics
from efficientnetv2.evaluation.predictions import FullPredictions, calibration_error
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime.checkpoint_store import latest_checkpoint
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.workers import build_workers
from hparams.config import Config
from hparams.errors import DataError
from hparams.label_kinds import ONE, SEVERAL, label_kind


def evaluate_fold(config: Config, run: RunDirectory) -> HeldOutScores:
    """Evaluates the newest checkpoint on what the fold held out, and on the test images, if any.

    Args:
      config: of the fold's training.
      run: holds the finished training.

    Raises:
      UserError: if the data or the checkpoint cannot be used.
    """
    workers = build_workers(config)
    config, source = open_data(config, run)
    images = images_of_run(config, run).images
    with workers.strategy.scope():
        model = build_model(config.model)
    evaluator = open_evaluator(config, model, strategy=workers.strategy, with_scores=True)
    checkpoint = latest_checkpoint(run)

    def evaluate(split: str) -> tuple[Metrics, dict[str, AnyPredictions]]:
        opened = open_split(config, source, run, split=split)
        of_split = functools.partial(evaluate_with_predictions, evaluator, opened, workers=workers)
        metrics, found = evaluate_checkpoint(checkpoint, model, of_split)
        return _with_more_metrics(config, run, source, metrics, found), found

    metrics, predictions = evaluate(HELD_OUT)
    test = evaluate("test")[0] if images["test"] else {}
    used = _readable(images[HELD_OUT], config, run)
    found = list(predictions.values())[-1] if predictions else None
    if not isinstance(found, FullPredictions) or len(found.index) != len(used):
        raise DataError(f"not all images that fold {config.data.fold} holds out could be evaluated")
    is_several = label_kind(config) == SEVERAL
    thresholds = run.thresholds(source.class_names) if is_several else []
    paths = [printable(image.path) for image in used]
    return HeldOutScores(
        metrics, test, paths, found.outputs, found.targets, np.array(thresholds, np.float64)
    )


def _with_more_metrics(
    config: Config,
    run: RunDirectory,
    source: Source,
    metrics: Metrics,
    predictions: dict[str, AnyPredictions],
) -> Metrics:
    """Returns metrics with those that need all predictions, as ``--mode=eval`` reports them."""
    kind = label_kind(config)
    if kind == SEVERAL:
        thresholds = np.array(run.thresholds(source.class_names))
        return with_label_metrics(metrics, predictions, thresholds)
    for name, found in predictions.items():
        if kind == ONE and isinstance(found, FullPredictions):
            by_class = class_predictions(found.outputs, found.targets)
            metrics[name]["ece"] = calibration_error(by_class)
    return metrics


def _readable(images: Sequence[ImageFile], config: Config, run: RunDirectory) -> list[ImageFile]:
    """Returns the images without those that ``data.on_bad_image=skip`` has left out."""
    if config.data.on_bad_image != "skip":
        return list(images)
    skipped = set(SkippedLog(run.bad_images_file).names())
    root = images_of_run(config, run).root.absolute()
    return [image for image in images if str(root / image.path) not in skipped]
