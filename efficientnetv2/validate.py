"""Weights and a split in; raw and averaged metrics out, the same on every worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow as tf

from efficientnetv2.answers import Answers
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.evaluate import Evaluator
from efficientnetv2.report.results import Metrics
from efficientnetv2.train.learner import Learner
from efficientnetv2.train.saving import BestCheckpoint
from efficientnetv2.train.stopping import StopRequest
from efficientnetv2.train.workers import Workers


def measure(
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
    stop: StopRequest | None = None,
    answers: list[Answers] | None = None,
) -> dict[str, float]:
    """Evaluates the network of an evaluator, every image of a split once.

    Args:
      evaluator: of the network.
      images: of the split.
      workers: that share the work.
      stop: a signal that comes here ends the evaluation at once, but where other workers go on.
      answers: what the network said of each image is added to it; None: nobody asks.

    Raises:
      DataError: names the image that cannot be read.
      Stopped: by a signal.
    """
    with stop.at_once() if stop and workers.alone else contextlib.nullcontext():
        try:
            return evaluator(images.padded, answers=answers)
        except tf.errors.OpError as error:
            if workers.lost(error):
                raise
            images.raise_bad_image(error, workers.share)


def evaluate_learner(
    learner: Learner,
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
    stop: StopRequest | None = None,
) -> Metrics:
    """Evaluates the raw weights, and the averaged ones if there are any; see ``measure``."""
    metrics = {"raw": measure(evaluator, images, workers=workers, stop=stop)}
    if learner.average is not None:
        with learner.average.swapped():  # never stopped half way
            metrics["ema"] = measure(evaluator, images, workers=workers, stop=stop)
    return metrics


def validator(
    learner: Learner,
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    best: BestCheckpoint | None,
    workers: Workers,
    stop: StopRequest,
) -> Callable[[], dict[str, float]]:
    """Returns what ``Training.run`` calls after each epoch: it evaluates on the minival split.

    Args:
      learner: what is trained.
      evaluator: of its network.
      images: of the split.
      best: keeps the best weights; None: nobody does, or another worker.
      workers: of the training.
      stop: as in ``measure``.
    """

    def after_epoch() -> dict[str, float]:
        metrics = evaluate_learner(learner, evaluator, images, workers=workers, stop=stop)
        line = {
            f"minival{'_ema' if name == 'ema' else ''}_{key}": values[key]
            for name, values in metrics.items()
            for key in values
            if key != "images"
        }
        if best is not None:
            best.offer({name: values["top1"] for name, values in metrics.items()})
        return line

    return after_epoch
