"""Turns labels into training targets: float32 ``[K]``, one-hot, multi-hot, or numbers."""

from __future__ import annotations

import tensorflow as tf


def target_of(label: tf.Tensor, *, num_classes: int, share_weight: bool = False) -> tf.Tensor:
    """Returns 1 at each label of an image, 0 elsewhere; fails on a label outside 0 .. K - 1.

    Numbers stay as they are.

    Args:
      label: int64 scalar, or ``[n]`` for an image of several labels (n may be 0); or numbers,
        float32 ``[K]``.
      num_classes: K.
      share_weight: whether several labels share a weight of 1, as a softmax loss requires (paper
        section 5.2).
    """
    if label.dtype.is_floating:
        return label
    in_range = tf.reduce_all((label >= 0) & (label < num_classes))
    message = tf.strings.format("its label {} is outside 0..{}", (label, num_classes - 1))
    with tf.control_dependencies([tf.debugging.Assert(in_range, [message])]):
        target = tf.one_hot(label, num_classes, on_value=True, off_value=False)
    if label.shape.rank:
        target = tf.reduce_any(target, 0)  # without any label: all False
    target = tf.cast(target, tf.float32)
    if share_weight and label.shape.rank:
        target = tf.math.divide_no_nan(target, tf.reduce_sum(target))
    return target
