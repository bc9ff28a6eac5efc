"""Reads what the config of a Keras model says of it, and refuses models that cannot be exported.

The config is JSON: that of a ``.keras`` file, or what ``model.to_json()`` returns. Nothing is
built, and TensorFlow is not needed, so that a file that cannot be used is refused at once.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

from efficientnetv2.checkpoints.weight_files import is_keras_zip
from hparams.channels import count_text
from hparams.errors import WeightsError, shown

_CONFIG = "config.json"
_LARGEST_CONFIG = 64 * 2**20  # bytes
_MODELS = ("Functional", "Sequential", "Model")
_MOST_CHANNELS = 16  # as of ``model.channels``
_NUMBER_LOSSES = {
    *("mse", "meansquarederror", "mae", "meanabsoluteerror", "huber", "logcosh"),
    *("mape", "meanabsolutepercentageerror", "msle", "meansquaredlogarithmicerror"),
}
_BINARY_LOSSES = {"binarycrossentropy", "binaryfocalcrossentropy"}


@dataclasses.dataclass(frozen=True)
class ImageModel:
    """What its config says of a model that takes images.

    Attributes:
      height: of its images, pixels; None: any.
      width: likewise.
      channels: of its images.
      predicts_numbers: it was compiled with a loss of numbers, such as the mean squared error.
      is_binary: it was compiled with a binary cross-entropy.
    """

    height: int | None
    width: int | None
    channels: int
    predicts_numbers: bool
    is_binary: bool


def is_keras_model(path: str | pathlib.Path | None) -> bool:
    """Whether a path is a ``.keras`` file, which holds a whole model."""
    try:
        if path is None or not pathlib.Path(path).is_file() or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return is_keras_zip(archive)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read_image_model(path: str | pathlib.Path) -> ImageModel:
    """Returns what the config of a ``.keras`` file says.

    Raises:
      WeightsError: as ``image_model``, or if the config is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_CONFIG).file_size > _LARGEST_CONFIG:
                raise WeightsError(f"refusing to load '{path}': its config is too large")
            content = json.loads(archive.read(_CONFIG))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"'{path}' is not a complete Keras file ({error})") from None
    return image_model(content, what=f"'{path}'")


def image_model(content: Any, *, what: str) -> ImageModel:
    """Returns what a config says of a model that takes images.

    Args:
      content: the config, of ``json.loads``.
      what: names the model in messages.

    Raises:
      WeightsError: if the model has code of its own, another number of inputs than one, an input
        that is not a batch of images, or channels first.
    """
    content = content if isinstance(content, dict) else {}
    settings = content.get("config")
    settings = settings if isinstance(settings, dict) else {}
    layers = settings.get("layers")
    if not isinstance(layers, list) or content.get("class_name") not in _MODELS:
        raise WeightsError(
            f"{what} is neither a Functional nor a Sequential model of Keras, and only these say "
            "what they compute"
        )
    for entry in _entries(settings):
        _require_stock(entry, what)
    inputs = [layer["config"] for layer in layers if layer.get("class_name") == "InputLayer"]
    if len(inputs) > 1:
        names = ", ".join(str(entry.get("name")) for entry in inputs)
        raise WeightsError(f"{what} has {len(inputs)} inputs ({names}); exports take one, images")
    shape = inputs[0].get("batch_shape") if inputs else settings.get("build_input_shape")
    if not shape:
        raise WeightsError(
            f"{what} has not been built, so the shape of its images is unknown; call the model on "
            "images once before you save it"
        )
    if len(shape) != 4 or not shape[3]:
        raise WeightsError(
            f"{what} must take images [batch, height, width, channels], but takes "
            f"{shown(list(shape))}"
        )
    if shape[3] > _MOST_CHANNELS:
        raise WeightsError(
            f"{what} takes images of {count_text(shape[3])}, more than {_MOST_CHANNELS}; the "
            "channels must be the last axis"
        )
    loss = _loss_name(content.get("compile_config"))
    return ImageModel(
        height=shape[1],
        width=shape[2],
        channels=shape[3],
        predicts_numbers=loss in _NUMBER_LOSSES,
        is_binary=loss in _BINARY_LOSSES,
    )


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every object of a config, however deeply models are nested."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _require_stock(entry: dict[str, Any], what: str) -> None:
    """Refuses an object of a config that is not Keras's own."""
    kind, module = str(entry["class_name"]), entry.get("module")
    settings = entry.get("config")
    name = settings.get("name", kind) if isinstance(settings, dict) else settings
    if kind in ("Lambda", "__lambda__"):
        raise WeightsError(
            f"{what} has the Lambda layer '{name}', which is code that no file can carry; use "
            "Keras's layers, such as Rescaling, in its place"
        )
    is_keras = module is None or module == "keras" or str(module).startswith("keras.")
    if not is_keras or ">" in str(entry.get("registered_name")) or kind == "function":
        raise WeightsError(
            f"{what} has '{name}' of the class {kind}, which is not Keras's own; only models of "
            "Keras's layers can be exported"
        )
    if isinstance(settings, dict) and settings.get("data_format") == "channels_first":
        raise WeightsError(
            f"{what} has channels first (layer '{name}'), which LiteRT and a CPU cannot compute; "
            "build it with data_format='channels_last'"
        )


def _loss_name(compiled: Any) -> str:
    loss = compiled.get("loss") if isinstance(compiled, dict) else None
    if isinstance(loss, dict):
        settings = loss.get("config")
        loss = settings if isinstance(settings, str) else loss.get("class_name")
    return str(loss or "").replace("_", "").lower()
