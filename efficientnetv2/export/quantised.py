"""A folded float model and images in; the same network in 8 bits, ready to be converted, out.

Layer by layer, in order: the quantised network's own tensors are the inputs for which a layer is
rounded, and the float network's outputs are what it should come near. So a layer makes good what
those before it lost (bias correction and its kin: arXiv 1906.04721, section 4.2; arXiv 2106.08295,
section 3).

Activations have one range a tensor, weights one step an output channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.export.arithmetic import (
    CONVOLUTIONS,
    WEIGHTED,
    linear,
    run_float,
    run_layer,
)
from efficientnetv2.export.ranges import affine, best_range
from efficientnetv2.export.rounding import round_depthwise, round_layer
from efficientnetv2.model.folding import is_depthwise

_NUMBERS = 24_000_000  # inputs that a layer is rounded for, float32, at most
_POSITIONS = 24_000


@dataclasses.dataclass(frozen=True)
class Loss:
    """What 8 bits cost up to and with one layer.

    Attributes:
      layer: its name.
      kernel_db: signal to noise of its rounded weights, dB.
      output_db: signal to noise of its outputs against the float network's, dB; low is bad.
      low: lowest output that 8 bits can say.
      high: highest.
    """

    layer: str
    kernel_db: float
    output_db: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class _Weights:
    kernel: np.ndarray
    bias: np.ndarray


class QuantisedNetwork:
    """A folded model with rounded weights and a range for each tensor.

    Args:
      folded: of ``fold``; one input, one output.
      images: float32 ``[N, S, S, C]``, real ones, as the model takes them.
      progress: called with the number of finished layers and of all.
    """

    def __init__(
        self,
        folded: keras.Model,
        images: np.ndarray,
        *,
        progress: Callable[[int, int], object] = max,
    ) -> None:
        self._folded = folded
        self._weights: dict[str, _Weights] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self.losses: list[Loss] = []
        self._calibrate(tf.constant(images), progress)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Images ``[B, S, S, C]`` to what the 8-bit network answers; float32, with its rounding."""
        tensors: dict[str, tf.Tensor] = {}
        for layer in self._folded.layers:
            inputs = [tensors[name] for name in _sources(layer)] or [images]
            tensors[layer.name] = self._run(layer, inputs)
        return tensors[self._folded.layers[-1].name]

    def _run(self, layer: keras.layers.Layer, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        weights = self._weights.get(layer.name)
        if weights is None:
            return run_layer(layer, inputs, None, None, self._quantise)
        # The converter finds the kernel's steps again: its largest weights are 127 of them.
        kernel, bias = (tf.constant(w, tf.float32) for w in (weights.kernel, weights.bias))
        return run_layer(layer, inputs, kernel, bias, self._quantise)

    def _quantise(
        self,
        key: str,
        tensor: tf.Tensor,
        known: tuple[float, float] | None = None,
        through: Callable[[np.ndarray], np.ndarray] | None = None,
        room: float | None = None,
    ) -> tf.Tensor:
        if key not in self._ranges:
            values = tensor.numpy()
            if known is not None:
                self._ranges[key] = affine(*known)
            elif room is not None:
                self._ranges[key] = affine(room * float(values.min()), room * float(values.max()))
            else:
                self._ranges[key] = best_range(values, through=through)
        low, high = self._ranges[key]
        return tf.quantization.fake_quant_with_min_max_vars(tensor, low, high)

    def _calibrate(self, images: tf.Tensor, progress: Callable[[int, int], object]) -> None:
        exact: dict[str, tf.Tensor] = {}
        rounded: dict[str, tf.Tensor] = {}
        layers = self._folded.layers
        finished: set[str] = set()
        for layer in layers:
            names = _sources(layer)
            exact_inputs = [exact[name] for name in names] or [images]
            inputs = [rounded[name] for name in names] or [images]
            exact[layer.name] = run_float(layer, exact_inputs)
            if isinstance(layer, WEIGHTED):
                target = linear(layer, exact_inputs[0], *_float_weights(layer))
                self._weights[layer.name] = _rounded(layer, inputs[0], target)
            rounded[layer.name] = self._run(layer, inputs)
            if isinstance(layer, WEIGHTED):
                self._note(layer, exact[layer.name], rounded[layer.name])
            finished.add(layer.name)
            for name in names:  # those that nobody will ask for again
                later = self._folded.get_layer(name)._outbound_nodes
                if all(node.operation.name in finished for node in later):
                    exact.pop(name, None)
                    rounded.pop(name, None)
            progress(len(finished), len(layers))

    def _note(self, layer: keras.layers.Layer, exact: tf.Tensor, rounded: tf.Tensor) -> None:
        low, high = self._ranges.get(layer.name, (0.0, 0.0))
        kernel = _float_weights(layer)[0]
        self.losses.append(
            Loss(
                layer.name,
                kernel_db=_decibels(kernel.numpy(), self._weights[layer.name].kernel),
                output_db=_decibels(exact.numpy(), rounded.numpy()),
                low=low,
                high=high,
            )
        )


def _sources(layer: keras.layers.Layer) -> list[str]:
    if isinstance(layer, keras.layers.InputLayer):
        return []
    inputs = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in inputs]


def _decibels(exact: np.ndarray, rounded: np.ndarray) -> float:
    noise = float(np.mean(np.square(exact - rounded), dtype=np.float64))
    signal = float(np.mean(np.square(exact), dtype=np.float64))
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _float_weights(layer: keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor]:
    kernel = tf.convert_to_tensor(layer.weights[0])
    if layer.use_bias:
        return kernel, tf.convert_to_tensor(layer.weights[1])
    channels = kernel.shape[2] if is_depthwise(layer) else kernel.shape[-1]
    return kernel, tf.zeros([channels])


def _rounded(layer: keras.layers.Layer, inputs: tf.Tensor, target: tf.Tensor) -> _Weights:
    kernel = _float_weights(layer)[0].numpy()
    channels = target.shape[-1]
    seen = inputs[:, tf.newaxis, tf.newaxis] if len(inputs.shape) == 2 else inputs
    wanted = tf.reshape(target, [len(inputs), -1, channels]).numpy()
    size = kernel.size // channels * (channels if is_depthwise(layer) else 1)
    positions = max(64, min(_POSITIONS, _NUMBERS // size) // len(inputs))
    places = np.random.default_rng(0).permutation(wanted.shape[1])[:positions]
    wanted = wanted[:, places].reshape(-1, channels)
    patches = np.concatenate([_patches(layer, image, places) for image in seen])
    if is_depthwise(layer):
        flat = kernel.reshape(-1, channels)
        by_channel = patches.reshape(len(wanted), len(flat), channels)
        rounded, bias = round_depthwise(flat, by_channel, wanted)
    else:
        rounded, bias = round_layer(kernel.reshape(-1, channels), patches, wanted)
    return _Weights(rounded.reshape(kernel.shape), bias)


def _patches(layer: keras.layers.Layer, image: tf.Tensor, places: np.ndarray) -> np.ndarray:
    """What the kernel sees at some of the output's places: ``[P, h * w * C]``."""
    if not isinstance(layer, CONVOLUTIONS) or (
        tuple(layer.kernel_size) == (1, 1) and tuple(layer.strides) == (1, 1)
    ):
        return image.numpy().reshape(-1, image.shape[-1])[places]
    patches = tf.image.extract_patches(
        image[tf.newaxis],
        sizes=[1, *layer.kernel_size, 1],
        strides=[1, *layer.strides, 1],
        rates=[1, *layer.dilation_rate, 1],
        padding=layer.padding.upper(),
    )
    return patches.numpy().reshape(-1, patches.shape[-1])[places]
