"""Runs a rounded network of which some layers, or all activations, stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.int8.arithmetic import WEIGHTED, input_margin, run_float, run_layer
from efficientnetv2.int8.ranges import STEPS
from efficientnetv2.int8.rounded_network import Runner, sources


class MixedRunner(Runner):
    """A ``Runner`` for networks that mix floats and integers.

    Args:
      weights_of: as of a ``Runner``.
      range_of: as of a ``Runner``.
      in_float: names of the layers that compute in float32.
      rounds_activations: whether activations have 8 bits; otherwise they stay as they are.
    """

    def __init__(
        self,
        weights_of: Callable[[keras.layers.Layer], tuple[Any, Any]],
        range_of: Callable[..., tuple[Any, Any]],
        *,
        in_float: Collection[str],
        rounds_activations: bool,
    ) -> None:
        super().__init__(weights_of, range_of)
        self._in_float = in_float
        self._rounds_activations = rounds_activations

    def run(self, layer: keras.layers.Layer, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Runs the next layer."""
        if layer.name in self._in_float:
            return run_float(layer, inputs)
        if not self._rounds_activations:
            weights = self._weights_of(layer) if isinstance(layer, WEIGHTED) else (None, None)
            kernel, bias = (
                w if w is None else tf.convert_to_tensor(w, tf.float32) for w in weights
            )
            return run_layer(layer, inputs, kernel, bias, _leave)
        return super().run(layer, self.integer_inputs(layer, inputs))

    def integer_inputs(
        self, layer: keras.layers.Layer, inputs: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Rounds the inputs of an 8-bit layer that come from float32 layers."""
        rounded = list(inputs)
        for place, name in enumerate(sources(layer)):
            if name in self._in_float and layer.name not in self._in_float:
                key = f"{name}/rounded"
                low, high = self._range_of(key, inputs[place], margin=input_margin(layer))
                self._steps[name] = (high - low) / STEPS
                rounded[place] = tf.quantization.fake_quant_with_min_max_vars(
                    inputs[place], low, high
                )
        return rounded


def _leave(key: str, tensor: tf.Tensor, **how: Any) -> tf.Tensor:
    """Replaces ``quantise`` where activations are not rounded."""
    del key, how
    return tensor


def weighted_layer_of(folded: keras.Model) -> dict[str, str]:
    """Maps each layer to the layer with weights that it belongs to.

    For a layer without weights, that is the last one before it with weights. For layers before the
    first such layer, such as the input, it is the first.
    """
    layers = folded.layers
    weighted = [layer.name for layer in layers if isinstance(layer, WEIGHTED)]
    place = {name: index for index, name in enumerate(weighted)}
    units: dict[str, str] = {}
    for layer in layers:
        if layer.name in place:
            units[layer.name] = layer.name
        else:
            before = [units[name] for name in sources(layer)]
            units[layer.name] = max(before, key=place.__getitem__, default=weighted[0])
    return units
