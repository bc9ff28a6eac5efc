"""A network and batches in; loss, top-1 and top-5 out, every image counted once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.answers import Answers, in_order
from efficientnetv2.data.share import Share
from efficientnetv2.train.losses import LOSSES
from efficientnetv2.train.metrics import (
    any_in_top_k,
    multi_label_result,
    multi_label_sums,
    top_k_correct,
)
from efficientnetv2.train.strategy import share_of

Evaluator = Callable[..., dict[str, float]]
_NO_LOGIT = -1e4  # of a blank image: with targets of 0 its loss is 0


def build_evaluator(
    model: keras.Model,
    *,
    loss_type: str = "softmax",
    multi_label: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> Evaluator:
    """Returns a function from evaluation batches to metrics, traced once for all calls.

    The function takes a function: share -> its batches, as ``EvaluationInput.padded`` gives them,
    as many for every share: images float32 ``[b, S, S, 3]``, targets float32 ``[b, K]`` and bool
    ``[b]``, which images are real. Every process of a training calls it, and gets the same result:
    ``images`` (their number), ``loss`` (mean, no smoothing), ``top1`` and ``top5`` (shares, 0..1;
    with several labels an image, any of them counts); and for several labels what
    ``train.metrics.multi_label_result`` returns. To a list that it may get as ``answers`` it adds
    one ``Answers``, of all images.

    Args:
      model: images to logits ``[b, K]``.
      loss_type: a row of ``train.losses.LOSSES``.
      multi_label: images have any number of labels.
      strategy: where the model's variables live; its replicas take turns with the batches.
    """
    strategy = strategy or tf.distribute.get_strategy()

    def replica_step(
        images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.cast(model(images, training=False), tf.float32)
        sums = _sums(logits, targets, is_real, loss_type=loss_type, multi_label=multi_label)
        return sums, _answers(logits, targets, is_real, loss_type=loss_type)

    @tf.function
    def batch_step(
        images: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor, *, answers: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        sums, said = strategy.run(replica_step, args=(images, targets, is_real))
        total = strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
        return total, strategy.gather(said, axis=0) if answers else None

    def evaluate(
        batches: Callable[[Share], tf.data.Dataset], *, answers: list[Answers] | None = None
    ) -> dict[str, float]:
        total = tf.zeros([], tf.float64)  # the sums' length is known after the first batch
        rows: list[np.ndarray] = []
        workers: list[int] = []

        def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = share_of(context)
            workers.append(share.count)
            return batches(share)

        for images, targets, is_real in strategy.distribute_datasets_from_function(own):
            sums, said = batch_step(images, targets, is_real, answers=answers is not None)
            total += tf.cast(sums, tf.float64)
            if said is not None:
                rows.append(said.numpy())
        if answers is not None and rows:
            said = np.stack(rows).reshape(len(rows), strategy.num_replicas_in_sync, -1, 4)
            answers.append(in_order(said, workers=workers[0]))
        return _means(total, multi_label=multi_label)

    return evaluate


def _means(total: tf.Tensor, *, multi_label: bool) -> dict[str, float]:
    if not total.shape.rank:
        return {"images": 0, "loss": 0.0, "top1": 0.0, "top5": 0.0}
    images, loss, top1, top5 = map(float, total[:4])
    count = max(images, 1.0)
    means = {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}
    more = multi_label_result(total[4:].numpy()) if multi_label else {}
    return {"images": int(images), **means, **more}


def _answers(
    logits: tf.Tensor, targets: tf.Tensor, is_real: tf.Tensor, *, loss_type: str
) -> tf.Tensor:
    """Predicted class, its probability, label and whether it is real: float32 ``[b, 4]``."""
    activation = tf.nn.softmax if loss_type == "softmax" else tf.nn.sigmoid
    columns = [
        tf.argmax(logits, -1),
        tf.reduce_max(activation(logits), -1),
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

    With several labels, also ``multi_label_sums``. No shape depends on a value, as XLA wants it.
    """
    logits = tf.where(is_real[:, tf.newaxis], logits, _NO_LOGIT)
    loss = LOSSES[loss_type](logits, targets, label_smoothing=0.0, global_batch_size=1)
    if loss_type == "softmax" and not multi_label:
        labels = tf.argmax(targets, -1)
        hits = [top_k_correct(logits, labels, k=k) for k in (1, 5)]
    else:
        hits = [any_in_top_k(logits, targets, k=k) for k in (1, 5)]
    counts = [tf.reduce_sum(tf.cast(hit & is_real, tf.float32)) for hit in hits]
    sums = tf.stack([tf.reduce_sum(tf.cast(is_real, tf.float32)), loss, *counts])
    return tf.concat([sums, multi_label_sums(logits, targets, is_real)], 0) if multi_label else sums
