"""Layers and initialisers of every network: float32 ``[B, H, W, C]`` in, the same kind out.

The builder takes its normalisation and dropout layers from a ``LayerSet``. ``STOCK_LAYERS`` are
plain Keras: what is saved and exported. ``training_layers`` has the same weights under the same
names, and adds what only training wants: BatchNormalization by the fused kernel, over all devices
or frozen, a dropout rate that can change without a new trace, dropout masks that are a function
of the step, and on a CPU the arithmetic of ``kernels.py``.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.kernels import (
    Bfloat16Convolution,
    Convolution,
    activation,
    is_cpu_alone,
)


def conv_initializer() -> keras.initializers.Initializer:
    """Normal with deviation ``sqrt(2 / fan_out)``, not truncated, as EfficientNets are trained.

    A depthwise kernel counts as having one output channel.
    """
    return keras.initializers.VarianceScaling(
        2.0, mode="fan_out", distribution="untruncated_normal"
    )


def dense_initializer() -> keras.initializers.Initializer:
    """Uniform in plus or minus ``1 / sqrt(number of classes)``."""
    return keras.initializers.VarianceScaling(1.0 / 3.0, mode="fan_out", distribution="uniform")


def _stock_activation(function: str, name: str) -> keras.layers.Layer:
    return keras.layers.Activation(function, name=name)


@dataclasses.dataclass(frozen=True)
class LayerSet:
    """The layers whose training behaviour differs from what is exported.

    Attributes:
      batch_normalization: a class with the arguments of ``keras.layers.BatchNormalization``.
      head_dropout: (rate, name) -> the dropout layer before the classifier, or None for none.
      block_dropout: (rate, name) -> stochastic depth: drops whole images of a batch.
      convolution: a class with the arguments of ``keras.layers.Conv2D``.
      activation: (function, name) -> the layer of an activation.
    """

    batch_normalization: Callable[..., keras.layers.Layer]
    head_dropout: Callable[[float, str], keras.layers.Layer | None]
    block_dropout: Callable[[float, str], keras.layers.Layer]
    convolution: Callable[..., keras.layers.Layer] = keras.layers.Conv2D
    activation: Callable[[str, str], keras.layers.Layer] = _stock_activation


_PER_IMAGE = (None, 1, 1, 1)

STOCK_LAYERS = LayerSet(
    batch_normalization=keras.layers.BatchNormalization,
    head_dropout=lambda rate, name: keras.layers.Dropout(rate, name=name) if rate else None,
    block_dropout=lambda rate, name: keras.layers.Dropout(rate, noise_shape=_PER_IMAGE, name=name),
)


class TrainingState:
    """What the training layers read at each step.

    Attributes:
      step: int64 scalar variable, the number of finished steps.
      draw: int64 scalar variable, another number for each pass through the network.
      dropout_rate: float32 scalar variable, of the dropout before the classifier.
      seed: of all dropout masks.
    """

    def __init__(self, *, step: tf.Variable, dropout_rate: float, seed: int) -> None:
        self.step = step
        self.draw = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.dropout_rate = tf.Variable(dropout_rate, trainable=False, dtype=tf.float32)
        self.seed = seed


def training_layers(
    state: TrainingState,
    *,
    bn_type: str = "per_replica",
    bn_mode: str = "train",
    precision: str = "float32",
) -> LayerSet:
    """Returns the layers for a network that will be trained under ``state``.

    Args:
      state: read at each step.
      bn_type: ``per_replica`` normalises by the moments of one replica's images, ``sync`` by those
        of all replicas' images.
      bn_mode: ``train``, or ``frozen``: by the moving statistics, which stay as they are; offsets
        and scales are still trained.
      precision: what convolutions multiply, as ``dtype_policy`` wants it.
    """
    kinds = {"per_replica": FusedBatchNormalization, "sync": SyncBatchNormalization}
    return LayerSet(
        batch_normalization=FrozenBatchNormalization if bn_mode == "frozen" else kinds[bn_type],
        head_dropout=lambda _, name: StepDropout(state.dropout_rate, state=state, name=name),
        block_dropout=lambda rate, name: StepDropout(
            rate, state=state, noise_shape=_PER_IMAGE, name=name
        ),
        **_kernels(precision),
    )


_CPU_KERNELS: dict[str, Any] = {"convolution": Convolution, "activation": activation}


def _kernels(precision: str) -> dict[str, Any]:
    if not is_cpu_alone():
        return {}
    if precision == "bfloat16":
        return {**_CPU_KERNELS, "convolution": Bfloat16Convolution}
    return _CPU_KERNELS


def dtype_policy(precision: str) -> str:
    """Returns Keras's policy for a network of ``training_layers`` of this precision.

    Args:
      precision: ``float32``, ``bfloat16`` or ``float16``.
    """
    # On a CPU bfloat16 is for products alone, and their layers see to that.
    if precision == "float32" or (precision == "bfloat16" and is_cpu_alone()):
        return "float32"
    return f"mixed_{precision}"


class StepDropout(keras.layers.Layer):
    """Dropout whose mask is a function of (seed, layer name, draw, replica).

    A stopped and resumed training therefore drops what an uninterrupted one would have dropped;
    the state of Keras's own ``SeedGenerator`` is not kept by ``tf.train.Checkpoint``.

    Args:
      rate: share that is dropped, in [0, 1); a number, or a variable read at each step.
      state: where the draw and the seed stand.
      noise_shape: shape of the mask, None for the input's own size; None: as the input.
      name: of the layer.
    """

    def __init__(
        self,
        rate: float | tf.Variable,
        *,
        state: TrainingState,
        noise_shape: Sequence[int | None] | None = None,
        name: str,
    ) -> None:
        super().__init__(name=name)
        # Held in a closure: Keras would track the shared variables as this layer's weights.
        self._read = lambda: (tf.convert_to_tensor(rate), tf.convert_to_tensor(state.draw))
        self._noise_shape = noise_shape
        self._seed = tf.constant([state.seed, zlib.crc32(name.encode())], tf.int64)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns ``inputs`` with parts set to 0 and the rest scaled up, or as they are."""
        if not training:
            return inputs
        rate, draw = self._read()
        keep = 1.0 - tf.cast(rate, tf.float32)
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64) if context else 0
        noise = tf.random.stateless_uniform(
            self._mask_shape(inputs), seed=tf.stack([draw, replica]) + self._seed * 1_000_003
        )
        scale = tf.where(noise < keep, 1.0 / keep, 0.0)
        return inputs * tf.cast(scale, inputs.dtype)

    def _mask_shape(self, inputs: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(inputs)
        if self._noise_shape is None:
            return shape
        return tf.stack(
            [shape[axis] if size is None else size for axis, size in enumerate(self._noise_shape)]
        )

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """Dropout keeps its input's shape."""
        return input_shape


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
