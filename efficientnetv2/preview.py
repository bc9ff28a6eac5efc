"""A configuration and a source in; what the network will see in each stage out, as pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.pipeline import Leg, TrainingInput, build_training_input
from efficientnetv2.data.settings import SettingsSchedule, StepSettings
from efficientnetv2.data.sources import Source
from efficientnetv2.train.sizes import settings_of
from efficientnetv2.train.stages import Stage, build_ends
from hparams.preprocess import NORMALISATIONS
from hparams.resolve import Config

_RANDOM_SHARES = (0.0, 1 / 3, 2 / 3, 1.0)  # sizes to show where sizes are drawn at random


@dataclasses.dataclass(frozen=True)
class PreviewRow:
    """Images of one stage, or of one size where sizes are drawn at random.

    Attributes:
      title: such as ``stage 1 of 4, epochs 1 to 87``.
      strengths: one line each, such as ``128 px`` and ``RandAugment 5``.
      images: uint8 ``[N, S, S, 3]``, normalisation undone.
    """

    title: str
    strengths: list[str]
    images: np.ndarray


def preview_rows(
    config: Config, source: Source, plan: Sequence[Stage], *, columns: int
) -> list[PreviewRow]:
    """Sends the same images through the training pipeline at the settings of each stage.

    Args:
      config: complete.
      source: of the training images.
      plan: the stages.
      columns: images a row; mixing is among these.
    """
    leg = Leg(0, 0, source.num_images(config.data.train_split) // columns, columns)
    rows = []
    for title, settings in _settings(config, plan):
        schedule = SettingsSchedule(np.array([0]), StepSettings(*map(np.array, zip(settings))))
        pipeline = build_training_input(config, source, legs=[leg], settings=schedule)
        images = _pixels(_first_images(pipeline), preprocess=config.model.preprocess)
        rows.append(PreviewRow(title, _strengths(config, settings), images))
    return rows


def _first_images(pipeline: TrainingInput) -> tf.Tensor:
    try:
        images, _ = next(iter(pipeline.batches()))
    except tf.errors.OpError as error:
        pipeline.raise_bad_image(error, step=0)
    return images


def _settings(config: Config, plan: Sequence[Stage]) -> list[tuple[str, StepSettings]]:
    if config.train.size_schedule != "random":
        return [
            (
                f"stage {stage.index + 1} of {len(plan)}, {_epochs(stage)}",
                settings_of(stage),
            )
            for stage in plan
        ]
    ends = build_ends(config)
    first, last = ends.image_size
    rows = []
    for share in _RANDOM_SHARES:
        size = round(first + (last - first) * share)
        strength = ends.regularisation(share if config.train.adaptive_regularisation else 1.0)
        settings = StepSettings(image_size=size, batch_size=config.train.batch_size, **strength)
        rows.append(("size drawn at random", settings))
    return rows


def _epochs(stage: Stage) -> str:
    if stage.end_epoch - stage.first_epoch == 1:
        return f"epoch {stage.end_epoch}"
    return f"epochs {stage.first_epoch + 1} to {stage.end_epoch}"


def _strengths(config: Config, settings: StepSettings) -> list[str]:
    lines = [f"{settings.image_size} px"]
    if config.data.augname == "randaug":
        lines.append(f"RandAugment {settings.magnitude:.3g}")
    elif config.data.augname == "autoaug":
        lines.append("AutoAugment")
    for name, value in (
        ("mixup", settings.mixup_alpha),
        ("CutMix", settings.cutmix_alpha),
        ("dropout", settings.dropout_rate),
    ):
        if value:
            lines.append(f"{name} {value:.2g}")
    return lines


def _pixels(images: tf.Tensor, *, preprocess: str) -> np.ndarray:
    row = NORMALISATIONS[preprocess]
    pixels = images.numpy() * np.array(row.deviation) + np.array(row.mean)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
