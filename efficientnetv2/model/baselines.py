"""Networks to compare with (paper Table 12): a name in, a functional ``keras.Model`` out.

The bodies are those of ``keras.applications``; pooling, dropout and classifier are this package's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.layers import LayerSet
from efficientnetv2.model.network import Top, classify, normalise_input
from hparams.preprocess import Normalisation

BASELINES: dict[str, Callable[..., keras.Model]] = {
    "resnet50": keras.applications.ResNet50,
    "resnet152": keras.applications.ResNet152,
}
# The last layer at each size, 1/2 to 1/32 of the image.
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
    input_shape: tuple[int | None, int | None, int | None],
    normalisation: Normalisation | None,
    features_only: bool,
) -> keras.Model:
    """Builds one network.

    Args:
      name: a row of ``BASELINES``.
      top: classifier; its ``head_filters`` are not used.
      layer_set: BatchNormalization and dropout.
      bn_momentum: of all BatchNormalization layers.
      input_shape: of one image, channels last; sizes may be None.
      normalisation: as in ``network.build_network``.
      features_only: as in ``network.build_network``.

    Returns:
      A functional model, as ``network.build_network`` returns.
    """
    images = keras.Input(input_shape, name="image")
    pixels = normalise_input(images, normalisation, data_format="channels_last")
    endpoints = _endpoints(name, pixels, layer_set=layer_set, bn_momentum=bn_momentum)
    if features_only:
        return keras.Model(images, endpoints, name=name)
    last = endpoints["reduction_5"]
    logits = classify(last, top, layer_set=layer_set, data_format="channels_last")
    return keras.Model(images, logits, name=name)


def _endpoints(
    name: str, pixels: tf.Tensor, *, layer_set: LayerSet, bn_momentum: float
) -> dict[str, tf.Tensor]:
    """Keras's body on our input, with our BatchNormalization and an ``Identity`` an endpoint."""
    endpoints: dict[str, tf.Tensor] = {}

    def own_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return layer_set.batch_normalization(
                axis=layer.axis, momentum=bn_momentum, epsilon=layer.epsilon, name=layer.name
            )
        return type(layer).from_config(layer.get_config())

    def own_call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> tf.Tensor:
        x = layer(*args, **kwargs)
        if layer.name in _LAST_OF_SIZE[name]:
            endpoint = f"reduction_{len(endpoints) + 1}"
            x = endpoints[endpoint] = keras.layers.Identity(name=endpoint)(x)
        return x

    # Only the graph is taken: every layer is made anew, for the size and the channels of our input.
    keras.models.clone_model(
        BASELINES[name](include_top=False, weights=None),
        input_tensors=pixels,
        clone_function=own_layer,
        call_function=own_call,
    )
    return endpoints
