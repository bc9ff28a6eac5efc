"""Normalises batches in training: by the fused kernel, across replicas, or by frozen statistics.

These are Keras's BatchNormalization with the same weights. They differ in the kernel, and in whose
images the moments are taken from.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import keras


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization that trains through TensorFlow's fused kernel, on each replica's images.

    Keras 3 computes the moments in separate ops. The fused kernel also returns the UNBIASED
    variance, so the moving variance follows that, as in Keras 2 and the official code (Keras 3:
    biased).

    Each replica updates its own moving statistics. Average ``per_replica_statistics`` after each
    step, or the statistics that are saved, evaluated and resumed are those of one replica.
    """

    def __init__(self, **options: Any) -> None:
        # In mixed precision the kernel takes 16-bit images, but all its other inputs in float32.
        super().__init__(autocast=False, **options)

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        """Normalises ``[B, H, W, C]`` (or channels first) by the batch's own statistics."""
        if not training or not self.trainable or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            data_format="NHWC" if self.axis in (-1, 3) else "NCHW",
            is_training=True,
        )
        self.update_moving_statistics(mean, variance)
        return outputs

    def update_moving_statistics(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the moving statistics one step towards those of a batch, ``[C]`` each."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))


class SyncBatchNormalization(FusedBatchNormalization):
    """BatchNormalization by the moments of all replicas' images; each must have equally many.

    The gradient is that of one device with the whole batch. One all-reduce per direction and layer
    carries both moments, as in arXiv 1711.07240, section 3.3. With one replica, the fused kernel is
    used.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        """Normalises ``[B, H, W, C]`` (or channels first) by the global batch's statistics."""
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync if context else 1
        if not training or not self.trainable or len(inputs.shape) != 4 or replicas == 1:
            return super().call(inputs, training=training, mask=mask)
        channel = self.axis % 4
        axes = [axis for axis in range(4) if axis != channel]
        shape = [-1 if axis == channel else 1 for axis in range(4)]
        values = tf.cast(inputs, tf.float32)
        mean, variance = tf.nn.moments(values, axes)
        # The variance of all images is E[v + (m - a)^2] - (E[m] - a)^2 for any a; one near the mean
        # avoids cancellation.
        shift = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        moments = tf.stack([mean - shift, variance + (mean - shift) ** 2])
        offset, square = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.MEAN, moments))
        mean, variance = offset + shift, square - offset**2
        outputs = tf.nn.batch_normalization(
            values,
            *(tf.reshape(v, shape) for v in (mean, variance, self.beta.value, self.gamma.value)),
            variance_epsilon=self.epsilon,
        )
        count = tf.cast(tf.size(values) / tf.shape(values)[channel], tf.float32) * replicas
        self.update_moving_statistics(mean, variance * count / tf.maximum(count - 1.0, 1.0))
        return tf.cast(outputs, inputs.dtype)


class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization that also trains by the moving statistics, and never updates them."""

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        """Normalises as in inference."""
        del training
        return super().call(inputs, training=False, mask=mask)


def per_replica_statistics(model: keras.Model) -> list[tf.Variable]:
    """Returns the moving statistics that differ between replicas after a training step."""
    return [
        variable.value
        for layer in model.layers
        if type(layer) is FusedBatchNormalization
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
