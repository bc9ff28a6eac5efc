"""A network and batches in; loss, top-1 and top-5 out, every image counted once."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.metrics import top_k_correct


def build_evaluator(model: keras.Model) -> Callable[[tf.data.Dataset], dict[str, float]]:
    """Returns a function from evaluation batches to metrics, traced once for all calls.

    The function takes batches of images float32 ``[b, S, S, 3]`` and labels int64 ``[b]``, and
    returns ``images`` (their number), ``loss`` (mean cross-entropy, no smoothing), ``top1`` and
    ``top5`` (shares, 0..1).
    """

    @tf.function(reduce_retracing=True)
    def batch_sums(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(model(images, training=False), tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        hits = [top_k_correct(logits, labels, k=k) for k in (1, 5)]
        sums = [tf.reduce_sum(losses), *(tf.reduce_sum(tf.cast(hit, tf.float32)) for hit in hits)]
        return tf.stack([tf.cast(tf.size(labels), tf.float32), *sums])

    def evaluate(batches: tf.data.Dataset) -> dict[str, float]:
        total = tf.zeros([4], tf.float64)
        for images, labels in batches:
            total += tf.cast(batch_sums(images, labels), tf.float64)
        count, loss, top1, top5 = (float(value) for value in total)
        return {
            "images": int(count),
            "loss": loss / count,
            "top1": top1 / count,
            "top5": top5 / count,
        }

    return evaluate
