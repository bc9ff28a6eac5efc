"""Builds the ResNets that the paper compares with (Table 12).

Their bodies are those of ``keras.applications``; pooling, dropout and classifier are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.layers import LayerSet
from efficientnetv2.model.network import Top, classify, model_of

BASELINES: dict[str, Callable[..., keras.Model]] = {
    "resnet50": keras.applications.ResNet50,
    "resnet152": keras.applications.ResNet152,
}
# The last layer at each size of the features, 1/2 to 1/32 of the image.
_LAST_OF_SIZE = {
    name: ("conv1_relu", *(f"conv{stage}_block{n}_out" for stage, n in enumerate(blocks, start=2)))
    for name, blocks in {"resnet50": (3, 4, 6, 3), "resnet152": (3, 8, 36, 3)}.items()
}


def build_baseline(
    name: str,
    top: Top,
    *,
    layer_set: LayerSet,
    bn_momentum: float,
    images: keras.KerasTensor,
    features_only: bool,
    model_name: str,
) -> keras.Model:
    """Builds one ResNet.

    Args:
      name: a row of ``BASELINES``.
      top: pooling and classifier; its ``head_filters`` are not used.
      layer_set: has the constructors of BatchNormalization and dropout.
      bn_momentum: of all BatchNormalization layers.
      images: as in ``network.build_network``, channels last.
      features_only: as in ``network.build_network``.
      model_name: name of the model.

    Returns:
      A functional model, as from ``network.build_network``.
    """
    endpoints = _endpoints(name, images, layer_set=layer_set, bn_momentum=bn_momentum)
    if features_only:
        return model_of(images, endpoints, name=model_name)
    last = endpoints["reduction_5"]
    logits = classify(last, top, layer_set=layer_set, data_format="channels_last")
    return model_of(images, logits, name=model_name)


def _endpoints(
    name: str, pixels: tf.Tensor, *, layer_set: LayerSet, bn_momentum: float
) -> dict[str, tf.Tensor]:
    """Applies Keras's body to our input, with our BatchNormalization and named endpoints."""
    endpoints: dict[str, tf.Tensor] = {}

    def rebuild_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return layer_set.batch_normalization(
                axis=layer.axis, momentum=bn_momentum, epsilon=layer.epsilon, name=layer.name
            )
        return type(layer).from_config(layer.get_config())

    def call_layer(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> tf.Tensor:
        x = layer(*args, **kwargs)
        if layer.name in _LAST_OF_SIZE[name]:
            endpoint = f"reduction_{len(endpoints) + 1}"
            x = endpoints[endpoint] = keras.layers.Identity(name=endpoint)(x)
        return x

    # Only the graph is reused: every layer is built anew, for the size and channels of our input.
    keras.models.clone_model(
        BASELINES[name](include_top=False, weights=None),
        input_tensors=pixels,
        clone_function=rebuild_layer,
        call_function=call_layer,
    )
    return endpoints
