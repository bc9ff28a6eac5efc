"""Logits float32 ``[B, K]`` and targets in; float32 scalars out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def softmax_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy summed over this replica's images and divided by the GLOBAL batch.

    Summed over all replicas it is the mean over the global batch, whatever their number.

    Args:
      logits: ``[B, K]``.
      targets: ``[B, K]``, rows that sum to 1 (one-hot, or mixed).
      label_smoothing: share of each target that is spread over all K classes, in [0, 1).
      global_batch_size: images over all replicas, a number or a scalar tensor.
    """
    classes = tf.cast(tf.shape(targets)[-1], tf.float32)
    targets = targets * (1.0 - label_smoothing) + label_smoothing / classes
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(losses) / tf.cast(global_batch_size, tf.float32)


def sigmoid_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float, global_batch_size: tf.Tensor
) -> tf.Tensor:
    """Binary cross-entropy, mean over the classes, for images of any number of labels.

    Arguments as in ``softmax_cross_entropy``, but for ``targets``: ``[B, K]``, each 0..1; smoothing
    draws each towards 1/2.
    """
    targets = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    logits = tf.cast(logits, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    images = tf.reduce_mean(losses, -1)
    return tf.reduce_sum(images) / tf.cast(global_batch_size, tf.float32)


LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "softmax": softmax_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
}


def l2_term(kernels: Sequence[tf.Tensor], *, weight_decay: float) -> tf.Tensor:
    """``weight_decay * sum(w ** 2) / 2`` over all kernels; biases and BatchNorm are left out."""
    if not weight_decay or not kernels:
        return tf.constant(0.0)
    return weight_decay * tf.add_n([tf.nn.l2_loss(tf.cast(k, tf.float32)) for k in kernels])
