"""Trains a folded network with the arithmetic of its 8-bit file: quantisation-aware training."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.int8.arithmetic import WEIGHTED
from efficientnetv2.int8.rounded_network import (
    Range,
    RoundedNetwork,
    Runner,
    Weights,
    float_weights,
    round_to_steps,
    run_network,
)
from hparams.choices import Normalisation

_PARTS = 1024  # pixels are rounded to 1/1024 of a grey level
_PIXELS = 32  # side of the image with which the tensors are listed; any size would do


class FakeQuantised(keras.layers.Layer):
    """A folded network to train: its weights stay float32, and are rounded at each step.

    The gradient of rounding is 1 within a tensor's range and 0 outside (the straight-through
    estimator, arXiv 1712.05877, section 3). Ranges are fixed by ``calibrate_with``, and are among
    the layer's weights, so that checkpoints hold them.

    Args:
      folded: a model that ``fold`` returned; its weights are those of the layer.
      normalisation: of the layer's inputs, which the layer undoes first, as ``folded`` takes pixels
        of 0..255; None: the layer's inputs are those of ``folded``.
    """

    def __init__(self, folded: keras.Model, normalisation: Normalisation | None = None) -> None:
        super().__init__(name="int8", dtype="float32")
        self._folded = folded
        self._normalisation = normalisation
        self._index = {key: index for index, key in enumerate(_keys(folded))}
        self._ranges = self.add_weight(
            name="ranges",
            shape=[len(self._index), 2],
            initializer=keras.initializers.Constant([-1.0, 1.0]),
            trainable=False,
        )

    def calibrate_with(self, network: RoundedNetwork) -> None:
        """Copies the weights and ranges of a calibrated network with the same layers."""
        for layer in self._folded.layers:
            if isinstance(layer, WEIGHTED):
                layer.set_weights(network.weights[layer.name])
        self._ranges.assign([network.ranges[key] for key in self._index])

    def rounded(self, folded: keras.Model, *, divisor: float = 1.0) -> RoundedNetwork:
        """Returns another network with the same layers, and the weights and ranges of this one.

        Args:
          folded: may have an activation at its end, and may take normalised images.
          divisor: by which the logits are divided.
        """
        ranges: dict[str, Range] = {
            key: (float(low), float(high))
            for key, (low, high) in zip(self._index, self._ranges.numpy())
        }
        weights: dict[str, Weights] = {}
        for layer in self._folded.layers:
            if isinstance(layer, WEIGHTED):
                kernel, bias = self._weights_of(layer)
                weights[layer.name] = (kernel.numpy(), bias.numpy())
        last = self._folded.layers[-1].name
        (kernel, bias), (low, high) = weights[last], ranges[last]
        weights[last] = (np.float32(kernel / divisor), np.float32(bias / divisor))
        ranges[last] = (low / divisor, high / divisor)
        first = folded.layers[0].name
        if "rescaling" not in [layer.name for layer in folded.layers]:
            ranges[first] = ranges["rescaling"]
        return RoundedNetwork(folded, weights=weights, ranges=ranges)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the logits ``[B, K]`` of images ``[B, S, S, C]``."""
        if self._normalisation is not None:
            deviation, mean = self._normalisation.deviation, self._normalisation.mean
            pixels = inputs * tf.constant(deviation) + tf.constant(mean)
            inputs = tf.round(pixels * _PARTS) / _PARTS  # as before they were normalised
        runner = Runner(self._weights_of, self._range_of, exact=True)
        return run_network(self._folded, inputs, runner)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the logits, for which Keras would otherwise trace ``call``."""
        return input_shape[0], self._folded.output.shape[-1]

    def _weights_of(self, layer: keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor]:
        kernel, bias = float_weights(layer)
        return round_to_steps(layer, kernel), bias

    def _range_of(self, key: str, tensor: tf.Tensor, **_: Any) -> tuple[tf.Tensor, tf.Tensor]:
        del tensor
        low, high = tf.unstack(tf.convert_to_tensor(self._ranges)[self._index[key]])
        return low, high


def _keys(folded: keras.Model) -> list[str]:
    """Returns the keys of all tensors whose range is calibrated, in the order of their use."""
    keys: list[str] = []

    def record(key: str, tensor: tf.Tensor, **_: Any) -> Range:
        del tensor
        keys.append(key)
        return (-1.0, 1.0)

    images = tf.zeros([1, _PIXELS, _PIXELS, folded.input.shape[-1]])
    run_network(folded, images, Runner(float_weights, record))
    return keys
