"""Reports a search for settings: a line per trial, a table of the best, a file, and a picture."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from efficientnetv2.reporting.figures import (
    BLUE,
    GREY,
    ORANGE,
    fitted,
    legend_below,
    plain_axes,
    save_figure,
)
from efficientnetv2.reporting.search_report import (
    Row,
    best_row,
    count_states,
    draw_rewards,
    progress_text,
)
from efficientnetv2.reporting.tables import table
from efficientnetv2.runtime.atomic_write import replace_text
from hparams.overrides import overrides_text, value_text
from hparams.search_space import Range, Values

_TICKS = 4  # on a logarithmic axis, whose own ticks are too many or too few for a short range


def settings_line(rows: Sequence[Row], keys: Sequence[str], number: int, *, of: int) -> str:
    """Formats the result of a trial, and the best accuracy so far, as one line."""
    row = next(row for row in rows if row["trial"] == number)
    text = f"accuracy {row['accuracy'] or 0:.4f}  {overrides_text({key: row[key] for key in keys})}"
    return progress_text(rows, row, text, of=of)


def settings_table(
    rows: Sequence[Row],
    keys: Sequence[str],
    baseline: Mapping[str, float],
    *,
    count: int,
    metric: str,
) -> str:
    """Returns the best trials and the default settings as a table for a terminal."""
    complete = [row for row in rows if row["state"] == "complete"]
    ranked = sorted(complete, key=lambda row: -row["reward"])[:count]
    cells = [
        [str(row["trial"]), f"{row['accuracy']:.4f}", *(value_text(row[key]) for key in keys)]
        for row in ranked
    ]
    cells.append(["default", f"{baseline['accuracy']:.4f}", *("" for _ in keys)])
    return f"{table(['trial', metric, *keys], cells)}\n{count_states(rows)}"


def write_best_settings(
    settings: Mapping[str, Any], row: Row, path: pathlib.Path, *, metric: str
) -> None:
    """Writes settings as a YAML file for --hparam_str and ``train(overrides=...)``."""
    comment = (
        f"# trial {row['trial']}: minival {metric} {row['accuracy']:.4f} after {row['epochs']} "
        "epochs\n"
    )
    replace_text(path, comment + yaml.safe_dump(dict(settings), sort_keys=False))


def draw_settings(
    rows: Sequence[Row],
    space: Mapping[str, Values],
    baseline: Mapping[str, float],
    path: pathlib.Path,
    *,
    title: str,
    metric: str,
) -> None:
    """Draws accuracy over each setting, and over the trials.

    Args:
      rows: all trials, at least one of them complete.
      space: config key -> what it was chosen from.
      baseline: the accuracy of the default settings.
      path: the PNG file to write.
      title: stands above the panels.
      metric: title of what was measured on minival, of ``hparams.label_kinds.METRICS``.
    """
    panels = len(space) + 1
    columns = panels if panels <= 3 else math.ceil(math.sqrt(panels))
    lines = -(-panels // columns)
    with plain_axes():
        figure = Figure(figsize=(3.6 * columns, 0.9 + 2.7 * lines), layout="constrained")
        axes = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        for panel, (key, values) in zip(axes, space.items()):
            _draw_setting(panel, rows, key, values)
        draw_rewards(axes[panels - 1], rows, baseline, name="default settings")
        axes[panels - 1].set_title("over the trials", loc="left")
        for panel in axes[panels:]:
            panel.remove()
        for panel in axes[:panels:columns]:
            panel.set_ylabel(f"minival {metric}")
        figure.suptitle(fitted(title, figure))
        legend_below(figure, axes[0], axes[panels - 1])
        save_figure(figure, path)


def _draw_setting(axes: Axes, rows: Sequence[Row], key: str, values: Values) -> None:
    measured = [row for row in rows if row["state"] in ("complete", "pruned")]
    _set_axis(axes, values)

    def place(row: Row) -> tuple[float, float]:
        value = row[key]
        return value if isinstance(values, Range) else values.index(value), row["accuracy"]

    best = best_row(rows)
    assert best is not None
    complete = [place(row) for row in measured if row["state"] == "complete"]
    pruned = [place(row) for row in measured if row["state"] == "pruned"]
    xs, ys = zip(*complete)
    axes.scatter(xs, ys, label="trial", color=BLUE, s=26, zorder=2)
    if pruned:
        xs, ys = zip(*pruned)
        axes.scatter(xs, ys, label="ended early", edgecolor=GREY, facecolor="none", zorder=2)
    axes.scatter(*place(best), marker="*", s=190, color=ORANGE, label="best", zorder=4)
    axes.set_title(key, loc="left")
    axes.grid(alpha=0.25)


def _set_axis(axes: Axes, values: Values) -> None:
    """Gives the horizontal axis the range or the names of a setting."""
    if not isinstance(values, Range):
        axes.set_xticks(range(len(values)), [value_text(value) for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        return
    if not values.is_log:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=values.is_whole))
        return
    axes.set_xscale("log")
    ratio = values.high / values.low
    ticks = [values.low * ratio ** (index / (_TICKS - 1)) for index in range(_TICKS)]
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
