"""Draws example images of each stage of a training, and the schedule of the stages."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efficientnetv2.data.bad_images import SKIPPED, SkippedLog
from efficientnetv2.data.preprocess import to_pixels
from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.data.sources import Source
from efficientnetv2.data.train_input import Phase, TrainingInput, build_training_input
from efficientnetv2.data.training_image import jitter_strengths
from efficientnetv2.reporting.figures import (
    BLUE,
    GREY,
    ORANGE,
    fitted,
    plain,
    plain_axes,
    save_figure,
)
from efficientnetv2.train.progressive import Stage, build_ends, regularisation
from hparams.channels import normalisation_of
from hparams.choices import AUGMENTATIONS
from hparams.config import Config
from hparams.factors import FACTORS

# Which sizes to show if they are drawn at random: from the first (0) to the last (1).
_RANDOM_SHARES = (0.0, 1 / 3, 2 / 3, 1.0)
_PREVIEW_DPI = 200  # enough to show an image of 380 px in more than 200
# Lengths, in inches.
_WIDTH = 11.0
_TITLE = 0.45  # height of the title
_LABEL = 1.8  # width of the text at the left
_MAX_SIDE = 2.0  # of an image
_GAP = 0.06  # between images
_LINE = 0.175  # height of a line of text
_AXIS = 0.5  # width of the numbers at a panel's axis
_CHARACTER = 0.07  # width of a digit of a label
_COLOURS = (BLUE, ORANGE, GREY, "#7a9a3a", "#8a5a9a")


@dataclasses.dataclass(frozen=True)
class PreviewRow:
    """Images of one stage, or of one size where sizes are drawn at random.

    Attributes:
      title: for example ``stage 1 of 4, epochs 1 to 87``.
      strengths: lines of text, for example ``128 px`` and ``RandAugment 5``.
      images: uint8 ``[N, S, S, 3]``, with the normalisation undone.
    """

    title: str
    strengths: list[str]
    images: np.ndarray


def preview_rows(
    config: Config, source: Source, plan: Sequence[Stage], *, columns: int
) -> list[PreviewRow]:
    """Runs the same images through the training pipeline with the settings of each stage.

    With ``data.on_bad_image=skip``, others stand in for those that cannot be read; they are named
    on stderr.

    Args:
      config: the complete config.
      source: the data set.
      plan: the stages of the training.
      columns: images per row; mixup and CutMix mix the images of a row.

    Raises:
      DataError: if an image cannot be read, or with ``data.on_bad_image=skip`` none of a row.
    """
    phase = Phase(0, 0, source.num_images(config.data.train_split) // columns, columns)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        log = SkippedLog(pathlib.Path(folder) / "bad_images.txt")
        for title, settings in _settings(config, plan):
            values = {name: np.array([value]) for name, value in settings.asdict().items()}
            schedule = SettingsSchedule(np.array([0]), StepSettings(**values))
            pipeline = build_training_input(
                config, source, phases=[phase], settings=schedule, skipped=log
            )
            images = to_pixels(_first_images(pipeline).numpy(), normalisation_of(config.model))
            rows.append(PreviewRow(title, _strengths(config, settings), images))
        for name in log.names():  # once, not for each row
            print(f"{SKIPPED}{name}", file=sys.stderr, flush=True)
    return rows


def _first_images(pipeline: TrainingInput) -> tf.Tensor:
    try:
        images, *_ = next(iter(pipeline.batches()))
    except tf.errors.OpError as error:
        pipeline.raise_bad_image(error, step=0)
    return images


def _settings(config: Config, plan: Sequence[Stage]) -> list[tuple[str, StepSettings]]:
    if config.train.size_schedule != "random":
        return [
            (f"stage {stage.index + 1} of {len(plan)}, {_epochs(stage)}", stage) for stage in plan
        ]
    ends = build_ends(config)
    first, last = ends.image_size
    rows = []
    for share in _RANDOM_SHARES:
        size = round(first + (last - first) * share)
        strength = regularisation(ends, share if config.train.adaptive_regularisation else 1.0)
        settings = StepSettings(image_size=size, batch_size=config.train.batch_size, **strength)
        rows.append(("size drawn at random", settings))
    return rows


def _epochs(stage: Stage) -> str:
    if stage.end_epoch - stage.first_epoch == 1:
        return f"epoch {stage.end_epoch}"
    return f"epochs {stage.first_epoch + 1} to {stage.end_epoch}"


def _strengths(config: Config, settings: StepSettings) -> list[str]:
    augmentation = AUGMENTATIONS[config.data.augname]
    lines = []
    for name, factor in FACTORS.items():
        value = getattr(settings, name)
        if factor.of_augmentation:
            if name in augmentation.arguments:
                lines.append(f"{augmentation.title} {factor.label.format(value)}")
            elif augmentation.title:
                lines.append(augmentation.title)
        elif value:
            lines.append(factor.label.format(value))
    return lines + _constant_strengths(config)


def _constant_strengths(config: Config) -> list[str]:
    """Returns lines on the augmentations that are the same in all stages, such as cutout."""
    data = config.data
    jitter = jitter_strengths(data.color_jitter)
    shown_jitter = jitter if len(set(jitter[:3])) > 1 or jitter[3] else jitter[:1]
    lines = {
        "vertical flip": data.vertical_flip,
        "quarter turns": data.quarter_turns,
        f"turns up to {data.rotate:.3g} degrees": data.rotate,
        f"jitter {' '.join(f'{x:.2g}' for x in shown_jitter)}": any(jitter),
        f"cutout {data.cutout:.2g}": data.cutout,
        f"random erasing {data.random_erasing:.2g}": data.random_erasing,
    }
    return [line for line, is_used in lines.items() if is_used]


def draw_preview(rows: Sequence[PreviewRow], path: str | pathlib.Path, *, title: str) -> None:
    """Draws one row per stage, with all images to the same scale.

    Args:
      rows: at least one.
      path: the PNG file to write.
      title: stands above the rows.
    """
    columns = max(len(row.images) for row in rows)
    largest = max(row.images.shape[1] for row in rows)
    cell = min((_WIDTH - _LABEL) / columns - _GAP, _MAX_SIDE)
    sides = [cell * row.images.shape[1] / largest for row in rows]
    texts = [_text(row) for row in rows]
    heights = [max(side, len(text) * _LINE) + 3 * _GAP for side, text in zip(sides, texts)]
    total = _TITLE + sum(heights)
    figure = Figure(figsize=(_WIDTH, total))
    figure.text(_GAP / _WIDTH, 1 - 2 * _GAP / total, plain(title), va="top", fontsize=11)
    top = total - _TITLE
    for row, text, side, height in zip(rows, texts, sides, heights):
        for number, line in enumerate(text):
            place = (_GAP / _WIDTH, (top - number * _LINE) / total)
            weight = "normal" if number else "bold"
            figure.text(*place, line, va="top", fontsize=9, weight=weight)
        for column, image in enumerate(row.images):
            left = _LABEL + column * (cell + _GAP)
            axes = figure.add_axes(
                (left / _WIDTH, (top - side) / total, side / _WIDTH, side / total)
            )
            axes.imshow(image, interpolation="antialiased")
            axes.set_axis_off()
        top -= height
    save_figure(figure, path, dpi=_PREVIEW_DPI)


def _text(row: PreviewRow) -> list[str]:
    """The lines beside a row: ``stage 1 of 4``, ``epochs 1 to 87`` and the strengths."""
    return [*row.title.split(", "), *row.strengths]


def draw_schedule(plan: Sequence[Stage], path: str | pathlib.Path, *, title: str) -> None:
    """Draws image size and strengths over epochs (paper Figure 4), one panel per factor.

    Args:
      plan: the stages of the training.
      path: the PNG file to write.
      title: stands above the panels.
    """
    factors: dict[str, list[float]] = {
        factor.title: [getattr(stage, name) for stage in plan] for name, factor in FACTORS.items()
    }
    shown = {name: values for name, values in factors.items() if any(values)}
    edges = [plan[0].first_epoch, *(stage.end_epoch for stage in plan)]
    with plain_axes():
        figure = Figure(figsize=(_WIDTH, 2.6), layout="constrained")
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (name, values), colour in zip(panels, shown.items(), _COLOURS):
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(values, edges, color=colour, baseline=None)
            axes.set_ylim(0, 1.15 * max(values))
            axes.set_xlim(edges[0], edges[-1])
            axes.set_title(name, loc="left", fontsize=9.5)
            axes.set_xlabel("epoch")
            _label(axes, values, edges, width=_WIDTH / len(shown) - _AXIS)
        figure.suptitle(fitted(title, figure))
        save_figure(figure, path)


def _label(axes: Axes, values: Sequence[float], edges: Sequence[int], *, width: float) -> None:
    """Writes each value above its step; if a step is too narrow, labels both ends at the axis."""
    steps = []  # value, first epoch, end epoch; equal neighbours are one step
    for value, group in itertools.groupby(zip(values, edges, edges[1:]), key=lambda step: step[0]):
        _, firsts, ends = zip(*group)
        steps.append((value, firsts[0], ends[-1]))
    inches = width / (edges[-1] - edges[0])
    if any(len(_number(v)) * _CHARACTER > (end - first) * inches for v, first, end in steps):
        ticks = sorted({values[0], values[-1]})
        axes.set_yticks(ticks, labels=[_number(value) for value in ticks])
        return
    for value, first, end in steps:
        place = ((first + end) / 2, value)
        axes.text(*place, _number(value), ha="center", va="bottom", fontsize=8)


def _number(value: float) -> str:
    return f"{value:.3g}" if value >= 1 else f"{value:.2g}"
