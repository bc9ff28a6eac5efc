"""Reports a search for networks: a line per trial, a table and file of the best, a picture."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from efficientnetv2.reporting.figures import (
    BLUE,
    GREY,
    ORANGE,
    fitted,
    legend_below,
    plain_axes,
    save_figure,
)
from efficientnetv2.reporting.tables import table
from efficientnetv2.runtime.atomic_write import replace_text

Row = Mapping[str, Any]  # the columns of trials.csv


def best_row(rows: Sequence[Row]) -> Row | None:
    """Returns the complete trial with the highest reward; None: no trial is complete."""
    complete = [row for row in rows if row["state"] == "complete"]
    return max(complete, key=lambda row: row["reward"], default=None)


def trial_line(rows: Sequence[Row], number: int, *, of: int) -> str:
    """Formats the result of a trial, and the best reward so far, as one line."""
    row = next(row for row in rows if row["trial"] == number)
    text = ""
    if row["accuracy"] is not None:
        text = (
            f"accuracy {row['accuracy']:.4f}  {1e3 * row['step_seconds']:.1f} ms "
            f"(x {row['relative_time']:.2f})  {row['parameters'] / 1e6:.2f} M  "
            f"reward {row['reward']:.4f}"
        )
    return progress_text(rows, row, text, of=of)


def progress_text(rows: Sequence[Row], row: Row, result: str, *, of: int) -> str:
    """Returns the line of a trial that has ended.

    Args:
      rows: all trials so far.
      row: the trial.
      result: what it has come to; not used if it failed.
      of: number of trials that were asked for.
    """
    done, width = sum(row["state"] != "running" for row in rows), len(str(of))
    text = f"{done:>{width}}/{of}  trial {row['trial']:<{width}}  "
    if row["accuracy"] is None:
        text += f"failed: {row['error'] or 'given up'}"
    else:
        same = f"  same as trial {row['same_as']}" if row["same_as"] is not None else ""
        ended = f"  ended after {row['epochs']} epochs" if row["state"] == "pruned" else ""
        text += f"{result}{same}{ended}"
    best = best_row(rows)
    return text + (f"  best {best['reward']:.4f} (trial {best['trial']})" if best else "")


def best_table(
    rows: Sequence[Row], backbone: Mapping[str, float], *, count: int, metric: str
) -> str:
    """Returns the best trials and the backbone as a table for a terminal."""
    complete = [row for row in rows if row["state"] == "complete"]
    ranked = sorted(complete, key=lambda row: -row["reward"])[:count]
    header = ["trial", "reward", metric, "ms/step", "spread", "x time", "params M", "network"]
    cells = [
        [
            str(row["trial"]),
            f"{row['reward']:.4f}",
            f"{row['accuracy']:.4f}",
            f"{1e3 * row['step_seconds']:.1f}",
            f"{100 * row['step_spread']:.0f}%",
            f"{row['relative_time']:.2f}",
            f"{row['parameters'] / 1e6:.3f}",
            row["network"],
        ]
        for row in ranked
    ]
    cells.append(
        [
            "backbone",
            f"{backbone['accuracy']:.4f}",
            f"{backbone['accuracy']:.4f}",
            f"{1e3 * backbone['seconds']:.1f}",
            f"{100 * backbone['spread']:.0f}%",
            "1.00",
            f"{backbone['parameters'] / 1e6:.3f}",
            "",
        ]
    )
    return f"{table(header, cells)}\n{count_states(rows)}"


def count_states(rows: Sequence[Row]) -> str:
    """Returns how many trials there are in each state, as ``3 trials: 2 complete, 1 fail``."""
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(rows)} trials: {counts}"


def write_best(overrides: Mapping[str, Any], row: Row, path: pathlib.Path, *, metric: str) -> None:
    """Writes a network as a YAML file for --hparam_str and ``get_model(..., overrides=...)``."""
    comment = (
        f"# trial {row['trial']}: {row['network']}\n"
        f"# reward {row['reward']:.4f}, minival {metric} {row['accuracy']:.4f} after "
        f"{row['epochs']} epochs, {1e3 * row['step_seconds']:.1f} ms a step, "
        f"{row['parameters']:,} parameters\n"
    )
    replace_text(path, comment + yaml.safe_dump(dict(overrides), sort_keys=False))


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the Pareto front of points (time, accuracy), fastest first.

    These are the points that no other point beats in both time and accuracy.

    >>> pareto([(2, 0.8), (1, 0.7), (3, 0.75), (1, 0.6)])
    [(1, 0.7), (2, 0.8)]
    """
    front: list[tuple[float, float]] = []
    for seconds, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((seconds, accuracy))
    return front


def draw_search(
    rows: Sequence[Row],
    backbone: Mapping[str, float],
    path: pathlib.Path,
    *,
    title: str,
    metric: str,
) -> None:
    """Draws accuracy over step time, and the reward over the trials.

    Args:
      rows: all trials, at least one of them complete.
      backbone: the backbone's accuracy and seconds per step.
      path: the PNG file to write.
      title: stands above both panels.
      metric: title of what was measured on minival, of ``hparams.label_kinds.METRICS``.
    """
    with plain_axes():
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        tradeoff, rewards = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_tradeoff(tradeoff, rows, backbone)
        tradeoff.set_ylabel(f"minival {metric} after the short training")
        draw_rewards(rewards, rows, backbone, name="backbone's reward")
        figure.suptitle(fitted(title, figure))
        legend_below(figure, tradeoff, rewards)
        save_figure(figure, path)


def _draw_tradeoff(axes: Axes, rows: Sequence[Row], backbone: Mapping[str, float]) -> None:
    complete = [row for row in rows if row["state"] == "complete"]
    pruned = [row for row in rows if row["state"] == "pruned"]
    best = best_row(rows)
    assert best is not None
    times, accuracies = zip(*map(_place, complete))
    axes.scatter(times, accuracies, label="trial", zorder=2, color=BLUE, s=26)
    if pruned:
        times, accuracies = zip(*map(_place, pruned))
        axes.scatter(
            times, accuracies, label="ended early", zorder=2, edgecolor=GREY, facecolor="none"
        )
    front = pareto([_place(row) for row in complete])
    axes.step(*zip(*front), where="post", color=BLUE, linewidth=1, zorder=1)
    axes.plot(
        *zip(*front),
        marker="o",
        markersize=10,
        fillstyle="none",
        linestyle="none",
        color=BLUE,
        label="Pareto front",
    )
    axes.scatter(*_place(best), marker="*", s=190, color=ORANGE, label="best reward", zorder=4)
    place = (1e3 * backbone["seconds"], backbone["accuracy"])
    axes.scatter(*place, marker="s", s=42, color="black", label="backbone", zorder=3)
    axes.set_title("accuracy against training time", loc="left")
    axes.set_xlabel("ms a training step")
    axes.grid(alpha=0.25)


def _place(row: Row) -> tuple[float, float]:
    return 1e3 * row["step_seconds"], row["accuracy"]


def draw_rewards(
    axes: Axes, rows: Sequence[Row], baseline: Mapping[str, float], *, name: str
) -> None:
    """Draws the rewards over the trials, the best so far, and that of the baseline."""
    complete = [row for row in rows if row["state"] == "complete"]
    numbers = [row["trial"] for row in complete]
    rewards = [row["reward"] for row in complete]
    best = [max(rewards[: index + 1]) for index in range(len(rewards))]
    axes.scatter(numbers, rewards, color=BLUE, s=20)
    pruned = [row for row in rows if row["state"] == "pruned"]
    if pruned:
        places = ([row["trial"] for row in pruned], [row["reward"] for row in pruned])
        axes.scatter(*places, edgecolor=GREY, facecolor="none", s=20)
    axes.step(numbers, best, where="post", color=ORANGE, label="best so far")
    axes.axhline(baseline["accuracy"], color="black", linewidth=1, linestyle=":", label=name)
    axes.set_title("reward", loc="left")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
