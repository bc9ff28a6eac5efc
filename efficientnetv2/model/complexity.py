"""Cost of a network: a ``keras.Model`` of fixed input size in; multiply-adds out."""

from __future__ import annotations

import math

from tensorflow import keras


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiply-adds of one image: convolutions, depthwise convolutions and dense layers.

    Squeeze-and-excitation is counted; BatchNorm (folded away in inference), activations, additions
    and pooling are not. This is the figure that the papers call FLOPs.

    Args:
      model: built with a fixed height and width, for example
        ``get_model(name, input_shape=(384, 384, 3))``.

    Raises:
      ValueError: if the input size is not fixed.
    """
    if None in model.input_shape[1:]:
        raise ValueError(f"multiply_adds wants a fixed input size, got {model.input_shape}")
    return sum(_layer_multiply_adds(layer) for layer in model.layers)


def _layer_multiply_adds(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        shape = layer.output.shape
        positions = shape[1:3] if layer.data_format == "channels_last" else shape[2:4]
        return math.prod(positions) * math.prod(layer.kernel.shape)
    return 0
