"""A network and batches in; loss, top-1 and top-5 out, every image counted once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.losses import LOSSES
from efficientnetv2.train.metrics import (
    any_in_top_k,
    multi_label_result,
    multi_label_sums,
    top_k_correct,
)

Evaluator = Callable[[tf.data.Dataset], dict[str, float]]


def build_evaluator(
    model: keras.Model,
    *,
    loss_type: str = "softmax",
    multi_label: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Evaluator:
    """Returns a function from evaluation batches to metrics, traced once for all calls.

    The function takes batches of images float32 ``[b, S, S, 3]`` and targets float32 ``[b, K]``,
    and returns ``images`` (their number), ``loss`` (mean, no smoothing), ``top1`` and ``top5``
    (shares, 0..1; with several labels an image, any of them counts); and for several labels what
    ``train.metrics.multi_label_result`` returns.

    Args:
      model: images to logits ``[b, K]``.
      loss_type: a row of ``train.losses.LOSSES``.
      multi_label: images have any number of labels.
      strategy: where the model's variables live; its replicas share each batch.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync

    def replica_sums(images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(model(images, training=False), tf.float32)
        logits, targets = tf.boolean_mask(logits, is_real), tf.boolean_mask(targets, is_real)
        sums = _sums(logits, targets, loss_type=loss_type, multi_label=multi_label)
        return tf.concat([sums, multi_label_sums(logits, targets)], 0) if multi_label else sums

    @tf.function(reduce_retracing=True)
    def batch_sums(images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
        sums = strategy.run(replica_sums, args=(images, targets, is_real))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    def evaluate(batches: tf.data.Dataset) -> dict[str, float]:
        total = tf.zeros([], tf.float64)  # the sums' length is known after the first batch
        padded = batches.map(functools.partial(_padded, replicas=replicas))
        for images, targets, is_real in _shared(padded, strategy):
            total += tf.cast(batch_sums(images, targets, is_real), tf.float64)
        if not total.shape.rank:
            return {"images": 0, "loss": 0.0, "top1": 0.0, "top5": 0.0}
        images, loss, top1, top5 = map(float, total[:4])
        count = max(images, 1.0)
        means = {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}
        more = multi_label_result(total[4:].numpy()) if multi_label else {}
        return {"images": int(images), **means, **more}

    return evaluate


def _sums(logits: tf.Tensor, targets: tf.Tensor, *, loss_type: str, multi_label: bool) -> tf.Tensor:
    """Number of images, and sums of loss, top-1 and top-5 over them: float32 ``[4]``."""
    loss = LOSSES[loss_type](logits, targets, label_smoothing=0.0, global_batch_size=1)
    if loss_type == "softmax" and not multi_label:
        labels = tf.argmax(targets, -1)
        hits = [top_k_correct(logits, labels, k=k) for k in (1, 5)]
    else:
        hits = [any_in_top_k(logits, targets, k=k) for k in (1, 5)]
    counts = [tf.reduce_sum(tf.cast(hit, tf.float32)) for hit in hits]
    return tf.stack([tf.cast(tf.shape(logits)[0], tf.float32), loss, *counts])


def _padded(
    images: tf.Tensor, targets: tf.Tensor, *, replicas: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Fills a batch with blank images, so that it divides by the number of replicas."""
    count = tf.shape(images)[0]
    more = -count % replicas
    is_real = tf.range(count + more) < count
    images = tf.pad(images, [[0, more], [0, 0], [0, 0], [0, 0]])
    return images, tf.pad(targets, [[0, more], [0, 0]]), is_real


def _shared(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
    if strategy.num_replicas_in_sync == 1:
        return batches
    return strategy.experimental_distribute_dataset(batches)
