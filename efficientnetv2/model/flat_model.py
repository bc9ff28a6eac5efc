"""Writes a Keras model of nested models as one flat model that computes the same at inference."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tensorflow import keras

_IDLE = (
    *(keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout),
    *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise),
    *(keras.layers.ActivityRegularization, keras.layers.Identity),
)
# Augmentation, besides the layers whose names begin with Random.
_AUGMENTATION = ("AugMix", "CutMix", "MixUp", "RandAugment")
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def flatten(model: keras.Model) -> keras.Model:
    """Returns a functional model without nested models, for inference in float32.

    Layers that do nothing at inference are left out: dropout and augmentation. What multiplies and
    adds constants (``Rescaling``, ``Normalization``, a BatchNormalization that does not follow a
    convolution, ``images / 255``) becomes a ``Rescaling``, several in a row a single one; ``ReLU``
    and ``Softmax`` become an ``Activation``. A layer that is used twice becomes two. ``model``
    itself is not changed.

    Args:
      model: a functional or sequential model of Keras's own layers, with one input.

    Raises:
      ValueError: if a layer cannot be rebuilt.
    """
    shape = model.inputs[0].shape
    images = keras.Input(shape[1:], name="image", dtype="float32")
    outputs = _Flattener().run(model, images)
    return keras.Model(images, outputs, name=model.name)


@dataclasses.dataclass(frozen=True)
class _Affine:
    """``source * scale + offset``, each a number or one for each channel."""

    source: keras.KerasTensor
    scale: np.ndarray
    offset: np.ndarray


class _Flattener:
    def __init__(self) -> None:
        self._names = {"image"}
        self._affine: dict[int, _Affine] = {}  # id of an output -> how it was made
        self._tensors: list[keras.KerasTensor] = []  # keeps the ids

    def run(self, model: keras.Model, inputs: Any) -> Any:
        """Calls the layers of a model, and those of the models in it, on other inputs."""
        graph = model if hasattr(model, "_run_through_graph") else None
        if graph is None or isinstance(model, keras.Sequential):
            graph = keras.Model(model.inputs, model.outputs)
        return graph._run_through_graph(inputs, operation_fn=lambda op: op, call_fn=self._call)

    def _call(self, layer: Any, *args: Any, **options: Any) -> Any:
        options.pop("training", None)
        if isinstance(layer, keras.Model):
            return self.run(layer, args[0])
        if _is_idle(layer):
            return args[0]
        affine = _affine_of(layer, args)
        if affine is not None:
            return self._rescaled(affine, layer.name)
        name, kind = self._new_name(layer.name), _activation_of(layer)
        if kind is not None:
            return keras.layers.Activation(kind, name=name)(args[0])
        settings = {**layer.get_config(), "name": name}
        if "dtype" in settings:
            settings["dtype"] = "float32"
        new = type(layer).from_config(settings)
        outputs = new(*args, **options)
        if getattr(layer, "weights", None):
            new.set_weights(layer.get_weights())
        return outputs

    def _rescaled(self, affine: _Affine, name: str) -> keras.KerasTensor:
        before = self._affine.get(id(affine.source))
        if before is not None:
            offset = before.offset * affine.scale + affine.offset
            affine = _Affine(before.source, before.scale * affine.scale, offset)
        layer = keras.layers.Rescaling(
            affine.scale.tolist(), offset=affine.offset.tolist(), name=self._new_name(name)
        )
        outputs = layer(affine.source)
        self._affine[id(outputs)] = affine
        self._tensors.append(outputs)
        return outputs

    def _new_name(self, name: str) -> str:
        """Returns a name that no other layer has: ``dropout``, then ``dropout_1``."""
        unique, count = name, 0
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique


def _is_idle(layer: Any) -> bool:
    name = type(layer).__name__
    is_random = name.startswith("Random") and not isinstance(layer, keras.layers.RandomCrop)
    return isinstance(layer, _IDLE) or is_random or name in _AUGMENTATION


def _activation_of(layer: Any) -> str | None:
    """The name of the activation that a layer is; None: it computes something else."""
    if isinstance(layer, keras.layers.Softmax) and layer.axis == -1:
        return "softmax"
    if isinstance(layer, keras.layers.ReLU) and not (layer.negative_slope or layer.threshold):
        return {None: "relu", 6: "relu6"}.get(layer.max_value)
    return None


def _affine_of(layer: Any, args: tuple[Any, ...]) -> _Affine | None:
    """Returns what a layer multiplies and adds; None: it computes something else."""
    source = args[0]
    if isinstance(layer, keras.layers.Rescaling):
        return _Affine(source, np.float64(layer.scale), np.float64(layer.offset))
    if isinstance(layer, keras.layers.Normalization) and not layer.invert:
        mean, variance = np.float64(layer.mean), np.float64(layer.variance)
        if mean.size in (1, mean.shape[-1] if mean.ndim else 1):
            deviation = np.maximum(np.sqrt(variance), keras.config.epsilon()).ravel()
            return _Affine(source, 1 / deviation, -mean.ravel() / deviation)
    if isinstance(layer, keras.layers.BatchNormalization):
        is_last = layer.axis in (-1, len(source.shape) - 1)
        if is_last and not _is_linear_convolution(source._keras_history.operation):
            scale, offset = batch_norm_affine(layer)
            return _Affine(source, scale, offset)
    return _arithmetic(type(layer).__name__, args) if len(args) == 2 else None


def _is_linear_convolution(layer: Any) -> bool:
    """Whether a BatchNormalization after a layer can be folded into it."""
    return isinstance(layer, _CONVOLUTIONS) and layer.activation is keras.activations.linear


def _arithmetic(kind: str, args: tuple[Any, ...]) -> _Affine | None:
    """The operators of Python on images: ``images / 255``."""
    source, number = args
    if kind in ("Multiply", "Add") and isinstance(source, (int, float)):
        source, number = number, source
    if not isinstance(source, keras.KerasTensor) or not isinstance(number, (int, float)):
        return None
    scale, offset = {
        "TrueDivide": (1 / number if number else None, 0.0),
        "Multiply": (number, 0.0),
        "Add": (1.0, number),
        "Subtract": (1.0, -number),
    }.get(kind, (None, None))
    if scale is None:
        return None
    return _Affine(source, np.float64(scale), np.float64(offset))


def batch_norm_affine(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor and the offset of each channel at inference, float64 ``[C]`` each."""
    mean, variance = np.float64(layer.moving_mean), np.float64(layer.moving_variance)
    gamma = np.float64(layer.gamma) if layer.scale else 1.0
    beta = np.float64(layer.beta) if layer.center else 0.0
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale
