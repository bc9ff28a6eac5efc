"""Folds BatchNormalization into convolutions, for faster inference.

Each BatchNormalization is merged into the convolution before it, which gains a bias. At inference
both are linear, so results change only by rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tensorflow import keras

from efficientnetv2.model.flat_model import batch_norm_affine
from efficientnetv2.model.kernels import (
    Bfloat16Convolution,
    Bfloat16OutputConvolution,
    Convolution,
    is_cpu_only,
)
from efficientnetv2.model.parallel_inference import ParallelModel, num_parts
from hparams.errors import shown

Conv2D = keras.layers.Conv2D
DepthwiseConv2D = keras.layers.DepthwiseConv2D
_CONVOLUTIONS = (Conv2D, DepthwiseConv2D)
# These do nothing at inference.
_IDLE = (keras.layers.Dropout, keras.layers.Identity)
MakeLayer = Callable[[keras.layers.Layer, dict[str, Any]], keras.layers.Layer]


def for_inference(model: keras.Model, *, precision: str = "float32") -> keras.Model:
    """Returns a copy of a model that computes the same faster, for inference in this process.

    To save or export, use the original ``model``: the copy has layers that are not Keras's own.
    After ``set_inference_threads``, the copy runs the parts of a batch side by side.

    Args:
      model: built of Keras's own layers, channels last.
      precision: ``float32``, or ``bfloat16`` to round the factors of convolutions, except depthwise
        ones and those of squeeze-and-excitation, to 8 bits of mantissa. Processors with AVX-512
        BF16 or AMX multiply these about twice as fast. Logits then differ in the third digit.

    Raises:
      ValueError: if the precision is anything else.
      TypeError: if ``model`` is no functional Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a functional model of Keras, got {shown(model)}")
    if not hasattr(model, "operations"):  # which only Keras's functional models have
        raise TypeError(f"model must be a functional model, got a {type(model).__name__}")
    if not isinstance(precision, str) or precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {shown(precision)}")
    make = _rebuild_for_cpu if is_cpu_only() else _rebuild
    folded = fold(model, make=make if precision == "float32" else _rebuild_in_bfloat16(model))
    return ParallelModel(folded, parts=num_parts()) if num_parts() > 1 else folded


def _rebuild(layer: keras.layers.Layer, settings: dict[str, Any]) -> keras.layers.Layer:
    return type(layer).from_config(settings)


def _rebuild_for_cpu(layer: keras.layers.Layer, settings: dict[str, Any]) -> keras.layers.Layer:
    return (Convolution if type(layer) is Conv2D else type(layer)).from_config(settings)


def _rebuild_in_bfloat16(model: keras.Model) -> MakeLayer:
    """Also keeps activations between convolutions in 16 bits: half the memory, and no casts."""
    between = _between_convolutions(model)

    def make(layer: keras.layers.Layer, settings: dict[str, Any]) -> keras.layers.Layer:
        if type(layer) is Conv2D:
            kind = Bfloat16OutputConvolution if layer.name in between else Bfloat16Convolution
            return kind.from_config(settings)
        if layer.name in between:
            settings = {**settings, "autocast": False}  # or Keras would widen the 16 bits
        return type(layer).from_config(settings)

    return make


def _between_convolutions(model: keras.Model) -> set[str]:
    """Names of the activations that only convolutions read, and of the ``Conv2D`` before them."""
    names: set[str] = set()
    outputs = _outputs(model)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Activation):
            continue
        chain = [layer, layer.input._keras_history.operation]
        if isinstance(chain[-1], keras.layers.BatchNormalization):
            chain.append(chain[-1].input._keras_history.operation)
        readers = [node.operation for node in layer._outbound_nodes]
        is_read_by_convolutions = all(isinstance(reader, _CONVOLUTIONS) for reader in readers)
        if type(chain[-1]) is Conv2D and is_read_by_convolutions and outputs.isdisjoint(chain):
            names |= {layer.name, chain[-1].name}
    return names


def _outputs(model: keras.Model) -> set[keras.layers.Layer]:
    """Returns the layers whose results a model returns."""
    return {tensor._keras_history.operation for tensor in model.outputs}


def fold(model: keras.Model, *, make: MakeLayer = _rebuild) -> keras.Model:
    """Returns a model with the same inputs, outputs and layer names, without BatchNormalization.

    A BatchNormalization that does not follow a convolution stays, as does one whose convolution the
    model returns, too. Squeeze-and-excitation pools with ``keepdims`` instead of a reshape to a
    fixed size, so that every export format takes any batch size. The model is for inference only:
    dropout is removed.

    Args:
      model: built of Keras's own layers.
      make: (layer, its new settings) -> the layer that replaces it.
    """
    outputs = _outputs(model)  # whose values and shapes must stay
    folded = {
        layer.name: layer.input._keras_history.operation
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and _is_convolution_before(layer)
        and layer.input._keras_history.operation not in outputs
    }
    reshaped = {
        layer.name
        for layer in model.layers
        if _is_reshape_of_pool(layer) and layer.input._keras_history.operation not in outputs
    }
    pools = {model.get_layer(name).input._keras_history.operation.name for name in reshaped}
    with_bias = {convolution.name for convolution in folded.values()}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if layer.name in with_bias:
            settings["use_bias"] = True
        if layer.name in pools:
            settings["keepdims"] = True
        return make(layer, settings)

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        if layer.name in folded or layer.name in reshaped or isinstance(layer, _IDLE):
            return inputs[0]
        return layer(*inputs, **options)

    new = keras.models.clone_model(model, clone_function=clone, call_function=call)
    by_convolution = {convolution.name: name for name, convolution in folded.items()}
    for layer in filter(lambda layer: layer.weights, new.layers):
        old = model.get_layer(layer.name)
        if layer.name in by_convolution:
            layer.set_weights(_folded_weights(old, model.get_layer(by_convolution[layer.name])))
        else:
            layer.set_weights(old.get_weights())
    return new


def is_depthwise(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a depthwise convolution, whose kernel is ``[h, w, C, 1]``."""
    return isinstance(layer, DepthwiseConv2D)


def _is_convolution_before(layer: keras.layers.Layer) -> bool:
    before = layer.input._keras_history.operation
    return (
        isinstance(before, _CONVOLUTIONS)
        and len(before._outbound_nodes) == 1
        and before.activation is keras.activations.linear
    )


def _is_reshape_of_pool(layer: keras.layers.Layer) -> bool:
    """Whether a layer gives a pool's ``[B, C]`` the shape ``[B, 1, 1, C]``, and alone reads it."""
    if not isinstance(layer, keras.layers.Reshape):
        return False
    pool = layer.input._keras_history.operation
    return (
        isinstance(pool, keras.layers.GlobalAveragePooling2D)
        and not pool.keepdims
        and pool.data_format == "channels_last"
        and tuple(layer.output.shape[1:]) == (1, 1, pool.output.shape[-1])
        and len(pool._outbound_nodes) == 1
    )


def _folded_weights(
    convolution: keras.layers.Layer, normalization: keras.layers.BatchNormalization
) -> list[np.ndarray]:
    # In float64, so that the result is rounded only once.
    kernel, *rest = (np.float64(w) for w in convolution.get_weights())
    scale, offset = batch_norm_affine(normalization)
    bias = rest[0] * scale + offset if rest else offset
    by_channel = scale.reshape(kernel.shape[2:]) if is_depthwise(convolution) else scale
    return [np.float32(kernel * by_channel), np.float32(bias)]
