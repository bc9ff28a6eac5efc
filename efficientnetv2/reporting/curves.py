"""Draws the training curves: loss, accuracy, learning rate and image size over steps."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efficientnetv2.reporting.figures import BLUE, GREY, ORANGE, fitted, plain_axes, save_figure
from hparams.label_kinds import METRICS, TRAINING_METRICS


def plot_curves(
    lines: Sequence[dict[str, Any]], path: str | pathlib.Path, *, title: str, metric: str = "top1"
) -> None:
    """Draws loss, accuracy (or another metric), learning rate and image size over steps.

    Args:
      lines: the records of metrics.jsonl, one per epoch; without any, no file is written.
      path: the PNG file to write.
      title: stands above the four panels.
      metric: of the validation, a row of ``hparams.label_kinds.METRICS``.
    """
    if not lines:
        return
    with plain_axes():
        figure = Figure(figsize=(9, 6), layout="constrained")
        loss, score, rate, size = figure.subplots(2, 2, sharex=True).flat
        _line(loss, lines, "loss", label="training", color=BLUE)
        title_of_score = _draw_score(score, lines, metric)
        _line(rate, lines, "learning_rate", label="", color=BLUE)
        steps = [0, *(line["step"] for line in lines)]
        size.stairs([line["image_size"] for line in lines], steps, color=BLUE, baseline=None)
        size.set_ylim(0, None)
        for axes, name in (
            (loss, "loss" if any("mae" in line for line in lines) else "loss (cross-entropy)"),
            (score, title_of_score),
            (rate, "learning rate"),
            (size, "image size (px)"),
        ):
            axes.set_title(name, loc="left")
            axes.grid(alpha=0.25)
        for axes in (rate, size):
            axes.set_xlabel("step")
        figure.suptitle(fitted(title, figure))
        save_figure(figure, path)


def _draw_score(axes: Axes, lines: Sequence[dict[str, Any]], metric: str) -> str:
    """Draws the metric of the validation, or else what training reports; returns its title."""
    is_validated = any(f"minival_{metric}" in line for line in lines)
    title = METRICS[metric].title
    if metric == "top1" or not is_validated:
        name = next((name for name in TRAINING_METRICS if name in lines[0]), "")
        _line(axes, lines, name, label="training", color=BLUE)
        title = {"accuracy": "top-1 accuracy", "mae": "mean absolute error"}.get(name, title)
    _line(axes, lines, f"minival_{metric}", label="minival", color=GREY)
    _line(axes, lines, f"minival_ema_{metric}", label="minival, EMA", color=ORANGE)
    if is_validated:
        axes.legend(frameon=False)
    if metric != "r2":
        axes.set_ylim(0, 1.02)
    return title


def _line(axes: Axes, lines: Sequence[dict[str, Any]], key: str, *, label: str, color: str) -> None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    if points:
        axes.plot(*zip(*points), marker=".", label=label, color=color)
