"""Evaluates a network on a split, with every image counted once."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Union

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.shard import Shard
from efficientnetv2.evaluation.metric_sums import MetricSums, metric_sums
from efficientnetv2.evaluation.predictions import (
    FullPredictions,
    Predictions,
    calibration_error,
    merge_replicas,
)
from efficientnetv2.evaluation.unknown_images import scores, unknown_metrics
from efficientnetv2.model.traced_function import function_without_gradient
from efficientnetv2.runtime.best_weights import BestWeights
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.train.checkpoint_manager import has_average, load_weights
from efficientnetv2.train.strategy import shard_of
from efficientnetv2.train.target_scale import TargetScale, target_scale
from efficientnetv2.train.train_state import TrainState
from efficientnetv2.train.workers import Workers
from hparams.config import Config

# "raw", "ema" and "best" -> images, loss, and other metrics
Metrics = dict[str, dict[str, float]]
Evaluator = Callable[..., dict[str, float]]  # see ``build_evaluator``
AnyPredictions = Union[Predictions, FullPredictions]
# Returns metrics, and predictions unless there are no images, or too many.
Evaluation = Callable[[], tuple[dict[str, float], Union[AnyPredictions, None]]]
# Numbers in the predictions of several labels or numbers: of more, there are metrics only.
_MOST_VALUES = 50_000_000
# Metrics that are kept of corrupted images.
_CORRUPTED = ("top1", "loss", "nll_calibrated", "ece", "ece_calibrated")
_RANK = 4  # of a batch with one view of each image


@dataclasses.dataclass(frozen=True)
class MoreInputs:
    """Additional images for an evaluation.

    Attributes:
      unknown: images of none of the classes; None: there are none.
      threshold: an image whose best probability is below it is unknown; None: none is.
      corrupted: row of ``CORRUPTIONS`` -> the images of the split, corrupted.
    """

    unknown: EvaluationInput | None = None
    threshold: float | None = None
    corrupted: Mapping[str, EvaluationInput] = dataclasses.field(default_factory=dict)


NO_MORE = MoreInputs()


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """The result of evaluating one split, for the reports.

    Attributes:
      images: of the split.
      names: K names, of the classes or the numbers.
      metrics: keyed by "raw", "ema" and "best"; the last are those of the weights that prediction
        and export use.
      predictions: likewise; empty: there are no images, or too many.
      thresholds: ``[K]``, where an image may have several classes; None: it has one, or numbers.
      calibration: the fitted temperature, or why there is none, as text; empty: it was not fitted
        in this evaluation.
    """

    images: EvaluationInput
    names: Sequence[str]
    metrics: Metrics
    predictions: Mapping[str, AnyPredictions]
    thresholds: np.ndarray | None = None
    calibration: str = ""


def build_evaluator(
    model: keras.Model,
    *,
    loss_type: str = "softmax",
    multi_label: bool = False,
    scale: TargetScale | None = None,
    strategy: tf.distribute.Strategy | None = None,
    with_scores: bool = False,
    with_logits: bool = False,
    temperature: float | None = None,
) -> Evaluator:
    """Returns an evaluation function, which is traced once and then serves all calls.

    Call it as ``evaluate(batches, predictions=None)``. ``batches`` maps a shard to its data set,
    for example ``EvaluationInput.padded``; each shard has the same number of batches of images
    float32 ``[b, S, S, 3]`` (of V views ``[b, V, S, S, 3]``, whose probabilities are averaged),
    targets float32 ``[b, K]`` and a bool mask ``[b]`` of the images that are real, not padding.
    Every process of a training must call it, and all get the same metrics:
    ``images`` (their number), ``loss`` (mean, without label smoothing), and those of
    ``ClassMetrics``, or of ``LabelMetrics`` for several labels, or of ``NumberMetrics``. If
    ``predictions`` is a list, one ``Predictions`` of all images is appended to it, or
    ``FullPredictions`` of several labels or of numbers (not if they are more than 50 million).

    Args:
      model: maps images to logits ``[b, K]``.
      loss_type: a row of ``hparams.choices.LOSSES``.
      multi_label: whether images have any number of labels.
      scale: of the targets, if they are numbers; None: they are classes.
      strategy: holds the model's variables; its replicas take turns with the batches.
      with_scores: as in ``metric_sums``; then all predictions are kept, however many they are.
      with_logits: as there.
      temperature: as there.
    """
    strategy = strategy or tf.distribute.get_strategy()
    metrics = metric_sums(
        loss_type,
        multi_label=multi_label,
        scale=scale,
        with_scores=with_scores,
        with_logits=with_logits,
        temperature=temperature,
    )
    most_values = math.inf if with_scores else _MOST_VALUES
    no_sums = np.zeros(metrics.num_sums(model.output.shape[-1]))

    batch_step = _batch_step(model, metrics, strategy)

    def evaluate(
        batches: Callable[[Shard], tf.data.Dataset],
        *,
        predictions: list[AnyPredictions] | None = None,
    ) -> dict[str, float]:
        total = no_sums
        rows = _Rows(predictions is not None, most_values=most_values)
        worker_counts: list[int] = []

        def local_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            shard = shard_of(context)
            worker_counts.append(shard.count)
            return batches(shard)

        for batch in strategy.distribute_datasets_from_function(local_batches):
            sums, batch_rows = batch_step(*batch, with_predictions=rows.are_wanted)
            total = total + sums.numpy()
            rows.add(batch_rows)
        if predictions is not None and rows.batches:
            replicas = strategy.num_replicas_in_sync
            merged = merge_replicas(rows.by_replica(replicas), workers=worker_counts[0])
            predictions.append(metrics.predictions.from_rows(*merged))
        return metrics.result(total)

    return evaluate


def _batch_step(
    model: keras.Model, metrics: MetricSums, strategy: tf.distribute.Strategy
) -> Callable[..., tuple[tf.Tensor, tf.Tensor | None]]:
    """Returns the traced function from a batch to its sums and, if wanted, its rows."""

    def replica_step(
        images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if images.shape.rank > _RANK:  # several views of each image
            batch, views = images.shape[:2]
            flat = tf.reshape(images, [batch * views, *images.shape[2:]])
            logits = tf.cast(model(flat, training=False), tf.float32)
            logits = tf.reshape(logits, [batch, views, logits.shape[-1]])
            return metrics.of_views(logits, targets, is_real)
        logits = tf.cast(model(images, training=False), tf.float32)
        return metrics.sums(logits, targets, is_real), metrics.rows(logits, targets, is_real)

    # AutoGraph would take half a second to find that there is no control flow to convert.
    def batch_step(
        images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor, *, with_predictions: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        sums, rows = strategy.run(replica_step, args=(images, targets, is_real))
        total = strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
        return total, strategy.gather(rows, axis=0) if with_predictions else None

    return function_without_gradient(batch_step, autograph=False)


class _Rows:
    """Collects what is predicted for each image, until it is too much to keep.

    Args:
      are_wanted: whether to collect anything.
      most_values: how many numbers are not too much.

    Attributes:
      are_wanted: whether to go on.
      batches: float32 ``[replicas * b, C]`` each; empty once it is too much.
    """

    def __init__(self, are_wanted: bool, *, most_values: float) -> None:
        self.are_wanted = are_wanted
        self._most_values = most_values
        self.batches: list[np.ndarray] = []
        self._size = 0

    def add(self, rows: tf.Tensor | None) -> None:
        """Adds the rows of a batch; None: none were asked for."""
        if rows is None:
            return
        self.batches.append(rows.numpy())
        self._size += self.batches[-1].size
        if self._size > self._most_values:
            self.are_wanted, self.batches = False, []

    def by_replica(self, replicas: int) -> np.ndarray:
        """Returns all rows, ``[steps, replicas, b, C]``."""
        stacked = np.stack(self.batches)
        return stacked.reshape(len(stacked), replicas, -1, stacked.shape[-1])


def open_evaluator(
    config: Config,
    model: keras.Model,
    *,
    strategy: tf.distribute.Strategy | None = None,
    with_scores: bool = False,
    with_logits: bool = False,
    temperature: float | None = None,
) -> Evaluator:
    """Returns the evaluator of a model, with the loss and labels of its config."""
    return build_evaluator(
        model,
        loss_type=config.train.loss_type,
        multi_label=config.data.multi_label,
        scale=target_scale(config.model),
        strategy=strategy,
        with_scores=with_scores,
        with_logits=with_logits,
        temperature=temperature,
    )


def evaluate_split(
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
    stop: StopRequest | None = None,
    predictions: list[AnyPredictions] | None = None,
) -> dict[str, float]:
    """Evaluates a network on every image of a split, once each.

    Args:
      evaluator: evaluates the network; see ``build_evaluator``.
      images: the images of the split.
      workers: the processes that share the work.
      stop: a signal ends the evaluation at once, unless other workers take part in it.
      predictions: a list to which the predictions for all images are added; None: not needed.

    Raises:
      DataError: if an image cannot be read; it is named.
      Stopped: if a signal came.
    """
    with stop.at_once() if stop and workers.is_alone else contextlib.nullcontext():
        try:
            return evaluator(images.padded, predictions=predictions)
        except tf.errors.OpError as error:
            if workers.is_worker_loss(error):
                raise
            images.raise_bad_image(error, workers.shard)


def evaluate_with_predictions(
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
    more: MoreInputs = NO_MORE,
) -> tuple[dict[str, float], AnyPredictions | None]:
    """Returns the metrics and predictions of a split; the latter are None if it has no images.

    Args:
      evaluator: as in ``evaluate_split``, as the next two.
      images: as there.
      workers: as there.
      more: further images; the metrics of a corruption begin with its name, as ``blur_1_top1``.
    """
    metrics, found = _evaluate_one(evaluator, images, workers=workers)
    if found is None:
        return metrics, None
    for name, corrupted in more.corrupted.items():
        values, _ = _evaluate_one(evaluator, corrupted, workers=workers)
        metrics |= {f"{name}_{key}": values[key] for key in _CORRUPTED if key in values}
    if more.unknown is not None:
        _, others = _evaluate_one(evaluator, more.unknown, workers=workers)
        if others is not None and len(others.index):
            metrics |= unknown_metrics(scores(found), scores(others), more.threshold)
    return metrics, found


def _evaluate_one(
    evaluator: Evaluator, images: EvaluationInput, *, workers: Workers
) -> tuple[dict[str, float], AnyPredictions | None]:
    """Returns the metrics of these images, their calibration errors, and what is predicted."""
    predictions: list[AnyPredictions] = []
    metrics = evaluate_split(evaluator, images, workers=workers, predictions=predictions)
    if not predictions:
        return metrics, None
    found = predictions[0]
    if isinstance(found, Predictions):
        metrics["ece"] = calibration_error(found)
        calibrated = found.as_calibrated()
        if calibrated is not None:
            metrics["ece_calibrated"] = calibration_error(calibrated)
    return metrics, found


def evaluate_checkpoint(
    checkpoint: str, model: keras.Model, evaluate: Evaluation
) -> tuple[Metrics, dict[str, AnyPredictions]]:
    """Evaluates a checkpoint's raw weights, and its moving average if there is one.

    Args:
      checkpoint: the path prefix of the checkpoint.
      model: a network of the same config; its weights are overwritten.
      evaluate: evaluates the model as it is; see ``evaluate_with_predictions``.

    Returns:
      Metrics and predictions, both keyed by "raw" and "ema".

    Raises:
      RunError: if the checkpoint cannot be read.
    """
    # Read all weights first: a running training may delete the checkpoint during the evaluation.
    weights = {}
    for name in ("raw", "ema") if has_average(checkpoint) else ("raw",):
        load_weights(model, checkpoint, average=name == "ema")
        weights[name] = model.get_weights()
    metrics, predictions = {}, {}
    for name, values in weights.items():
        model.set_weights(values)
        metrics[name], own_predictions = evaluate()
        if own_predictions is not None:
            predictions[name] = own_predictions
    return metrics, predictions


def evaluate_raw_and_ema(
    train_state: TrainState,
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
    stop: StopRequest | None = None,
    predictions: Mapping[str, list[AnyPredictions]] | None = None,
) -> Metrics:
    """Evaluates the raw weights, and the moving average if there is one; see ``evaluate_split``.

    Args:
      train_state: the weights.
      evaluator: evaluates them.
      images: of the split.
      workers: as in ``evaluate_split``.
      stop: as there.
      predictions: "raw" and "ema" -> the list of ``evaluate_split``; None: not needed.
    """
    lists = predictions or {}

    def evaluate(name: str) -> dict[str, float]:
        return evaluate_split(
            evaluator, images, workers=workers, stop=stop, predictions=lists.get(name)
        )

    metrics = {"raw": evaluate("raw")}
    if train_state.average is not None:
        with train_state.average.swapped():  # a signal stops the evaluation, never a swap
            metrics["ema"] = evaluate("ema")
    return metrics


def add_best(
    best: BestWeights | None,
    model: keras.Model,
    metrics: Metrics,
    predictions: dict[str, AnyPredictions],
    *,
    step: int,
    evaluate: Evaluation,
) -> None:
    """Adds "best", the weights in ``best/``, to the metrics and predictions of a step's weights.

    Args:
      best: the weights; None: nothing is added.
      model: a network of the same config; it keeps its weights.
      metrics: of "raw" and perhaps "ema".
      predictions: likewise.
      step: of these weights; the best ones may be among them, and are not evaluated again then.
      evaluate: evaluates the model as it is.

    Raises:
      RunError: if the weights cannot be read.
    """
    if best is None:
        return
    if best.step == step:
        name = "ema" if best.is_average else "raw"
        metrics["best"], found = dict(metrics[name]), predictions.get(name)
    else:
        own = model.get_weights()
        try:
            load_weights(model, best.checkpoint, average=best.is_average)
            metrics["best"], found = evaluate()
        finally:
            model.set_weights(own)
    if found is not None:
        predictions["best"] = found
