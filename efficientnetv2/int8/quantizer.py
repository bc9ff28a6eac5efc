"""Quantises a folded float model to 8 bits, calibrated on images.

Works layer by layer, in order. Each layer takes the outputs of the quantised layers before it, and
its weights are rounded so that its own outputs stay close to the float network's. So each layer
compensates for the error of those before it, as bias correction does (arXiv 1906.04721, section
4.2; arXiv 2106.08295, section 3).

Activations have one range per tensor, weights one step per output channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.int8.arithmetic import CONVOLUTIONS, WEIGHTED, linear, run_float
from efficientnetv2.int8.mixed_runner import MixedRunner, weighted_layer_of
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
      output_db: signal-to-noise ratio of its outputs, dB. The noise is their difference from the
        float network's, accumulated over all layers so far. Low is bad.
      own_db: the same ratio after its activation, for the noise that this layer adds alone: its
        inputs are the float network's, rounded to 8 bits. A constant shift of a channel does not
        count, because biases compensate for the shifts of earlier layers.
      low: the lowest output that its 8 bits can represent.
      high: the highest.
    """

    layer: str
    kernel_db: float
    output_db: float
    own_db: float
    low: float
    high: float


class QuantisedNetwork(RoundedNetwork):
    """A folded model whose rounded weights and ranges were chosen on images.

    Args:
      folded: a model that ``fold`` returned, with one input and one output.
      images: calibration images as the model takes them, float32 ``[N, S, S, C]``.
      in_float: layers with weights that stay in float32, each with those after it up to the next
        layer with weights.
      rounds_activations: whether activations have 8 bits. Otherwise they stay float32, which is
        close enough to 16 bits.
      progress: called with the number of finished layers and the number of all layers.
    """

    def __init__(
        self,
        folded: keras.Model,
        images: np.ndarray,
        *,
        in_float: Collection[str] = (),
        rounds_activations: bool = True,
        progress: Callable[[int, int], object] = max,
    ) -> None:
        units = weighted_layer_of(folded) if in_float else {}
        self._in_float = {name for name, unit in units.items() if unit in in_float}
        self._rounds_activations = rounds_activations
        super().__init__(folded, weights={}, ranges={})
        self.layer_noise: list[LayerNoise] = []
        self._calibrate(tf.constant(images), progress)

    def runner(self) -> MixedRunner:
        """Returns what runs the network layer by layer, in order."""
        return MixedRunner(
            lambda layer: self._weights[layer.name],
            self._range_of,
            in_float=self._in_float,
            rounds_activations=self._rounds_activations,
        )

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
        own = _OwnNoise(self._folded)
        layers, runner = self._folded.layers, self.runner()
        finished: set[str] = set()
        for layer in layers:
            names = sources(layer)
            exact_inputs = [exact[name] for name in names] or [images]
            inputs = [rounded[name] for name in names] or [images]
            exact[layer.name] = run_float(layer, exact_inputs)
            rounds = isinstance(layer, WEIGHTED) and layer.name not in self._in_float
            if rounds:
                target = linear(layer, exact_inputs[0], *float_weights(layer))
                rounded_input = runner.integer_inputs(layer, inputs)[0]
                self._weights[layer.name] = _round_weights(layer, rounded_input, target)
            rounded[layer.name] = runner.run(layer, inputs)
            if rounds:
                self._record_noise(layer, exact[layer.name], rounded[layer.name])
            outputs = rounded[layer.name]
            if names:
                rounded_exact = [self._rounded(name, exact[name]) for name in names]
                outputs = runner.run(layer, own.inputs(layer, rounded_exact))
            own.record(layer, exact[layer.name], outputs)
            finished.add(layer.name)
            for name in names:  # free the tensors that no later layer uses
                users = self._folded.get_layer(name)._outbound_nodes
                if all(node.operation.name in finished for node in users):
                    exact.pop(name, None)
                    rounded.pop(name, None)
                    own.outputs.pop(name, None)
            progress(len(finished), len(layers))
        self.layer_noise = [
            dataclasses.replace(row, own_db=own.decibels[row.layer]) for row in self.layer_noise
        ]

    def _rounded(self, name: str, exact: tf.Tensor) -> tf.Tensor:
        """Rounds the output of a layer in the float network as the 8-bit network's is rounded."""
        for key in (f"{name}/rounded", f"{name}/after", name):
            if key in self._ranges:
                return tf.quantization.fake_quant_with_min_max_vars(exact, *self._ranges[key])
        return exact

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
                own_db=0.0,  # known when the layers that belong to it have run
                low=low,
                high=high,
            )
        )


class _OwnNoise:
    """Measures the noise that each layer with weights adds, with those that belong to it."""

    def __init__(self, folded: keras.Model) -> None:
        self._unit = weighted_layer_of(folded)
        self.outputs: dict[str, tf.Tensor] = {}  # with the noise of their own unit alone
        self.decibels: dict[str, float] = {}
        self._activated: set[str] = set()  # units of which a layer after the weights has run

    def inputs(
        self, layer: keras.layers.Layer, rounded_exact: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """The inputs with the noise of this unit; of others, the float network's, rounded."""
        unit = self._unit[layer.name]
        return [
            self.outputs[name] if self._unit[name] == unit else values
            for name, values in zip(sources(layer), rounded_exact)
        ]

    def record(self, layer: keras.layers.Layer, exact: tf.Tensor, outputs: tf.Tensor) -> None:
        """Keeps the outputs of a layer, and measures their noise."""
        self.outputs[layer.name] = outputs
        unit = self._unit[layer.name]
        noise = _decibels(exact.numpy(), _without_shift(exact.numpy(), outputs.numpy()))
        if layer.name == unit:
            self.decibels[unit] = noise
        elif unit in self._activated:
            self.decibels[unit] = min(self.decibels[unit], noise)
        elif unit in self.decibels:  # before an activation, some of the noise has no effect
            self._activated.add(unit)
            self.decibels[unit] = noise


def _without_shift(exact: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Subtracts, per channel, the mean difference from the exact outputs."""
    axes = tuple(range(exact.ndim - 1))
    return outputs - np.float32(np.mean(outputs - exact, axis=axes, dtype=np.float64))


def _decibels(exact: np.ndarray, rounded: np.ndarray) -> float:
    noise = float(np.mean(np.square(exact - rounded), dtype=np.float64))
    signal = float(np.mean(np.square(exact), dtype=np.float64))
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _round_weights(layer: keras.layers.Layer, inputs: tf.Tensor, target: tf.Tensor) -> Weights:
    """Rounds a layer's weights so that its outputs for ``inputs`` stay close to ``target``."""
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
