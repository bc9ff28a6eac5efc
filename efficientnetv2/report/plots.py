"""Records of metrics.jsonl in; pictures out."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Two hues that stay apart for colour-blind readers and in grey print.
_BLUE, _ORANGE, _GREY = "#2b5c8a", "#d1791f", "#6b6b6b"


def plot_curves(lines: Sequence[dict[str, Any]], path: str | pathlib.Path, *, title: str) -> None:
    """Draws loss, accuracy, learning rate and image size over steps.

    Args:
      lines: of metrics.jsonl, one an epoch; none draws nothing.
      path: the PNG file to write.
      title: above the four panels.
    """
    if not lines:
        return
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        loss, accuracy, rate, size = figure.subplots(2, 2, sharex=True).flat
        _line(loss, lines, "loss", label="training", color=_BLUE)
        _line(accuracy, lines, "accuracy", label="training", color=_BLUE)
        _line(accuracy, lines, "minival_top1", label="minival", color=_GREY)
        _line(accuracy, lines, "minival_ema_top1", label="minival, EMA", color=_ORANGE)
        _line(rate, lines, "learning_rate", label="", color=_BLUE)
        steps = [0, *(line["step"] for line in lines)]
        size.stairs([line["image_size"] for line in lines], steps, color=_BLUE, baseline=None)
        size.set_ylim(0, None)
        accuracy.set_ylim(0, 1.02)
        for axes, name in (
            (loss, "loss (cross-entropy + L2)"),
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
        figure.suptitle(title)
        figure.savefig(path, dpi=110)


def _line(axes: Axes, lines: Sequence[dict[str, Any]], key: str, *, label: str, color: str) -> None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    if points:
        axes.plot(*zip(*points), marker=".", label=label, color=color)
