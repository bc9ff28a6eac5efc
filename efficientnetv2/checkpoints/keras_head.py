"""Turns the head of a Keras model, such as BatchNormalization and Dense, into one classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from efficientnetv2.checkpoints.keras_file import ConfigLayer, KerasLayer
from hparams.errors import WeightsError

# Layers of a head that change nothing in inference.
_WITHOUT_EFFECT = {
    *("InputLayer", "Dropout", "SpatialDropout1D", "GaussianDropout", "AlphaDropout"),
    *("GaussianNoise", "ActivityRegularization", "Identity", "Flatten", "Reshape"),
}
# Last activations; evaluation and prediction apply the one of train.loss_type to the logits.
_OF_LOGITS = {"linear", "softmax", "sigmoid", "log_softmax"}
_ACTIVATIONS = {"Activation", "Softmax"}
_BODY_END = "top_bn"


@dataclasses.dataclass(frozen=True)
class Head:
    """The classifier of a file.

    Attributes:
      kernel: ``[F, K]``; None: there is no classifier that our networks can have.
      bias: ``[K]``.
      label: name of its last layer in the file.
      used: the layers that it was made of.
      note: why there is none; "" if the file simply has none.
    """

    kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    label: str = ""
    used: tuple[KerasLayer, ...] = ()
    note: str = ""


def find_head(layers: Sequence[KerasLayer], config: Sequence[ConfigLayer]) -> Head:
    """Finds the classifier among the layers that do not belong to the network's body.

    Linear layers in a row are one linear layer: BatchNormalization and Dense without an activation
    are multiplied into the last Dense.

    Args:
      layers: those with values that are not of the body.
      config: of the whole model, in its order; empty: not known.
    """
    dense = [layer for layer in layers if _is_dense(layer)]
    if not dense:
        return Head()
    body = [i for i, layer in enumerate(config) if layer.name == _BODY_END]
    if body:
        return _fold(layers, config[body[-1] + 1 :])
    if len(dense) > 1:
        names = ", ".join(layer.label for layer in dense[:3])
        return Head(note=f"it has {len(dense)} Dense layers ({names}), and not one")
    kernel, bias = _dense_values(dense[0])
    return Head(kernel, bias, dense[0].label, (dense[0],))


def _is_dense(layer: KerasLayer) -> bool:
    shapes = [value.ndim for _, value in layer.variables]
    return shapes in ([2], [2, 1]) and layer.variables[0][0] in ("", "kernel")


def _dense_values(layer: KerasLayer) -> tuple[np.ndarray, np.ndarray]:
    values = [value for _, value in layer.variables]
    return values[0], values[1] if len(values) > 1 else np.zeros(values[0].shape[1], np.float32)


def _fold(layers: Sequence[KerasLayer], head: Sequence[ConfigLayer]) -> Head:
    """Multiplies the layers of a head into one kernel and one bias."""
    by_name = {layer.name: layer for layer in layers}
    kernel = bias = None
    label, is_pooled, is_last = "", False, False
    used: list[KerasLayer] = []
    for layer in _effective(head):
        values, activation = by_name.get(layer.name), _activation(layer)
        if layer.class_name == "GlobalAveragePooling2D" and not is_pooled:
            is_pooled = True
        elif layer.class_name in _ACTIVATIONS and (not is_pooled or activation in _OF_LOGITS):
            is_last = is_pooled and activation != "linear"
        elif not is_pooled or is_last or values is None:
            return _unlike(layer)
        elif layer.class_name == "BatchNormalization" and _fits(values, bias):
            scale, offset = _scale_and_offset(layer, values)
            kernel = np.diag(scale) if kernel is None else kernel * scale
            bias = offset if bias is None else bias * scale + offset
            used.append(values)
        elif (
            layer.class_name == "Dense"
            and activation in _OF_LOGITS
            and _is_dense(values)
            and (kernel is None or kernel.shape[1] == values.variables[0][1].shape[0])
        ):
            kernel, bias = _times(kernel, bias, *_dense_values(values))
            label, is_last = layer.name, activation != "linear"
            used.append(values)
        else:
            return _unlike(layer)
    return Head(kernel, bias, label, tuple(used)) if label else Head()


def _fits(values: KerasLayer, bias: np.ndarray | None) -> bool:
    """Whether a BatchNormalization has its statistics, of as many channels as come in."""
    shapes = {value.shape for _, value in values.variables}
    is_whole = len(shapes) == 1 and len(values.variables) in (2, 3, 4)
    return is_whole and (bias is None or shapes == {bias.shape})


def _times(
    kernel: np.ndarray | None, bias: np.ndarray | None, factor: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if kernel is None or bias is None:
        return factor, offset
    return (kernel @ factor).astype(factor.dtype), (bias @ factor + offset).astype(factor.dtype)


def _unlike(layer: ConfigLayer) -> Head:
    activation = _activation(layer)
    ending = f" with activation {activation}" if activation not in _OF_LOGITS else ""
    return Head(
        note=f"its head has the {layer.class_name} layer '{layer.name}'{ending}, and ours is "
        "average pooling and one Dense layer"
    )


def _effective(head: Sequence[ConfigLayer]) -> Iterator[ConfigLayer]:
    for layer in head:
        is_model = not layer.settings
        if not is_model and layer.class_name not in _WITHOUT_EFFECT:
            yield layer


def _activation(layer: ConfigLayer) -> str:
    """Returns the name of a layer's activation; Keras writes a custom one as a dictionary."""
    default = "softmax" if layer.class_name == "Softmax" else "linear"
    activation = layer.settings.get("activation") or default
    if isinstance(activation, dict):
        activation = activation.get("config")
    return activation if isinstance(activation, str) else "custom"


def _scale_and_offset(layer: ConfigLayer, values: KerasLayer) -> tuple[np.ndarray, np.ndarray]:
    settings = layer.settings
    names = [n for n, key in (("gamma", "scale"), ("beta", "center")) if settings.get(key, True)]
    by_name = dict(zip([*names, "mean", "variance"], (value for _, value in values.variables)))
    if len(names) + 2 != len(values.variables):  # the config is not that of the weights
        raise WeightsError(f"the layer '{layer.name}' does not have the weights of its settings")
    deviation = np.sqrt(by_name["variance"] + float(settings.get("epsilon", 1e-3)))
    scale = by_name.get("gamma", 1.0) / deviation
    return scale, by_name.get("beta", 0.0) - by_name["mean"] * scale
