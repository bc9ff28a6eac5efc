"""Preview rows and plans of stages in; PNG pictures out."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efficientnetv2.preview import PreviewRow
from efficientnetv2.train.stages import Stage

# Inches, all but the first two and the last.
_SCHEDULE_DPI = 110
_PREVIEW_DPI = 200  # shows 380 pixels as more than 200
_WIDTH = 11.0
_TITLE = 0.45  # height of the title
_LABEL = 1.8  # width of the text at the left
_LARGEST = 2.0  # side of an image, where there are few
_GAP = 0.06  # between images
_LINE = 0.175  # height of a line of text
_AXIS = 0.5  # width of a panel's numbers
_CHARACTER = 0.07  # width of a digit of a label
_COLOURS = ("#2b5c8a", "#d1791f", "#6b6b6b", "#7a9a3a", "#8a5a9a")


def draw_preview(rows: Sequence[PreviewRow], path: str | pathlib.Path, *, title: str) -> None:
    """Draws one row a stage, all images to one scale: larger images stand larger.

    Args:
      rows: at least one.
      path: the PNG file to write.
      title: above the picture.
    """
    columns = max(len(row.images) for row in rows)
    largest = max(row.images.shape[1] for row in rows)
    cell = min((_WIDTH - _LABEL) / columns - _GAP, _LARGEST)
    sides = [cell * row.images.shape[1] / largest for row in rows]
    texts = [_text(row) for row in rows]
    heights = [max(side, len(text) * _LINE) + 3 * _GAP for side, text in zip(sides, texts)]
    total = _TITLE + sum(heights)
    figure = Figure(figsize=(_WIDTH, total))
    figure.text(_GAP / _WIDTH, 1 - 2 * _GAP / total, title, va="top", fontsize=11)
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
    figure.savefig(path, dpi=_PREVIEW_DPI)


def _text(row: PreviewRow) -> list[str]:
    """Lines: ``stage 1 of 4``, ``epochs 1 to 87`` and the strengths."""
    return [*row.title.split(", "), *row.strengths]


def draw_schedule(plan: Sequence[Stage], path: str | pathlib.Path, *, title: str) -> None:
    """Draws image size and strengths over epochs (paper Figure 4), one panel a factor.

    Args:
      plan: the stages.
      path: the PNG file to write.
      title: above the panels.
    """
    factors: dict[str, list[float]] = {
        "image size (px)": [stage.image_size for stage in plan],
        "RandAugment magnitude": [stage.magnitude for stage in plan],
        "mixup alpha": [stage.mixup_alpha for stage in plan],
        "CutMix alpha": [stage.cutmix_alpha for stage in plan],
        "dropout rate": [stage.dropout_rate for stage in plan],
    }
    shown = {name: values for name, values in factors.items() if any(values)}
    edges = [plan[0].first_epoch, *(stage.end_epoch for stage in plan)]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
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
        figure.suptitle(title)
        figure.savefig(path, dpi=_SCHEDULE_DPI)


def _label(axes: Axes, values: Sequence[float], edges: Sequence[int], *, width: float) -> None:
    """Writes each value above its step; where these are too narrow, the ends at the axis."""
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
