"""Builds networks as ``keras.applications`` does: its arguments, checks, defaults and weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from tensorflow import keras

from efficientnetv2.checkpoints.download import fetch_keras_file
from efficientnetv2.checkpoints.file_settings import model_settings, settings_of_weights
from efficientnetv2.checkpoints.loader import load_weights
from efficientnetv2.checkpoints.model_arguments import (
    check_input_shape,
    check_num_classes,
    check_outputs,
    check_weights,
    model_config,
)
from efficientnetv2.checkpoints.pretrained_model import layer_map_of, weights_path
from efficientnetv2.checkpoints.reader import StoredWeights, read_weights
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.network import normalise_input
from hparams.arguments import check_flag
from hparams.choices import NORMALISATIONS
from hparams.config import ModelSection
from hparams.errors import UserError, WeightsError, shown
from hparams.models import MODELS
from hparams.weights import (
    IMAGENET_RELEASES,
    KERAS_FILES,
    NAMES,
    RELEASES,
    KerasRelease,
    find_release,
    require_weights,
)

IMAGENET = "imagenet"
_SMALLEST_IMAGE = 32  # pixels
_CHANNELS = 3
# What ``keras.applications`` has, where a network of the registry has something else.
_OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "v2": {"bn_momentum": 0.9, "dropout_rate": 0.2},
    "v1": {"bn_momentum": 0.99, "round_down_limit": 0.1},
    "lite": {},
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of a function of ``keras.applications``; its documentation has their meaning.

    ``include_preprocessing`` has no effect on V1, which always normalises.
    """

    include_top: bool
    weights: str | None
    input_tensor: Any
    input_shape: Any
    pooling: str | None
    classes: int
    classifier_activation: Any
    name: str
    include_preprocessing: bool = True


def build_application(model_name: str, arguments: Arguments) -> keras.Model:
    """Builds a network with the arguments of ``keras.applications``.

    Args:
      model_name: a row of ``hparams.models.MODELS``, of family v1, v2 or lite.
      arguments: those of the call.

    Returns:
      A functional model of stock Keras layers, with Keras's names where these have weights.

    Raises:
      UserError: on a wrong argument; a ValueError, as in Keras.
      TypeError: on an argument of a wrong type, such as ``classes="10"``.
    """
    check_weights(arguments.weights)
    if arguments.weights is not None:
        arguments = dataclasses.replace(arguments, weights=os.fspath(arguments.weights))
    _check_arguments(model_name, arguments)
    family = MODELS[model_name].family
    overrides = {**_OVERRIDES[family], "data_format": keras.config.image_data_format()}
    if arguments.weights not in NAMES:  # whose normalisation is a layer; see ``_constants``
        overrides |= model_settings(settings_of_weights(arguments.weights, model_name=model_name))
    config = model_config(model_name, overrides, include_preprocessing=True)
    inputs = _input(config, arguments)
    stored = None  # read before a network is built, which takes seconds
    if arguments.weights is not None:
        stored = _stored_weights(config, arguments.weights, include_top=arguments.include_top)
    model = build_model(
        config,
        images=_normalised(inputs, config, arguments),
        num_classes=arguments.classes,
        include_top=arguments.include_top,
        pooling=None if arguments.include_top else arguments.pooling,
        classifier_activation=arguments.classifier_activation if arguments.include_top else None,
        name=arguments.name,
    )
    if stored is not None:
        _load(model, stored, config, arguments)
    return model


def _check_arguments(model_name: str, arguments: Arguments) -> None:
    include_top = check_flag("include_top", arguments.include_top)
    check_flag("include_preprocessing", arguments.include_preprocessing)
    classes, weights = check_num_classes(arguments.classes), arguments.weights
    activation = arguments.classifier_activation if include_top else None
    check_outputs(
        include_top=include_top,
        features_only=False,
        pooling=None if include_top else arguments.pooling,  # Keras ignores it, too
        classifier_activation=activation,
    )
    if weights is None:
        return
    if weights != IMAGENET or _keras_file(model_name, include_top) is None:
        require_weights(_release_name(model_name, weights), model_name=model_name)
    if include_top and weights in NAMES:
        number = _classes_of(model_name, weights)
        if classes != number:
            raise UserError(
                f"classes must be {number} with weights={shown(weights)} and include_top=True, "
                f"got {classes}"
            )
    allowed = (keras.activations.softmax, keras.activations.linear)
    if keras.activations.get(activation) not in allowed:
        raise UserError(
            "classifier_activation must be None or 'softmax' with pretrained weights, "
            f"got {shown(activation)}"
        )


def _release_name(model_name: str, weights: str) -> str:
    return IMAGENET_RELEASES.get(model_name, weights) if weights == IMAGENET else weights


def _keras_file(model_name: str, include_top: bool) -> KerasRelease | None:
    return KERAS_FILES.get((model_name, include_top))


def _classes_of(model_name: str, weights: str) -> int:
    release = RELEASES.get((model_name, _release_name(model_name, weights)))
    return release.num_classes if release else 1000


def _input(config: ModelSection, arguments: Arguments) -> keras.KerasTensor:
    shape, tensor = _input_shape(config, arguments), arguments.input_tensor
    if tensor is None:
        return keras.Input(shape, name="image")
    if not isinstance(tensor, keras.KerasTensor) or len(tensor.shape) != 4:
        raise UserError(
            "input_tensor must be a Keras tensor of images, such as keras.Input((224, 224, 3)), "
            f"got {shown(tensor)}"
        )
    return tensor


def _input_shape(config: ModelSection, arguments: Arguments) -> tuple[int | None, ...]:
    """Returns the shape of one image, which Keras limits more than the network needs."""
    is_last = config.data_format == "channels_last"

    def in_order(side: int | None) -> tuple[int | None, ...]:
        return (side, side, _CHANNELS) if is_last else (_CHANNELS, side, side)

    include_top, weights = arguments.include_top, arguments.weights
    default = in_order(MODELS[config.model_name].eval_size)
    if arguments.input_shape is None:
        return default if include_top else in_order(None)
    shape = check_input_shape(arguments.input_shape)
    *sides, channels = shape if is_last else (*shape[1:], shape[0])
    if include_top and weights in NAMES and shape != default:
        raise UserError(
            f"input_shape must be {default} with weights={shown(weights)} and include_top=True, "
            f"got {shape}"
        )
    if weights in NAMES and channels != _CHANNELS:
        raise UserError(
            f"input_shape must have {_CHANNELS} channels with weights={shown(weights)}, got {shape}"
        )
    if channels is None or (include_top and None in sides):
        raise UserError(
            "input_shape may have None only as height and width, with include_top=False; got "
            f"{shape}"
        )
    if any(side is not None and side < _SMALLEST_IMAGE for side in sides):
        raise UserError(
            f"input_shape must have at least {_SMALLEST_IMAGE} pixels a side, got {shape}"
        )
    return shape


def _normalised(
    images: keras.KerasTensor, config: ModelSection, arguments: Arguments
) -> keras.KerasTensor:
    """Normalises pixels of 0..255 as Keras does, so that its files and ours are alike.

    V1 has a Normalization layer with weights. It changes nothing without pretrained weights.
    """
    axis = -1 if config.data_format == "channels_last" else 1
    normalisation = NORMALISATIONS[config.preprocess]
    if config.family == "v1":
        x = keras.layers.Rescaling(1 / 255, name="rescaling")(images)
        x = keras.layers.Normalization(axis=axis % 4, name="normalization")(x)
        if arguments.weights == IMAGENET and _keras_file(config.model_name, True):
            # Keras's files have the deviation where Normalization needs its square.
            factors = np.sqrt(255 / np.asarray(normalisation.deviation))
            shape = (-1,) if axis == -1 else (-1, 1, 1)
            scale = factors.reshape(shape).tolist()
            x = keras.layers.Rescaling(scale, name="rescaling_1")(x)
        return x
    if not arguments.include_preprocessing:
        if arguments.weights is None:
            return images
        return keras.layers.Identity(name=f"expects_{normalisation.result}")(images)
    if config.family == "v2" and images.shape[axis] != _CHANNELS:
        normalisation = NORMALISATIONS["v2"]  # there are no constants for other colours
    return normalise_input(images, normalisation, data_format=config.data_format)


def _stored_weights(config: ModelSection, weights: str, *, include_top: bool) -> StoredWeights:
    file = _keras_file(config.model_name, include_top)
    if weights == IMAGENET and file is not None:
        path = fetch_keras_file(file)
    else:
        name = _release_name(config.model_name, weights)
        path = weights_path(name, model_name=config.model_name)
    return read_weights(path, layer_map_of(config), model_name=config.model_name)


def _load(
    model: keras.Model, stored: StoredWeights, config: ModelSection, arguments: Arguments
) -> None:
    """Loads weights, those of V1's Normalization included."""
    kernel = stored.values.get("stem_conv/kernel")
    channels = model.get_layer("stem_conv").kernel.shape[2]
    if kernel is not None and kernel.ndim == 4 and kernel.shape[2] != channels:
        raise WeightsError(
            f"'{stored.path}' is for images of {kernel.shape[2]} channels, not {channels}"
        )
    if config.family != "v1":
        load_application_weights(model, stored)
        return
    layer, weights = model.get_layer("normalization"), str(arguments.weights)
    values = stored.normalization or _constants(config, weights)
    if values["mean"].shape != (channels,):
        raise WeightsError(
            f"'{stored.path}' normalises {len(values['mean'])} channels, not {channels}"
        )
    added = {f"normalization/{name}": value for name, value in values.items()}
    added["normalization/count"] = np.zeros((), np.int32)
    load_application_weights(model, dataclasses.replace(stored, values={**stored.values, **added}))
    layer.finalize_state()
    if weights != IMAGENET and _is_deviation(values["variance"]):
        logging.warning(
            "'%s' is a file of Keras for weights='imagenet'; given as a path, one of its two "
            "normalisations is left out, as in Keras",
            stored.path,
        )


def load_application_weights(model: keras.Model, stored: StoredWeights) -> None:
    """Sets every weight of a model; errors name the arguments of ``keras.applications``.

    Raises:
      WeightsError: as ``load_weights``.
    """
    try:
        load_weights(model, stored)
    except WeightsError as error:
        message = str(error).replace("give num_classes=", "give classes=")
        message = message.replace("give num_classes to make a new one", "give include_top=False")
        raise WeightsError(message) from None


def _constants(config: ModelSection, weights: str) -> dict[str, np.ndarray]:
    """Returns what Normalization needs after ``1/255``, for weights from elsewhere than Keras."""
    name = _release_name(config.model_name, weights)
    is_release = name in NAMES
    row = find_release(config.model_name, name).preprocess if is_release else config.preprocess
    normalisation = NORMALISATIONS[row]
    mean, deviation = (
        np.asarray(values, np.float32) / 255
        for values in (normalisation.mean, normalisation.deviation)
    )
    return {"mean": mean, "variance": deviation**2}


def _is_deviation(variance: np.ndarray) -> bool:
    deviation = np.asarray(NORMALISATIONS["v1"].deviation) / 255
    return variance.shape == deviation.shape and np.allclose(variance, deviation, atol=1e-4)
