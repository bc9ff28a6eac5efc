"""Computes a folded network as its 8-bit file will: with rounded weights and activations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.int8.arithmetic import WEIGHTED, linear, run_layer
from efficientnetv2.int8.ranges import STEPS as LEVEL_STEPS
from efficientnetv2.int8.ranges import affine
from efficientnetv2.int8.round_weights import STEPS
from efficientnetv2.model.fold_batchnorm import is_depthwise

Weights = tuple[np.ndarray, np.ndarray]  # kernel and bias
Range = tuple[float, float]  # of the values that the 256 levels of a tensor span


class RoundedNetwork:
    """A folded model with rounded weights and a range for each tensor.

    Args:
      folded: a model that ``fold`` returned, with one input and one output.
      weights: name of a layer -> its kernel, rounded to multiples of a step per output channel, and
        its bias.
      ranges: key of a tensor (see ``arithmetic.run_layer``) -> its range; those that LiteRT fixes
        are not needed.
    """

    def __init__(
        self,
        folded: keras.Model,
        *,
        weights: Mapping[str, Weights],
        ranges: Mapping[str, Range],
    ) -> None:
        self._folded = folded
        self._weights = dict(weights)
        self._ranges = dict(ranges)

    @property
    def weights(self) -> Mapping[str, Weights]:
        """Name of a layer -> its rounded kernel and its bias."""
        return self._weights

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Key of a tensor -> the range of its values."""
        return self._ranges

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Maps images ``[B, S, S, C]`` to the 8-bit network's outputs, rounded but in float32."""
        return run_network(self._folded, images, self.runner())

    def runner(self) -> Runner:
        """Returns what runs the network layer by layer, in order."""
        return Runner(lambda layer: self._weights[layer.name], self._range_of)

    def _range_of(self, key: str, tensor: tf.Tensor, **_: Any) -> Range:
        """Returns the range of a tensor by its key; subclasses may look at its values."""
        del tensor
        return self._ranges[key]


class Runner:
    """Runs the layers of a folded model, in order, and rounds wherever LiteRT rounds.

    Args:
      weights_of: maps a layer to its rounded kernel and its bias.
      range_of: called with the key of a tensor, the tensor and how its range is chosen (see
        ``arithmetic.run_layer``); returns its range, numbers or scalars.
      exact: whether products are added up as whole numbers, which float32 does without rounding,
        and values half way between two levels are rounded as in LiteRT. The converter can read only
        TensorFlow's own operation, which always takes the larger level.
    """

    def __init__(
        self,
        weights_of: Callable[[keras.layers.Layer], tuple[Any, Any]],
        range_of: Callable[..., tuple[Any, Any]],
        *,
        exact: bool = False,
    ) -> None:
        self._weights_of = weights_of
        self._range_of = range_of
        self._exact = exact
        self._steps: dict[str, Any] = {}  # layer -> the step of its output

    def run(self, layer: keras.layers.Layer, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Runs the next layer."""
        names = sources(layer)
        step = self._steps[names[0]] if names else None

        def quantise(
            key: str,
            tensor: tf.Tensor,
            known_range: Range | None = None,
            ties: str = "even",
            **how: Any,
        ) -> tf.Tensor:
            nonlocal step
            if known_range is not None:
                low, high = affine(*known_range)
            else:
                low, high = self._range_of(key, tensor, **how)
            step = (high - low) / LEVEL_STEPS
            if self._exact and ties != "up":
                offset = tf.round(-low / step) if ties == "even_level" else 0.0
                tensor = _round(tensor, step, offset=offset)
            return tf.quantization.fake_quant_with_min_max_vars(tensor, low, high)

        kernel, bias = None, None
        if isinstance(layer, WEIGHTED):
            kernel, bias = (tf.convert_to_tensor(w, tf.float32) for w in self._weights_of(layer))
            bias = _round_bias(bias, step * tf.reshape(_kernel_step(layer, kernel), [-1]))
        compute = functools.partial(_linear_of_integers, step=step) if self._exact else linear
        outputs = run_layer(layer, inputs, kernel, bias, quantise, compute)
        self._steps[layer.name] = step
        return outputs


def run_network(folded: keras.Model, images: tf.Tensor, runner: Runner) -> tf.Tensor:
    """Runs a folded model layer by layer on images ``[B, S, S, C]``."""
    tensors: dict[str, tf.Tensor] = {}
    for layer in folded.layers:
        inputs = [tensors[name] for name in sources(layer)] or [images]
        tensors[layer.name] = runner.run(layer, inputs)
    return tensors[folded.layers[-1].name]


def sources(layer: keras.layers.Layer) -> list[str]:
    """Returns the names of the layers whose outputs a layer takes."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    inputs = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in inputs]


def float_weights(layer: keras.layers.Layer) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the kernel and bias of a layer that has them; the latter is 0 if it has none."""
    kernel = tf.convert_to_tensor(layer.weights[0])
    if layer.use_bias:
        return kernel, tf.convert_to_tensor(layer.weights[1])
    channels = kernel.shape[2] if is_depthwise(layer) else kernel.shape[-1]
    return kernel, tf.zeros([channels])


def round_to_steps(layer: keras.layers.Layer, kernel: tf.Tensor) -> tf.Tensor:
    """Rounds a layer's kernel as the converter does; gradients pass as if it were not rounded.

    The largest weight of an output channel is 127 steps.
    """
    return _round(kernel, tf.stop_gradient(_kernel_step(layer, kernel)))


def _kernel_step(layer: keras.layers.Layer, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the step of each output channel, in the shape of the kernel but for axes of 1."""
    axes = [0, 1, 3] if is_depthwise(layer) else list(range(len(kernel.shape) - 1))
    largest = tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True)
    return tf.where(largest > 0, largest / STEPS, 1.0)


def _linear_of_integers(
    layer: keras.layers.Layer,
    images: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    step: tf.Tensor | float,
) -> tf.Tensor:
    """Computes ``linear`` of rounded tensors in steps; ``step`` is that of the images."""
    kernel_step = tf.stop_gradient(_kernel_step(layer, kernel))
    sum_step = step * tf.reshape(kernel_step, [-1])

    def in_steps(values: tf.Tensor, step: tf.Tensor | float) -> tf.Tensor:
        return tf.grad_pass_through(tf.round)(values / step)

    sums = linear(
        layer, in_steps(images, step), in_steps(kernel, kernel_step), in_steps(bias, sum_step)
    )
    return sums * sum_step


def _round_bias(bias: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Rounds a bias, which has 32 bits, to the steps of the sum that it is added to, ``[C]``."""
    return _round(bias, tf.stop_gradient(steps))


def _round(values: tf.Tensor, step: tf.Tensor, *, offset: tf.Tensor | float = 0.0) -> tf.Tensor:
    """Rounds to multiples of a step; ties to those that are even when ``offset`` is added."""

    def rounded(exact: tf.Tensor) -> tf.Tensor:
        return (tf.round(exact / step + offset) - offset) * step

    return tf.grad_pass_through(rounded)(values)
