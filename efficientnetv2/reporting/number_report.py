"""Reports the predictions of an evaluation where images have numbers."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from efficientnetv2.evaluation.predictions import FullPredictions
from efficientnetv2.reporting.figures import BLUE, GREY, fitted, plain, plain_axes, save_figure
from efficientnetv2.reporting.tables import table, write_csv_rows

_COLUMNS = 3  # panels in a row
_MANY = 2000  # points, from which on they are drawn small


def report_numbers(
    predictions: FullPredictions,
    names: Sequence[str],
    folder: pathlib.Path,
    *,
    suffix: str,
    title: str,
) -> list[str]:
    """Prints a line a number, and draws predicted against true numbers.

    Args:
      predictions: of at least one image.
      names: of the T numbers.
      folder: an existing folder for the files.
      suffix: stands before the dot in each file's name.
      title: stands above the picture.

    Returns:
      The names of the files.

    Raises:
      WriteError: if they cannot be written.
    """
    rows = number_rows(predictions, names)
    cells = [[name, *(f"{value:.4g}" for value in values)] for name, *values in rows]
    print(f"\n{table(['number', 'R2', 'MAE', 'RMSE', 'mean', 'deviation'], cells)}")
    written = [f"per_number{suffix}.csv", f"numbers{suffix}.png"]
    header = ("number", "r2", "mae", "rmse", "mean", "deviation")
    write_csv_rows([header, *rows], folder / written[0])
    save_figure(number_figure(predictions, names, title=title), folder / written[1])
    return written


def number_rows(
    predictions: FullPredictions, names: Sequence[str]
) -> list[tuple[str, float, float, float, float, float]]:
    """Returns name, R2, mean absolute error, root of the mean squared error, mean and deviation.

    All but R2 are in the user's unit; mean and deviation are those of the true numbers.
    """
    rows = []
    for name, outputs, targets in zip(
        names, np.float64(predictions.outputs.T), np.float64(predictions.targets.T)
    ):
        errors = outputs - targets
        spread = float(((targets - targets.mean()) ** 2).sum())
        r2 = 1 - float((errors**2).sum()) / spread if spread else 0.0
        rows.append(
            (
                name,
                r2,
                float(np.abs(errors).mean()),
                math.sqrt(float((errors**2).mean())),
                float(targets.mean()),
                float(targets.std()),
            )
        )
    return rows


def number_figure(predictions: FullPredictions, names: Sequence[str], *, title: str) -> Figure:
    """Returns a picture of the predicted over the true numbers, a panel for each of them."""
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    with plain_axes():
        figure = Figure(figsize=(max(4.2, 3.6 * columns), 3.6 * rows + 0.6), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        size = 9 if len(predictions.index) < _MANY else 2
        for axes, name, outputs, targets in zip(
            panels, names, predictions.outputs.T, predictions.targets.T
        ):
            low = float(min(outputs.min(), targets.min()))
            high = float(max(outputs.max(), targets.max()))
            axes.plot([low, high], [low, high], color=GREY, linewidth=1)
            axes.scatter(targets, outputs, s=size, color=BLUE, alpha=0.5, linewidths=0)
            axes.set(xlabel=plain(f"true {name}"), ylabel=plain(f"predicted {name}"))
            axes.set_aspect("equal", adjustable="datalim")
        figure.suptitle(fitted(title, figure, size=10), fontsize=10)
    return figure
