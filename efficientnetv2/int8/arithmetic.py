"""Simulates how LiteRT computes a layer in 8 bits, rounding wherever it rounds.

Tensors stay float32; a ``Quantise`` function rounds them to 256 levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.int8.ranges import affine
from efficientnetv2.int8.ranges import quantise as round_to_levels
from efficientnetv2.model.fold_batchnorm import is_depthwise

_SIGMOID = (0.0, 255 / 256)  # LiteRT's fixed range for outputs in 0..1
_SAME_RANGE = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.GlobalMaxPooling2D,
)
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
WEIGHTED = (*CONVOLUTIONS, keras.layers.Dense)
_KNOWN = (
    *(keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Activation),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.Add, keras.layers.Multiply),
    *(*WEIGHTED, *_SAME_RANGE),
)
_ACTIVATIONS = ("linear", "relu", "relu6", "silu", "sigmoid", "softmax")
_FUSED = ("relu", "relu6")  # LiteRT fuses these with the convolution

# Ranges of features and logits, relative to the calibrated ones. Features tell classes apart: for
# images of classes that calibration did not see, some features are larger, and cutting these off
# would lose just what tells the class.
_FEATURES_MARGIN = 1.5
_LOGITS_MARGIN = 1.2

# How LiteRT (XNNPACK, measured) rounds a value half way between two levels: to the even number of
# steps from 0 (even), to the even number of steps from the lowest level (even_level), or up.
_TIES = {keras.layers.Add: "up", keras.layers.GlobalAveragePooling2D: "even_level"}
# Called as ``quantise(key, tensor, ties="even", **how_its_range_is_chosen)``; returns the tensor,
# rounded.
Quantise = Callable[..., tf.Tensor]
Linear = Callable[..., tf.Tensor]  # called as ``linear``


def is_known(layer: keras.layers.Layer) -> bool:
    """Whether LiteRT's 8-bit arithmetic of a layer is what ``run_layer`` simulates."""
    if type(layer) not in _KNOWN:
        return False
    if _name_of(getattr(layer, "activation", keras.activations.linear)) not in _ACTIVATIONS:
        return False
    if isinstance(layer, CONVOLUTIONS):
        is_plain = tuple(layer.dilation_rate) == (1, 1) and getattr(layer, "groups", 1) == 1
        return is_plain and getattr(layer, "depth_multiplier", 1) == 1
    return not isinstance(layer, keras.layers.Dense) or len(layer.input.shape) == 2


def linear(
    layer: keras.layers.Layer, images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Runs a layer with other weights and no activation; ``[B, H, W, C]`` or ``[B, C]``."""
    if is_depthwise(layer):
        strides = (1, *layer.strides, 1)
        return tf.nn.depthwise_conv2d(images, kernel, strides, layer.padding.upper()) + bias
    if isinstance(layer, keras.layers.Conv2D):
        return tf.nn.conv2d(images, kernel, layer.strides, layer.padding.upper()) + bias
    return tf.matmul(images, kernel) + bias


def run_float(layer: keras.layers.Layer, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Runs a layer in float32, as Keras does at inference."""
    if isinstance(layer, keras.layers.InputLayer):
        return inputs[0]
    return layer(inputs if len(inputs) > 1 else inputs[0], training=False)


def run_layer(
    layer: keras.layers.Layer,
    inputs: Sequence[tf.Tensor],
    kernel: tf.Tensor | None,
    bias: tf.Tensor | None,
    quantise: Quantise,
    linear: Linear = linear,
) -> tf.Tensor:
    """Runs a layer, with ``quantise`` applied wherever LiteRT rounds to 8 bits.

    Args:
      layer: to be run.
      inputs: its inputs, ``[B, H, W, C]`` or ``[B, C]``.
      kernel: its weights, if it has any.
      bias: the same.
      quantise: rounds a tensor.
      linear: runs a layer with weights, as the function ``linear``.
    """
    name = layer.name
    if isinstance(layer, keras.layers.InputLayer):
        return quantise(name, inputs[0], margin=1)
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = _rounded_constant(layer.scale), _rounded_constant(layer.offset)
        scaled = quantise(f"{name}/scaled", inputs[0] * scale, margin=1)
        return quantise(name, scaled + offset, margin=1, ties="up")
    if isinstance(layer, WEIGHTED):
        outputs = linear(layer, inputs[0], kernel, bias)
        activation = _name_of(layer.activation)
        next_activation = activation if activation != "linear" else _sole_activation_after(layer)
        if next_activation in _FUSED:
            if activation == "linear":  # the next layer is the fused activation, and rounds
                return outputs
            return quantise(name, layer.activation(outputs))
        margin = _LOGITS_MARGIN if isinstance(layer, keras.layers.Dense) else None
        through = _silu if next_activation == "silu" else None
        outputs = quantise(name, outputs, through=through, margin=margin)
        return _activate(f"{name}/after", layer.activation, outputs, quantise)
    if isinstance(layer, keras.layers.Activation):
        return _activate(name, layer.activation, inputs[0], quantise)
    outputs = run_float(layer, inputs)
    if isinstance(layer, _SAME_RANGE):
        return outputs
    margin = _FEATURES_MARGIN if _feeds_dense(layer) else None
    return quantise(name, outputs, margin=margin, ties=_TIES.get(type(layer), "even"))


def _rounded_constant(values: np.ndarray | float) -> np.ndarray:
    """Rounds a constant to 8 bits within the range of its values, as the converter does."""
    values = np.asarray(values, np.float32)
    return np.float32(round_to_levels(values, *affine(float(values.min()), float(values.max()))))


def _activate(key: str, activation: Callable, tensor: tf.Tensor, quantise: Quantise) -> tf.Tensor:
    kind = _name_of(activation)
    if kind == "linear":
        return tensor
    if kind == "silu":
        # LiteRT has no SiLU kernel and computes a sigmoid and a product.
        gate = quantise(f"{key}/gate", tf.sigmoid(tensor), known_range=_SIGMOID)
        return quantise(key, tensor * gate)
    known_range = _SIGMOID if kind in ("sigmoid", "softmax") else None
    return quantise(key, activation(tensor), known_range=known_range)


def _name_of(activation: Callable) -> str:
    return str(keras.activations.serialize(activation))


def _sole_activation_after(layer: keras.layers.Layer) -> str | None:
    after = [node.operation for node in layer._outbound_nodes]
    if len(after) == 1 and isinstance(after[0], keras.layers.Activation):
        return _name_of(after[0].activation)
    return None


def input_margin(layer: keras.layers.Layer) -> float | None:
    """Returns by how much a layer's input may exceed its calibrated range; None: by nothing."""
    return _FEATURES_MARGIN if isinstance(layer, keras.layers.Dense) else None


def _feeds_dense(layer: keras.layers.Layer) -> bool:
    after = [node.operation for node in layer._outbound_nodes]
    return any(isinstance(operation, keras.layers.Dense) for operation in after)


def _silu(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-np.clip(values, -60, 60)))
