"""Quantises a folded float model to 8 bits, calibrated on images.

Works layer by layer, in order: the weights of a layer are rounded so that, on the outputs of the
quantised layers before it, its outputs come near to the float network's. So each layer corrects for
what those before it lost, as bias correction does (arXiv 1906.04721, section 4.2; arXiv 2106.08295,
section 3).

Activations have one range per tensor, weights one step per output channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.int8.arithmetic import CONVOLUTIONS, WEIGHTED, linear, run_float
from efficientnetv2.int8.ranges import affine, best_range
from efficientnetv2.int8.round_weights import round_depthwise, round_layer
from efficientnetv2.int8.rounded_network import (
    Range,
    RoundedNetwork,
    Weights,
    float_weights,
    sources,
)
from efficientnetv2.model.fold_batchnorm import is_depthwise

_MAX_INPUT_VALUES = 24_000_000  # float32 values that the rounding of a layer looks at
_MAX_POSITIONS = 24_000


@dataclasses.dataclass(frozen=True)
class LayerNoise:
    """The quantisation noise of one layer.

    Attributes:
      layer: the layer's name.
      kernel_db: signal-to-noise ratio of its rounded weights, dB.
      output_db: signal-to-noise ratio of its outputs, dB: the noise is their difference from the
        float network's, to which all layers so far add. Low is bad.
      low: the lowest output that its 8 bits can represent.
      high: the highest.
    """

    layer: str
    kernel_db: float
    output_db: float
    low: float
    high: float


class QuantisedNetwork(RoundedNetwork):
    """A folded model whose rounded weights and ranges were chosen on images.

    Args:
      folded: a model that ``fold`` returned, with one input and one output.
      images: calibration images as the model takes them, float32 ``[N, S, S, C]``.
      progress: called with the number of finished layers and the number of all layers.
    """

    def __init__(
        self,
        folded: keras.Model,
        images: np.ndarray,
        *,
        progress: Callable[[int, int], object] = max,
    ) -> None:
        super().__init__(folded, weights={}, ranges={})
        self.layer_noise: list[LayerNoise] = []
        self._calibrate(tf.constant(images), progress)

    def _range_of(
        self, key: str, tensor: tf.Tensor, *, through: Any = None, margin: Any = None, **_: Any
    ) -> Range:
        """Returns the range of a tensor, which is chosen when it is first used."""
        if key not in self._ranges:
            values = tensor.numpy()
            if margin is not None:
                low, high = margin * float(values.min()), margin * float(values.max())
                self._ranges[key] = affine(low, high)
            else:
                self._ranges[key] = best_range(values, through=through)
        return self._ranges[key]

    def _calibrate(self, images: tf.Tensor, progress: Callable[[int, int], object]) -> None:
        exact: dict[str, tf.Tensor] = {}
        rounded: dict[str, tf.Tensor] = {}
        layers, runner = self._folded.layers, self.runner()
        finished: set[str] = set()
        for layer in layers:
            names = sources(layer)
            exact_inputs = [exact[name] for name in names] or [images]
            inputs = [rounded[name] for name in names] or [images]
            exact[layer.name] = run_float(layer, exact_inputs)
            if isinstance(layer, WEIGHTED):
                target = linear(layer, exact_inputs[0], *float_weights(layer))
                self._weights[layer.name] = _round_weights(layer, inputs[0], target)
            rounded[layer.name] = runner.run(layer, inputs)
            if isinstance(layer, WEIGHTED):
                self._record_noise(layer, exact[layer.name], rounded[layer.name])
            finished.add(layer.name)
            for name in names:  # free the tensors that no later layer uses
                users = self._folded.get_layer(name)._outbound_nodes
                if all(node.operation.name in finished for node in users):
                    exact.pop(name, None)
                    rounded.pop(name, None)
            progress(len(finished), len(layers))

    def _record_noise(
        self, layer: keras.layers.Layer, exact: tf.Tensor, rounded: tf.Tensor
    ) -> None:
        low, high = self._ranges.get(layer.name, (0.0, 0.0))
        kernel = float_weights(layer)[0]
        self.layer_noise.append(
            LayerNoise(
                layer.name,
                kernel_db=_decibels(kernel.numpy(), self._weights[layer.name][0]),
                output_db=_decibels(exact.numpy(), rounded.numpy()),
                low=low,
                high=high,
            )
        )


def _decibels(exact: np.ndarray, rounded: np.ndarray) -> float:
    noise = float(np.mean(np.square(exact - rounded), dtype=np.float64))
    signal = float(np.mean(np.square(exact), dtype=np.float64))
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _round_weights(layer: keras.layers.Layer, inputs: tf.Tensor, target: tf.Tensor) -> Weights:
    """Rounds a layer's weights so that its outputs for ``inputs`` come near to ``target``."""
    kernel = float_weights(layer)[0].numpy()
    channels = target.shape[-1]
    images = inputs[:, tf.newaxis, tf.newaxis] if len(inputs.shape) == 2 else inputs
    outputs = tf.reshape(target, [len(inputs), -1, channels]).numpy()
    size = kernel.size // channels * (channels if is_depthwise(layer) else 1)
    count = max(64, min(_MAX_POSITIONS, _MAX_INPUT_VALUES // size) // len(inputs))
    positions = np.random.default_rng(0).permutation(outputs.shape[1])[:count]
    outputs = outputs[:, positions].reshape(-1, channels)
    patches = np.concatenate([_patches(layer, image, positions) for image in images])
    if is_depthwise(layer):
        flat = kernel.reshape(-1, channels)
        by_channel = patches.reshape(len(outputs), len(flat), channels)
        rounded, bias = round_depthwise(flat, by_channel, outputs)
    else:
        rounded, bias = round_layer(kernel.reshape(-1, channels), patches, outputs)
    return rounded.reshape(kernel.shape), bias


def _patches(layer: keras.layers.Layer, image: tf.Tensor, positions: np.ndarray) -> np.ndarray:
    """The inputs of the kernel at some positions of the output: ``[P, h * w * C]``."""
    if not isinstance(layer, CONVOLUTIONS) or (
        tuple(layer.kernel_size) == (1, 1) and tuple(layer.strides) == (1, 1)
    ):
        return image.numpy().reshape(-1, image.shape[-1])[positions]
    patches = tf.image.extract_patches(
        image[tf.newaxis],
        sizes=[1, *layer.kernel_size, 1],
        strides=[1, *layer.strides, 1],
        rates=[1, *layer.dilation_rate, 1],
        padding=layer.padding.upper(),
    )
    return patches.numpy().reshape(-1, patches.shape[-1])[positions]
