"""Says how images of any number of channels are normalised, and which settings are for colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from hparams.choices import NORMALISATIONS, Normalisation
from hparams.config import Config, ModelSection
from hparams.errors import DataError, UserError

RGB, GREY = 3, 1  # numbers of channels
_NO_AUGMENTATION = "none"


def normalisation_of(model: ModelSection) -> Normalisation:
    """Returns how the images of a network are normalised.

    Raises:
      UserError: if that is known only once the training images are read, and they are not.
    """
    measured = measured_normalisation(model)
    if measured is not None:
        return measured
    if model.channels != RGB:
        raise UserError(
            f"images of {count_text(model.channels)} are normalised by the mean and deviation of "
            "the training images, which are not known here: give model.pixel_mean and "
            "model.pixel_deviation, or --weights=RUN, a run directory"
        )
    return NORMALISATIONS[model.preprocess]


def measured_normalisation(model: ModelSection) -> Normalisation | None:
    """Returns the normalisation by ``model.pixel_mean``; None: it is that of ``preprocess``."""
    if not model.pixel_mean:
        return None
    return Normalisation(tuple(model.pixel_mean), tuple(model.pixel_deviation), "mean_std")


def is_measured_later(model: ModelSection) -> bool:
    """Returns whether the normalisation has to be measured on the training images."""
    return model.channels != RGB and not model.pixel_mean


def count_text(channels: int) -> str:
    """Returns a number of channels in words: ``1 channel``, ``4 channels``."""
    return f"{channels} channel{'' if channels == 1 else 's'}"


def settings_of_channels(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that the number of channels implies, if the user gives no others.

    The published augmentations are for colour photos.

    Args:
      given: ``section.key`` -> value, perhaps as text; a wrong number is refused elsewhere.
    """
    channels = str(given.get("model.channels", RGB)).strip()
    return {} if channels == str(RGB) else {"data.augname": _NO_AUGMENTATION}


def channel_problems(config: config_dict.ConfigDict) -> list[str]:
    """Returns one line for each setting that does not fit the number of channels."""
    model, data = config.model, config.data
    own = f"model.channels={model.channels}"
    problems = []
    means, deviations = len(model.pixel_mean), len(model.pixel_deviation)
    if (means or deviations) and (means, deviations) != (model.channels, model.channels):
        problems.append(
            "model.pixel_mean and model.pixel_deviation must have a number for each of the "
            f"{count_text(model.channels)}, got {means} and {deviations}"
        )
    has_jitter = any(data.color_jitter)
    if model.channels not in (GREY, RGB):
        if data.augname != _NO_AUGMENTATION:
            problems.append(
                f"data.augname={data.augname} changes colours, so it is for images of 1 or 3 "
                f"channels, not for {own}; give none"
            )
        if has_jitter:
            problems.append(
                f"data.color_jitter is for images of 1 or 3 channels, not for {own}; give 0"
            )
    if model.channels == GREY and len(data.color_jitter) == 4 and data.color_jitter[3]:
        problems.append(f"data.color_jitter: grey images ({own}) have no hue; give three numbers")
    if model.channels != RGB and data.service is not None:
        problems.append(
            f"data.service reads images of 3 channels only, not {own}; do without one of them"
        )
    return problems


def require_files(config: Config) -> None:
    """Checks that images of so many channels come from a folder or table of one's own.

    Raises:
      DataError: if not.
    """
    channels, data = config.model.channels, config.data
    if channels not in (GREY, RGB) and data.source != "folder":
        raise DataError(
            f"model.channels={channels} is for files of your own (--data=FOLDER), not for the data "
            f"set {data.ds_name}, whose images have 3"
        )
