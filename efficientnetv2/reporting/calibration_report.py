"""Shows how calibrated probabilities are, as a diagram, and what mild corruptions do to them."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from efficientnetv2.data.corruptions import CORRUPTIONS
from efficientnetv2.evaluation.predictions import Predictions, calibration_bins, calibration_error
from efficientnetv2.reporting.figures import BLUE, GREY, ORANGE, fitted, legend_below

# Title in the table of corruptions -> metric, which is left out where it was not computed.
_COLUMNS = {
    "top-1": "top1",
    "NLL": "loss",
    "NLL cal.": "nll_calibrated",
    "ECE": "ece",
    "ECE cal.": "ece_calibrated",
}


def corruption_cells(metrics: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a table of corruptions; no rows if there are none.

    Args:
      metrics: of one kind of weights; those of a corruption begin with its name.
    """
    titles = {title: name for title, name in _COLUMNS.items() if name in metrics}
    names = [name for name in CORRUPTIONS if f"{name}_top1" in metrics]
    rows = [
        [name.replace("_", " ") or "none"]
        + [f"{metrics[f'{name}_{key}' if name else key]:.4f}" for key in titles.values()]
        for name in (["", *names] if names else [])
    ]
    return ["corruption", *titles], rows


def reliability_figure(predictions: Predictions, *, title: str) -> Figure:
    """Draws the share of right answers over the probability (arXiv 1706.04599, figure 1).

    Below stands the share of the images in each range of probabilities. With a temperature, the
    right diagram has the calibrated probabilities.

    Args:
      predictions: for at least one image.
      title: stands above the diagrams.
    """
    parts = {"as the network gives them": predictions}
    calibrated = predictions.as_calibrated()
    if calibrated is not None:
        parts["with the temperature"] = calibrated
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(0.6 + 3.4 * len(parts), 4.4), layout="constrained")
        panels = figure.subplots(
            2, len(parts), squeeze=False, sharex=True, sharey="row", height_ratios=[4, 1]
        )
        for column, (text, found) in enumerate(parts.items()):
            _draw(panels[0, column], panels[1, column], found, text)
        panels[0, 0].set_ylabel("share of right answers")
        panels[1, 0].set_ylabel("images")
        legend_below(figure, panels[0, 0])
        figure.suptitle(fitted(title, figure, size=10), fontsize=10)
    return figure


def _draw(diagram: Axes, histogram: Axes, found: Predictions, text: str) -> None:
    bins = [row for row in calibration_bins(found) if row[2]]
    low, high, count, confidence, right = (np.array(column) for column in zip(*bins))
    width = high - low
    diagram.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    diagram.bar(low, right, width, align="edge", color=BLUE, edgecolor="white", label="right")
    diagram.hlines(confidence, low, high, color=ORANGE, linewidth=3, label="mean probability")
    diagram.set_title(f"{text}\nECE {calibration_error(found):.4f}", loc="left", fontsize=8)
    diagram.set_ylim(0, 1)
    histogram.bar(low, count / count.sum(), width, align="edge", color=GREY, edgecolor="white")
    histogram.set_xlim(0, 1)
    histogram.set_xlabel("probability of the predicted class")
