"""Draws the loss over the learning rate of a range test, and writes its steps as CSV."""

from __future__ import annotations

import pathlib

from matplotlib.figure import Figure

from efficientnetv2.reporting.figures import BLUE, GREY, ORANGE, fitted, plain_axes, save_figure
from efficientnetv2.reporting.tables import write_csv
from efficientnetv2.train.range_test import RangeTest

_HIGHEST = 1.5  # of the loss at the start: where the losses that blow up are cut off


def write_steps(test: RangeTest, path: pathlib.Path) -> None:
    """Writes a row a step: learning rate for a batch of 256, loss, and loss without noise.

    Raises:
      WriteError: if it cannot be written.
    """
    columns = zip(test.rates.tolist(), test.losses.tolist(), test.smoothed.tolist())
    names = ("learning_rate", "loss", "smoothed_loss")
    write_csv(
        [{"step": step, **dict(zip(names, row))} for step, row in enumerate(columns, start=1)], path
    )


def draw_rate_curve(test: RangeTest, path: pathlib.Path, *, title: str) -> None:
    """Draws losses over learning rates, with the suggested peak and that of the settings.

    Args:
      test: at least one step.
      path: the PNG file to write.
      title: stands above the picture.
    """
    with plain_axes():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(test.rates, test.losses, ".", color=GREY, alpha=0.5, label="a step")
        axes.plot(test.rates, test.smoothed, color=BLUE, label="smoothed")
        if test.suggestion is not None:
            label = f"suggested: --learning_rate={test.suggestion:g}"
            axes.axvline(test.suggestion, color=ORANGE, label=label)
        label = f"settings: --learning_rate={test.configured:g}"
        axes.axvline(test.configured, color=GREY, linestyle="--", label=label)
        axes.set_xscale("log")
        start = max(test.losses[0], test.smoothed[0])
        axes.set_ylim(None, _HIGHEST * start)
        axes.set_xlabel("learning rate for a batch of 256")
        axes.set_ylabel("loss (cross-entropy)")
        axes.grid(alpha=0.25)
        axes.set_title(
            f"batches of {test.batch_size}, {test.image_size:.0f} px; {len(test.rates)} steps",
            loc="left",
        )
        figure.legend(frameon=False, ncols=2, loc="outside lower center")
        figure.suptitle(fitted(title, figure))
        save_figure(figure, path)
