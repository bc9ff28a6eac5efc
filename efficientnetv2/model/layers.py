"""Provides the layers and initialisers of every network, for export and for training.

The builder takes its layers from a ``LayerSet``. ``STOCK_LAYERS`` are plain Keras: what is saved
and exported. ``training_layers`` has the same weights under the same names, and adds what only
training needs: BatchNormalization by the fused kernel, over all devices or frozen, a dropout rate
that can change without retracing, dropout masks that are a function of the step, and on a CPU the
kernels of ``kernels.py``.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.batch_norm import (
    FrozenBatchNormalization,
    FusedBatchNormalization,
    SyncBatchNormalization,
)
from efficientnetv2.model.kernels import (
    Bfloat16Convolution,
    Convolution,
    DepthwiseConvolution,
    NarrowConvolution,
    Silu,
    SiluAndMean,
    is_cpu_only,
)


def conv_initializer() -> keras.initializers.Initializer:
    """Normal with standard deviation ``sqrt(2 / fan_out)``, not truncated, as in the official code.

    A depthwise kernel counts as having one output channel.
    """
    return keras.initializers.VarianceScaling(
        2.0, mode="fan_out", distribution="untruncated_normal"
    )


_IMAGENET_CLASSES = 1000  # for which the official initial values were chosen


def dense_initializer(num_features: int, num_classes: int) -> keras.initializers.Initializer:
    """Uniform between plus and minus ``1 / sqrt(num_classes)``, as in the official code.

    With fewer classes than features, as if there were as many, but not more than ImageNet's 1,000:
    the official values for ten classes would be ten times as large as those for ImageNet, and the
    first epochs would only undo that (docs/recipes.md).

    Args:
      num_features: values that the classifier reads.
      num_classes: its outputs.
    """
    counted = max(num_classes, min(num_features, _IMAGENET_CLASSES))
    scale = num_classes / counted / 3.0
    return keras.initializers.VarianceScaling(scale, mode="fan_out", distribution="uniform")


def _activation(function: str, name: str) -> keras.layers.Layer:
    return keras.layers.Activation(function, name=name)


def _activation_and_mean(
    x: tf.Tensor, function: str, *, act_name: str | None, name: str, data_format: str
) -> tuple[tf.Tensor, tf.Tensor]:
    if act_name:
        x = _activation(function, act_name)(x)
    mean = keras.layers.GlobalAveragePooling2D(data_format, name=f"{name}_squeeze")(x)
    is_last = data_format == "channels_last"
    shape = (1, 1, mean.shape[-1]) if is_last else (mean.shape[-1], 1, 1)
    return x, keras.layers.Reshape(shape, name=f"{name}_reshape")(mean)


@dataclasses.dataclass(frozen=True)
class LayerSet:
    """Constructors of the layers that differ between training and export.

    Attributes:
      batch_normalization: a class with the arguments of ``keras.layers.BatchNormalization``.
      head_dropout: (rate, name) -> the dropout layer before the classifier, or None: no layer.
      block_dropout: (rate, name) -> stochastic depth, which drops whole images of a batch.
      convolution: a class with the arguments of ``keras.layers.Conv2D``.
      activated_convolution: the same, for where BatchNormalization and an activation follow.
      depthwise_convolution: a class with the arguments of ``keras.layers.DepthwiseConv2D``.
      activation: (function, name) -> an activation layer.
      activation_and_mean: (x, function, ``act_name``, ``name``, ``data_format``) -> x, activated
        if ``act_name`` is not None, and the mean of each channel of each image, ``[B, 1, 1, C]``
        (``[B, C, 1, 1]`` if channels are first).
    """

    batch_normalization: Callable[..., keras.layers.Layer]
    head_dropout: Callable[[float, str], keras.layers.Layer | None]
    block_dropout: Callable[[float, str], keras.layers.Layer]
    convolution: Callable[..., keras.layers.Layer] = keras.layers.Conv2D
    activated_convolution: Callable[..., keras.layers.Layer] = keras.layers.Conv2D
    depthwise_convolution: Callable[..., keras.layers.Layer] = keras.layers.DepthwiseConv2D
    activation: Callable[[str, str], keras.layers.Layer] = _activation
    activation_and_mean: Callable[..., tuple[tf.Tensor, tf.Tensor]] = _activation_and_mean


_PER_IMAGE = (None, 1, 1, 1)

STOCK_LAYERS = LayerSet(
    batch_normalization=keras.layers.BatchNormalization,
    head_dropout=lambda rate, name: keras.layers.Dropout(rate, name=name) if rate else None,
    block_dropout=lambda rate, name: keras.layers.Dropout(rate, noise_shape=_PER_IMAGE, name=name),
)


class StepContext:
    """Variables that the training layers read at each step.

    Attributes:
      step: int64 scalar variable, the number of finished steps.
      draw: int64 scalar variable, a different number for each pass through the network.
      dropout_rate: float32 scalar variable, rate of the dropout before the classifier.
      seed: of all dropout masks.
    """

    def __init__(self, *, step: tf.Variable, dropout_rate: float, seed: int) -> None:
        self.step = step
        self.draw = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.dropout_rate = tf.Variable(dropout_rate, trainable=False, dtype=tf.float32)
        self.seed = seed


def training_layers(
    context: StepContext,
    *,
    bn_type: str = "per_replica",
    bn_mode: str = "train",
    precision: str = "float32",
) -> LayerSet:
    """Returns the layers of a network for training.

    Args:
      context: read at each step.
      bn_type: ``per_replica`` normalises by the moments of one replica's images, ``sync`` by those
        of all replicas' images.
      bn_mode: ``train``, or ``frozen``: by the moving statistics, which stay as they are; offsets
        and scales are still trained.
      precision: in which convolutions multiply, as for ``dtype_policy``.
    """
    kinds = {"per_replica": FusedBatchNormalization, "sync": SyncBatchNormalization}
    return LayerSet(
        batch_normalization=FrozenBatchNormalization if bn_mode == "frozen" else kinds[bn_type],
        head_dropout=lambda _, name: StepDropout(context.dropout_rate, context=context, name=name),
        block_dropout=lambda rate, name: StepDropout(
            rate, context=context, noise_shape=_PER_IMAGE, name=name
        ),
        **_kernels(precision),
    )


def _silu_or_stock(function: str, name: str) -> keras.layers.Layer:
    return Silu(name) if function == "silu" else _activation(function, name)


def _silu_and_mean_or_stock(
    x: tf.Tensor, function: str, *, act_name: str | None, name: str, data_format: str
) -> tuple[tf.Tensor, tf.Tensor]:
    if function == "silu" and act_name and data_format == "channels_last":
        return SiluAndMean(act_name)(x)
    return _activation_and_mean(x, function, act_name=act_name, name=name, data_format=data_format)


_CPU_KERNELS: dict[str, Any] = {
    "convolution": Convolution,
    "activated_convolution": Convolution,
    "depthwise_convolution": DepthwiseConvolution,
    "activation": _silu_or_stock,
    "activation_and_mean": _silu_and_mean_or_stock,
}
_BFLOAT16_KERNELS = {
    "convolution": Bfloat16Convolution,
    "activated_convolution": NarrowConvolution,
}


def _kernels(precision: str) -> dict[str, Any]:
    if not is_cpu_only():
        return {}
    return {**_CPU_KERNELS, **(_BFLOAT16_KERNELS if precision == "bfloat16" else {})}


def dtype_policy(precision: str) -> str:
    """Returns Keras's dtype policy for a network of ``training_layers`` with this precision.

    Args:
      precision: ``float32``, ``bfloat16`` or ``float16``.
    """
    # On a CPU not all layers use bfloat16; those of ``kernels.py`` that do cast by themselves.
    if precision == "float32" or (precision == "bfloat16" and is_cpu_only()):
        return "float32"
    return f"mixed_{precision}"


class StepDropout(keras.layers.Layer):
    """Dropout whose mask is a function of (seed, layer name, draw, replica).

    A resumed training therefore drops the same elements as an uninterrupted one;
    ``tf.train.Checkpoint`` does not save the state of Keras's own ``SeedGenerator``.

    Args:
      rate: share that is dropped, in [0, 1); a number, or a variable read at each step.
      context: has the draw and the seed.
      noise_shape: shape of the mask; an axis of None has the input's size. None: the input's shape.
      name: of the layer.
    """

    def __init__(
        self,
        rate: float | tf.Variable,
        *,
        context: StepContext,
        noise_shape: Sequence[int | None] | None = None,
        name: str,
    ) -> None:
        super().__init__(name=name)
        # Held in a closure: Keras would track the shared variables as this layer's weights.
        self._read = lambda: (tf.convert_to_tensor(rate), tf.convert_to_tensor(context.draw))
        self._noise_shape = noise_shape
        self._seed = tf.constant([context.seed, zlib.crc32(name.encode())], tf.int64)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns ``inputs`` with some set to 0 and the rest scaled up; unchanged in inference."""
        if not training:
            return inputs
        rate, draw = self._read()
        keep = 1.0 - tf.cast(rate, tf.float32)
        replicas = tf.distribute.get_replica_context()
        replica = tf.cast(replicas.replica_id_in_sync_group, tf.int64) if replicas else 0
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
        """Returns the input's shape."""
        return input_shape
