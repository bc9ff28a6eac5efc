"""Builds the network of a training: in float, or as its 8-bit file computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tensorflow import keras

from efficientnetv2.int8.fake_quant import FakeQuantised
from efficientnetv2.int8.quantizer import QuantisedNetwork
from efficientnetv2.model.factory import build_model, image_input
from efficientnetv2.model.fold_batchnorm import fold
from efficientnetv2.model.layers import STOCK_LAYERS, LayerSet
from hparams.channels import normalisation_of
from hparams.config import Config
from hparams.quantisation import is_quantised


def build_trained_network(config: Config, *, layer_set: LayerSet = STOCK_LAYERS) -> keras.Model:
    """Builds the network whose weights a run of this config keeps.

    It maps normalised images ``[B, S, S, C]`` to logits ``[B, K]``.

    Args:
      config: with ``train.quantise``, the network computes as its 8-bit file.
      layer_set: the layers of a float network.
    """
    if not is_quantised(config):
        return build_model(config.model, layer_set=layer_set)
    model = config.model
    layer = FakeQuantised(
        fold(build_model(model, include_preprocessing=True)), normalisation_of(model)
    )
    images = image_input(
        model, input_shape=(None, None, model.channels), include_preprocessing=False
    )
    return keras.Model(images, layer(images), name=model.model_name)


def quantised_layer(network: keras.Model) -> FakeQuantised:
    """Returns the only layer of a network that computes in 8 bits."""
    layer = network.layers[-1]
    assert isinstance(layer, FakeQuantised)
    return layer


def start_from_float(
    network: keras.Model,
    config: Config,
    trained: keras.Model,
    *,
    pixels: np.ndarray,
    progress: Callable[[int, int], object] = max,
) -> None:
    """Gives a network that computes in 8 bits its first weights, and its ranges, by calibration.

    Args:
      network: from ``build_trained_network``.
      config: of its training.
      trained: the float network, of stock layers, whose normalised images it takes.
      pixels: calibration images, float32 ``[N, S, S, C]``, 0..255.
      progress: as in ``QuantisedNetwork``.
    """
    model = build_model(config.model, include_preprocessing=True)
    model.set_weights(trained.get_weights())
    calibrated = QuantisedNetwork(fold(model), pixels, progress=progress)
    quantised_layer(network).calibrate_with(calibrated)
