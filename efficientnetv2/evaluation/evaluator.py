"""Evaluates a network on a split: loss, top-1 and top-5, with every image counted once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.shard import Shard
from efficientnetv2.evaluation.predictions import Predictions, calibration_error, merge_replicas
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.train.checkpoint_manager import has_average, load_weights
from efficientnetv2.train.losses import loss_function, probabilities
from efficientnetv2.train.metrics import (
    any_in_top_k,
    multi_label_result,
    multi_label_sums,
    top_k_correct,
)
from efficientnetv2.train.strategy import shard_of
from efficientnetv2.train.train_state import TrainState
from efficientnetv2.train.workers import Workers
from hparams.choices import LOSSES
from hparams.config import Config

Metrics = dict[str, dict[str, float]]  # "raw" and "ema" -> images, loss, top1, top5
Evaluator = Callable[..., dict[str, float]]  # see ``build_evaluator``
_PADDING_LOGIT = -1e4  # of a padding image: as its targets are 0, its loss is 0


def build_evaluator(
    model: keras.Model,
    *,
    loss_type: str = "softmax",
    multi_label: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Evaluator:
    """Returns an evaluation function, which is traced once and then serves all calls.

    Call it as ``evaluate(batches, predictions=None)``. ``batches`` maps a shard to its data set,
    for example ``EvaluationInput.padded``; each shard has the same number of batches of images
    float32 ``[b, S, S, 3]``, targets float32 ``[b, K]`` and a bool mask ``[b]`` of the images that
    are real, not padding. Every process of a training must call it, and all get the same metrics:
    ``images`` (their number), ``loss`` (mean, without label smoothing), ``top1`` and ``top5``
    (0..1; with several labels per image, any of them counts). With several labels, the metrics of
    ``train.metrics.multi_label_result`` are added. If ``predictions`` is a list, one
    ``Predictions`` of all images is appended to it.

    Args:
      model: maps images to logits ``[b, K]``.
      loss_type: a row of ``hparams.choices.LOSSES``.
      multi_label: whether images have any number of labels.
      strategy: holds the model's variables; its replicas take turns with the batches.
    """
    strategy = strategy or tf.distribute.get_strategy()

    def replica_step(
        images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(model(images, training=False), tf.float32)
        sums = _sums(logits, targets, is_real, loss_type=loss_type, multi_label=multi_label)
        return sums, _prediction_rows(logits, targets, is_real, loss_type=loss_type)

    @tf.function
    def batch_step(
        images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor, *, with_predictions: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        sums, rows = strategy.run(replica_step, args=(images, targets, is_real))
        total = strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
        return total, strategy.gather(rows, axis=0) if with_predictions else None

    def evaluate(
        batches: Callable[[Shard], tf.data.Dataset], *, predictions: list[Predictions] | None = None
    ) -> dict[str, float]:
        total = tf.zeros([], tf.float64)  # how many sums there are shows after the first batch
        rows: list[np.ndarray] = []
        worker_counts: list[int] = []

        def local_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            shard = shard_of(context)
            worker_counts.append(shard.count)
            return batches(shard)

        dataset = strategy.distribute_datasets_from_function(local_batches)
        for images, targets, is_real in dataset:
            sums, batch_rows = batch_step(
                images, targets, is_real, with_predictions=predictions is not None
            )
            total += tf.cast(sums, tf.float64)
            if batch_rows is not None:
                rows.append(batch_rows.numpy())
        if predictions is not None and rows:
            by_replica = np.stack(rows).reshape(len(rows), strategy.num_replicas_in_sync, -1, 4)
            predictions.append(merge_replicas(by_replica, workers=worker_counts[0]))
        return _means(total, multi_label=multi_label)

    return evaluate


def open_evaluator(
    config: Config, model: keras.Model, *, strategy: tf.distribute.Strategy
) -> Evaluator:
    """Returns the evaluator of a model, with the loss and labels of its config."""
    return build_evaluator(
        model,
        loss_type=config.train.loss_type,
        multi_label=config.data.multi_label,
        strategy=strategy,
    )


def _means(total: tf.Tensor, *, multi_label: bool) -> dict[str, float]:
    if not total.shape.rank:
        return {"images": 0, "loss": 0.0, "top1": 0.0, "top5": 0.0}
    images, loss, top1, top5 = map(float, total[:4])
    count = max(images, 1.0)
    means = {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}
    multi_label_means = multi_label_result(total[4:].numpy()) if multi_label else {}
    return {"images": int(images), **means, **multi_label_means}


def _prediction_rows(
    logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor, *, loss_type: str
) -> tf.Tensor:
    """Predicted class, its probability, the label, and 1 for a real image: float32 ``[b, 4]``."""
    columns = [
        tf.argmax(logits, -1),
        tf.reduce_max(probabilities(logits, loss_type), -1),
        tf.argmax(targets, -1),
        is_real,
    ]
    return tf.stack([tf.cast(column, tf.float32) for column in columns], -1)


def _sums(
    logits: tf.Tensor,
    targets: tf.Tensor,
    is_real: tf.Tensor,
    *,
    loss_type: str,
    multi_label: bool = False,
) -> tf.Tensor:
    """Number of real images, and sums of loss, top-1 and top-5 over them: float32 ``[4]``.

    With several labels, ``multi_label_sums`` follow. XLA requires that no shape depends on a value.
    """
    logits = tf.where(is_real[:, tf.newaxis], logits, _PADDING_LOGIT)
    loss = loss_function(loss_type)(logits, targets, label_smoothing=0.0, global_batch_size=1)
    if LOSSES[loss_type].shares_target and not multi_label:
        labels = tf.argmax(targets, -1)
        hits = [top_k_correct(logits, labels, k=k) for k in (1, 5)]
    else:
        hits = [any_in_top_k(logits, targets, k=k) for k in (1, 5)]
    counts = [tf.reduce_sum(tf.cast(hit & is_real, tf.float32)) for hit in hits]
    sums = tf.stack([tf.reduce_sum(tf.cast(is_real, tf.float32)), loss, *counts])
    return tf.concat([sums, multi_label_sums(logits, targets, is_real)], 0) if multi_label else sums


def evaluate_split(
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
    stop: StopRequest | None = None,
    predictions: list[Predictions] | None = None,
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
    evaluator: Evaluator, images: EvaluationInput, *, workers: Workers
) -> tuple[dict[str, float], Predictions | None]:
    """Returns the metrics and predictions of a split; the latter are None if it has no images."""
    predictions: list[Predictions] = []
    metrics = evaluate_split(evaluator, images, workers=workers, predictions=predictions)
    if not predictions:
        return metrics, None
    return {**metrics, "ece": calibration_error(predictions[0])}, predictions[0]


def evaluate_checkpoint(
    checkpoint: str,
    model: keras.Model,
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    workers: Workers,
) -> tuple[Metrics, dict[str, Predictions]]:
    """Evaluates a checkpoint's raw weights, and its moving average if there is one.

    Args:
      checkpoint: the path prefix of the checkpoint.
      model: a network of the same config; its weights are overwritten.
      evaluator: evaluates the model.
      images: the images of the split.
      workers: the processes that share the work.

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
        metrics[name], own_predictions = evaluate_with_predictions(
            evaluator, images, workers=workers
        )
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
) -> Metrics:
    """Evaluates the raw weights, and the moving average if there is one; see ``evaluate_split``."""
    metrics = {"raw": evaluate_split(evaluator, images, workers=workers, stop=stop)}
    if train_state.average is not None:
        with train_state.average.swapped():  # a signal stops the evaluation, never a swap
            metrics["ema"] = evaluate_split(evaluator, images, workers=workers, stop=stop)
    return metrics
