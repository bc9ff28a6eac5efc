"""Draws the training curves: loss, accuracy, learning rate and image size over steps."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efficientnetv2.reporting.figures import BLUE, GREY, ORANGE, fitted, plain_axes, save_figure


def plot_curves(lines: Sequence[dict[str, Any]], path: str | pathlib.Path, *, title: str) -> None:
    """Draws loss, accuracy, learning rate and image size over steps.

    Args:
      lines: the records of metrics.jsonl, one per epoch; without any, no file is written.
      path: the PNG file to write.
      title: stands above the four panels.
    """
    if not lines:
        return
    with plain_axes():
        figure = Figure(figsize=(9, 6), layout="constrained")
        loss, accuracy, rate, size = figure.subplots(2, 2, sharex=True).flat
        _line(loss, lines, "loss", label="training", color=BLUE)
        _line(accuracy, lines, "accuracy", label="training", color=BLUE)
        _line(accuracy, lines, "minival_top1", label="minival", color=GREY)
        _line(accuracy, lines, "minival_ema_top1", label="minival, EMA", color=ORANGE)
        _line(rate, lines, "learning_rate", label="", color=BLUE)
        steps = [0, *(line["step"] for line in lines)]
        size.stairs([line["image_size"] for line in lines], steps, color=BLUE, baseline=None)
        size.set_ylim(0, None)
        accuracy.set_ylim(0, 1.02)
        for axes, name in (
            (loss, "loss (cross-entropy)"),
            (accuracy, "top-1 accuracy"),
            (rate, "learning rate"),
            (size, "image size (px)"),
        ):
            axes.set_title(name, loc="left")
            axes.grid(alpha=0.25)
        if any("minival_top1" in line for line in lines):
            accuracy.legend(frameon=False)
        for axes in (rate, size):
            axes.set_xlabel("step")
        figure.suptitle(fitted(title, figure))
        save_figure(figure, path)


def _line(axes: Axes, lines: Sequence[dict[str, Any]], key: str, *, label: str, color: str) -> None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    if points:
        axes.plot(*zip(*points), marker=".", label=label, color=color)
