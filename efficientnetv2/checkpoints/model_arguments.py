"""Checks the arguments of ``get_model``: types, ranges, and combinations without an effect."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tensorflow import keras

from efficientnetv2.checkpoints.file_settings import settings_of_weights
from hparams.arguments import check_count
from hparams.config import ModelSection
from hparams.errors import UserError, shown
from hparams.limits import LARGEST_IMAGE, MOST_CHANNELS, MOST_CLASSES
from hparams.overrides import Overrides, read_overrides
from hparams.resolve import resolve_model

# Config keys that matter only in a training by main_tf2 -> the value that means what a network of
# ``get_model`` is, and what to do instead.
_TRAINING_KEYS: dict[str, tuple[Any, str]] = {
    "bn_type": (
        "per_replica",
        "joins the devices of a training: give it to main_tf2, as "
        '--hparam_str="model.bn_type=sync"',
    ),
    "bn_mode": (
        "train",
        "is for a training by main_tf2; here, set trainable = False for each BatchNormalization of "
        "the model",
    ),
    "dropout_base": (
        None,
        "is the first stage of progressive learning by main_tf2; here, give dropout_rate",
    ),
    "channels": (3, "is the last entry of input_shape here"),
    **dict.fromkeys(
        ("pixel_mean", "pixel_deviation"),
        ((), "normalises the images of a training by main_tf2; here, normalise your own images"),
    ),
    **dict.fromkeys(
        ("target_mean", "target_deviation"),
        ((), "scales the labels of a training by main_tf2; here, scale your own labels"),
    ),
}

# What ``keras.applications`` has for V2: a few hundred steps of ``fit`` suffice for the moving
# statistics. The paper's 0.99, with which main_tf2 trains, averages over hundreds of steps.
FIT_MOMENTUM = 0.9


def model_config(
    model_name: str,
    overrides: Overrides,
    *,
    include_preprocessing: bool,
    weights: str | os.PathLike[str] | None = None,
) -> ModelSection:
    """Returns the config of a network, and checks that no override is without an effect on it.

    Weights bring the padding, epsilon and normalisation that they were trained with. Keys of a part
    that ``include_top`` or ``features_only`` leaves out are allowed: they describe the network that
    the part was taken from.

    Raises:
      ConfigError: as ``resolve_model``.
      UserError: if a key matters only elsewhere; the message says where. Or if the network has no
        such release.
    """
    config = resolve_model(model_name, overrides)
    given, _ = read_overrides(overrides, section="model")
    for key, (value, reason) in _TRAINING_KEYS.items():
        if f"model.{key}" in given and config[key] != value:
            raise UserError(f"overrides of get_model: {key}={shown(config[key])} {reason}")
    if config.preprocess != resolve_model(model_name).preprocess and not include_preprocessing:
        raise UserError(
            f"overrides of get_model: preprocess={shown(config.preprocess)} is the normalisation "
            "inside the model, so it needs include_preprocessing=True"
        )
    defaults: dict[str, Any] = {"model.bn_momentum": FIT_MOMENTUM}
    of_weights = settings_of_weights(weights, model_name=config.model_name)
    defaults |= {key: value for key, value in of_weights.items() if key.startswith("model.")}
    return resolve_model(model_name, {**defaults, **given})


def check_num_classes(value: Any) -> int:
    """Returns a number of classes; raises as ``check_count``."""
    return check_count("num_classes", value, high=MOST_CLASSES)


def check_weights(value: Any) -> None:
    """Checks the type of ``weights``; ``hparams.weights.require_weights`` checks the rest.

    Raises:
      TypeError: if it is neither None, text nor a path.
    """
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"weights must be None, a name or a path, got {shown(value)}")


def check_input_shape(value: Any) -> tuple[int | None, int | None, int | None]:
    """Returns the shape of an image.

    Args:
      value: three entries, in any sequence; None is an unknown height, width or, as
        ``build_model`` says, number of channels.

    Raises:
      TypeError: if it is no sequence, or an entry is neither None nor a whole number.
      ValueError: if it has not 3 entries, or one is out of range.
    """
    # Lists, arrays and TensorShapes are fine; a set has no order.
    is_sequence = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    if not is_sequence or isinstance(value, (str, bytes, Mapping)):
        raise TypeError(f"input_shape must be (height, width, channels), got {shown(value)}")
    try:
        entries = tuple(value)
    except ValueError:  # a TensorShape of unknown rank
        entries = ()
    if len(entries) != 3:
        raise ValueError(f"input_shape must have 3 entries, got {shown(entries)}")
    high = max(LARGEST_IMAGE, MOST_CHANNELS)
    first, second, third = (
        None if entry is None else check_count("each entry of input_shape", entry, high=high)
        for entry in entries
    )
    return first, second, third


def check_outputs(
    *, include_top: bool, features_only: bool, pooling: Any, classifier_activation: Any
) -> None:
    """Checks what the network returns, and that no argument is for a part that it lacks.

    Raises:
      ValueError: on an unknown value, or one without an effect.
    """
    if pooling is not None and not (isinstance(pooling, str) and pooling in ("avg", "max")):
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {shown(pooling)}")
    if features_only and pooling is not None:
        raise ValueError("features_only returns the features of each size, without pooling")
    if include_top and pooling is not None:
        raise ValueError(
            f"pooling={pooling!r} needs include_top=False: a classifier has its own average pooling"
        )
    if classifier_activation is None:
        return
    if features_only or not include_top:
        raise ValueError(
            f"classifier_activation={shown(classifier_activation)} needs a classifier, so "
            "include_top=True and features_only=False"
        )
    if not callable(classifier_activation):
        try:
            keras.activations.get(classifier_activation)
            is_known = isinstance(classifier_activation, str)
        except (ValueError, TypeError):
            is_known = False
        if not is_known:
            raise ValueError(
                "classifier_activation must be None or an activation of Keras such as 'softmax', "
                f"got {shown(classifier_activation)}"
            )
