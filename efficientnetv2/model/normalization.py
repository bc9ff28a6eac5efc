"""BatchNormalization in training: images ``[B, H, W, C]`` in, the same shape out.

Keras's layer with the same weights; what differs is whose moments normalise, and the kernel.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import keras


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization that trains through TensorFlow's fused kernel, by each replica's images.

    Keras 3 computes the moments in ops of their own. The kernel also returns the UNBIASED variance,
    so the moving variance follows that, as in Keras 2 and the official code (Keras 3: biased).

    Each replica moves its own statistics; ``own_statistics`` are to be averaged after each step, or
    what is saved, evaluated and resumed would be one replica's.
    """

    def __init__(self, **options: Any) -> None:
        # In mixed precision the kernel takes 16-bit images, and all else as it is, in float32.
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
        self.move(mean, variance)
        return outputs

    def move(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Takes the moving statistics one step towards a batch's, ``[C]`` each."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))


class SyncBatchNormalization(FusedBatchNormalization):
    """BatchNormalization by the moments of all replicas' images, which must be as many in each.

    The gradient is that of one device with the whole batch. One all-reduce a direction and layer
    carries both moments, as in arXiv 1711.07240, section 3.3; with one replica it is the fused
    kernel.
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
        # The variance is about the mean of all: E[v + (m - a)^2] - (E[m] - a)^2 for any a. Near the
        # mean, a leaves no digits to cancel.
        about = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        both = tf.stack([mean - about, variance + (mean - about) ** 2])
        offset, square = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.MEAN, both))
        mean, variance = offset + about, square - offset**2
        outputs = tf.nn.batch_normalization(
            values,
            *(tf.reshape(v, shape) for v in (mean, variance, self.beta.value, self.gamma.value)),
            variance_epsilon=self.epsilon,
        )
        count = tf.cast(tf.size(values) / tf.shape(values)[channel], tf.float32) * replicas
        self.move(mean, variance * count / tf.maximum(count - 1.0, 1.0))
        return tf.cast(outputs, inputs.dtype)


class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization by the moving statistics, in training too; they stay as they are."""

    def call(self, inputs: tf.Tensor, training: bool = False, mask: None = None) -> tf.Tensor:
        """Normalises as in inference."""
        del training
        return super().call(inputs, training=False, mask=mask)


def own_statistics(model: keras.Model) -> list[tf.Variable]:
    """Returns the moving statistics in which replicas differ after a step."""
    return [
        variable.value
        for layer in model.layers
        if type(layer) is FusedBatchNormalization
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
