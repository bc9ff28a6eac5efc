"""Reports the measured cost of networks: a table, speed ratios beside the paper's, and figures."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from efficientnetv2.reporting.figures import (
    BLUE,
    GREY,
    ORANGE,
    legend_below,
    plain_axes,
    save_figure,
)
from efficientnetv2.reporting.tables import table

# Pairs of networks of about the same ImageNet accuracy, and how many times faster the first one is
# in the paper (arXiv 2104.00298), in inference and in training: Table 11; for M, Table 10.
LIKE_ACCURACY = (
    ("efficientnetv2-b0", "efficientnet-b1", 2.1, None),
    ("efficientnetv2-b1", "efficientnet-b2", 2.0, None),
    ("efficientnetv2-b3", "efficientnet-b4", 2.7, None),
    ("efficientnetv2-s", "efficientnet-b5", 3.1, None),
    ("efficientnetv2-m", "efficientnet-b7", 3.1, 4.1),
)
# Colours that colour-blind readers can tell apart; in grey print, the markers can be. The first
# prefix that matches is used.
_FAMILIES = {
    "efficientnetv2-": ("EfficientNetV2", BLUE, "o"),
    "efficientnet-lite": ("EfficientNet-Lite", "#4f8f5b", "^"),
    "efficientnet-b4-fused-": ("B4 with fused stages", "#8a4f8f", "v"),
    "efficientnet-": ("EfficientNet", ORANGE, "s"),
    "resnet": ("ResNet", GREY, "D"),
}
Row = dict[str, Any]  # the fields of ``efficientnetv2.evaluation.model_cost.ModelCost``


def cost_table(rows: Sequence[Row]) -> str:
    """Returns the measured cost of the networks as a table for a terminal."""
    header = ["model", "params M", "FLOPs B", "train px", "img/s", "s/step", "p95", "first s"]
    header += ["MiB/img", "peak MiB", "eval px", "img/s", "ms/batch", "p95", "ms/image", "p95"]
    cells = [
        [
            row["model"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['multiply_adds'] / 1e9:.2f}",
            str(row["train_size"]),
            f"{row['train_images_per_second']:.1f}",
            f"{row['train_step_seconds']:.2f}",
            f"{row['train_step_p95_seconds']:.2f}",
            f"{row['first_step_seconds']:.1f}",
            f"{row['activation_mib']:.1f}",
            f"{row['train_peak_mib']:.0f}",
            str(row["eval_size"]),
            f"{row['infer_images_per_second']:.1f}",
            f"{row['infer_batch_ms']:.1f}",
            f"{row['infer_batch_p95_ms']:.1f}",
            f"{row['latency_ms']:.1f}",
            f"{row['latency_p95_ms']:.1f}",
        ]
        for row in rows
    ]
    return table(header, cells)


def ratio_table(rows: Sequence[Row]) -> str:
    """Returns a table of V2's speed relative to V1 at like accuracy; '' if no pair was measured."""
    by_model = {row["model"]: row for row in rows}
    cells = []
    for first, second, infer, train in LIKE_ACCURACY:
        if first in by_model and second in by_model:
            one, other = by_model[first], by_model[second]
            ratios = [one[key] / other[key] for key in _SPEEDS]
            published = [f"{infer:.1f}", f"{train:.1f}" if train else "-"]
            cells.append(
                [
                    f"{first} / {second}",
                    f"{one['top1']:.1f} / {other['top1']:.1f}",
                    *(
                        text
                        for pair in zip((f"{r:.2f}" for r in ratios), published)
                        for text in pair
                    ),
                ]
            )
    header = ["at like accuracy", "top-1", "inference x", "paper", "training x", "paper"]
    return table(header, cells) if cells else ""


_SPEEDS = ("infer_images_per_second", "train_images_per_second")


@dataclasses.dataclass(frozen=True)
class _Panel:
    title: str
    label: str
    key: str
    scale: float = 1.0
    inverse: bool = False


_TRAINING = (
    _Panel(
        "training time",
        "seconds for 1,000 images, batch {batch_size}",
        "train_images_per_second",
        1e3,
        True,
    ),
    _Panel("parameters", "million", "parameters", 1e-6),
)
_INFERENCE = (
    _Panel("parameters", "million", "parameters", 1e-6),
    _Panel("multiply-adds", "billion", "multiply_adds", 1e-9),
    _Panel("latency", "ms, one image", "latency_ms"),
)


def draw_costs(rows: Sequence[Row], folder: pathlib.Path) -> list[str]:
    """Draws the paper's Figures 1 and 5 with the costs measured here; returns the file names.

    The accuracies are the published ones; only the other axis is measured.
    """
    _draw(rows, _TRAINING, folder / "training.png", title="Training efficiency, as in Figure 1")
    _draw(rows, _INFERENCE, folder / "inference.png", title="Size and latency, as in Figure 5")
    return ["training.png", "inference.png"]


def _draw(rows: Sequence[Row], panels: Sequence[_Panel], path: pathlib.Path, *, title: str) -> None:
    with plain_axes():
        figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(all_axes, panels):
            _scatter(axes, rows, panel)
        all_axes[0].set_ylabel("ImageNet top-1 as published (%)")
        legend_below(figure, all_axes[0])
        figure.suptitle(f"{title} of the paper, measured on this machine")
        figure.draw_without_rendering()  # fixes where the points lie, which the names depend on
        for axes, panel in zip(all_axes, panels):
            _write_names(axes, rows, panel)
        save_figure(figure, path)


def _scatter(axes: Axes, rows: Sequence[Row], panel: _Panel) -> None:
    for label, colour, marker in _FAMILIES.values():
        points = sorted(
            (_value(row, panel), row["top1"]) for row in rows if _family(row["model"])[0] == label
        )
        if points:
            x, y = zip(*points)
            axes.plot(x, y, marker=marker, color=colour, label=label, linewidth=1, markersize=5)
    values = [_value(row, panel) for row in rows]
    axes.set_xscale("log")
    axes.margins(y=0.12)
    axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.label.format(**rows[0]))
    axes.grid(alpha=0.25)


_CORNERS = {
    "V2": ((-1, 1), (1, -1), (1, 1), (-1, -1)),
    "other": ((1, -1), (-1, 1), (1, 1), (-1, -1)),
}
_CLEARANCE = 16.0  # pixels between the middle of a name and other points and names


def _write_names(axes: Axes, rows: Sequence[Row], panel: _Panel) -> None:
    """Writes each name beside its point: V2's above, others below, or where there is room."""
    points = [axes.transData.transform((_value(row, panel), row["top1"])) for row in rows]
    names: list[np.ndarray] = []
    for row, point in zip(rows, points):
        others = [other for other in points if other is not point] + names

        def clearance(
            corner: tuple[int, int],
            point: np.ndarray = point,
            others: list[np.ndarray] = others,
        ) -> float:
            distances = [np.hypot(*(point + 12 * np.array(corner) - other)) for other in others]
            return min([_CLEARANCE, *distances])

        is_v2 = row["model"].startswith("efficientnetv2-")
        corner = max(_CORNERS["V2" if is_v2 else "other"], key=clearance)
        names.append(point + 12 * np.array(corner))
        axes.annotate(
            row["model"].rpartition("-fused-" if "-fused-" in row["model"] else "-")[2].upper(),
            (_value(row, panel), row["top1"]),
            xytext=(4 * corner[0], 3 * corner[1]),
            textcoords="offset points",
            ha="left" if corner[0] > 0 else "right",
            va="bottom" if corner[1] > 0 else "top",
            fontsize=8,
            color=_family(row["model"])[1],
        )


def _value(row: Row, panel: _Panel) -> float:
    value = float(row[panel.key])
    return panel.scale / value if panel.inverse else panel.scale * value


def _family(model: str) -> tuple[str, str, str]:
    return next(style for prefix, style in _FAMILIES.items() if model.startswith(prefix))
