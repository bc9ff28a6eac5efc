"""Computes what a network costs: multiply-adds, and memory for activations."""

from __future__ import annotations

import math

from tensorflow import keras

from efficientnetv2.model.kernels import Silu, SiluAndMean


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiply-adds of one image: convolutions, depthwise convolutions and dense layers.

    Squeeze-and-excitation is included; BatchNorm (folded away for inference), activations,
    additions and pooling are not. This is the figure that the papers call FLOPs.

    Args:
      model: built with a fixed height and width, for example
        ``get_model(name, input_shape=(384, 384, 3))``.

    Raises:
      ValueError: if the input size is not fixed.
    """
    _require_fixed_size(model)
    return sum(_layer_multiply_adds(layer) for layer in model.layers)


def activation_bytes(
    model: keras.Model, *, bytes_per_value: int = 4, image_size: int | None = None
) -> int:
    """Returns the bytes of activations that training keeps for the backward pass of one image.

    These are the inputs of all layers whose gradient depends on their input: convolutions, dense
    layers, BatchNormalization, activations and products. Each tensor counts once, so a convolution
    with BatchNormalization and SiLU keeps three: its own input and those of the other two. What
    lives only briefly (gradients on their way, the workspace of a kernel) is not counted, nor are
    the weights.

    Args:
      model: as in ``multiply_adds``; with ``image_size`` it may take images of any size.
      bytes_per_value: 4 for float32, 2 for bfloat16.
      image_size: height and width in pixels, for a model without a fixed input size.

    Raises:
      ValueError: if the input size is not fixed, nor given.
    """
    if image_size is None:
        _require_fixed_size(model)
    strides = _strides(model)
    sizes = {
        id(tensor): _values(
            tensor.shape[1:], side=math.ceil((image_size or 0) / strides[id(tensor)])
        )
        for layer in model.layers
        if isinstance(layer, _KEEPS_INPUT)
        for tensor in keras.tree.flatten(layer.input)
    }
    return bytes_per_value * sum(sizes.values())


def _strides(model: keras.Model) -> dict[int, int]:
    """Returns id of each tensor -> how many pixels of the image one of its positions spans."""
    strides: dict[int, int] = {}
    for layer in model.layers:  # each after those that it depends on
        before = max((strides.get(id(t), 1) for t in keras.tree.flatten(layer.input)), default=1)
        stride = getattr(layer, "strides", 1)
        own = stride[0] if isinstance(stride, tuple) else stride
        for tensor in keras.tree.flatten(layer.output):
            strides[id(tensor)] = before * own
    return strides


def _values(shape: tuple[int | None, ...], *, side: int) -> int:
    return math.prod(side if length is None else length for length in shape)


_KEEPS_INPUT = (
    Silu,
    SiluAndMean,
    keras.layers.Dense,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.BatchNormalization,
    keras.layers.Activation,
    keras.layers.Multiply,
)


def _require_fixed_size(model: keras.Model) -> None:
    if None in model.input_shape[1:]:
        raise ValueError(f"the model must have a fixed input size, got {model.input_shape}")


def _layer_multiply_adds(layer: keras.layers.Layer) -> int:
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        shape = layer.output.shape
        positions = shape[1:3] if layer.data_format == "channels_last" else shape[2:4]
        return math.prod(positions) * math.prod(layer.kernel.shape)
    return 0
