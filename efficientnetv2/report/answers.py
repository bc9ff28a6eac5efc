"""What a network said of each image in; accuracy of each class, confusions and mistakes out."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from efficientnetv2.answers import Answers
from efficientnetv2.report.tables import table
from efficientnetv2.train.durable import replace, replace_text, writing

WORST = 10  # classes on the screen
_MOST_CELLS = 1000  # classes of a confusion matrix that is written: 1000 make a file of 2 MB
_NAMED = 40  # classes whose names fit beside a picture
_NUMBERED = 20  # classes whose counts fit into its cells
_COLUMNS = 6  # of the contact sheet
_DPI = 110


def class_rows(answers: Answers, names: Sequence[str]) -> list[tuple[str, int, float, str]]:
    """Returns (class, images, share named right, what it was taken for most) of each class.

    Classes without an image are left out; the worst comes first.
    """
    counts = np.bincount(answers.label, minlength=len(names))
    right = np.bincount(answers.label[answers.right], minlength=len(names))
    wrong: dict[int, dict[int, int]] = {}
    for label, predicted in zip(answers.label[~answers.right], answers.predicted[~answers.right]):
        taken = wrong.setdefault(int(label), {})
        taken[int(predicted)] = taken.get(int(predicted), 0) + 1
    rows = []
    for label in map(int, np.flatnonzero(counts)):
        taken = wrong.get(label, {})
        most = names[max(taken, key=lambda other: taken[other])] if taken else ""
        rows.append((names[label], int(counts[label]), right[label] / counts[label], most))
    return sorted(rows, key=lambda row: (row[2], row[0]))


def show_classes(rows: Sequence[tuple[str, int, float, str]]) -> None:
    """Prints the worst classes."""
    cells = [[name, str(count), f"{right:.4f}", most] for name, count, right, most in rows[:WORST]]
    print(f"\n{table(['class', 'images', 'top-1', 'most taken for'], cells)}")
    if len(rows) > WORST:
        print(f"... and {len(rows) - WORST:,} classes that are better")


def write_answers(
    answers: Answers, names: Sequence[str], folder: pathlib.Path, *, suffix: str, title: str
) -> list[str]:
    """Writes per_class.csv, and of up to 1000 classes confusion.csv and .png; returns their names.

    Args:
      answers: at least one.
      names: of the classes.
      folder: exists.
      suffix: put before the dot of each file's name.
      title: above the picture.

    Raises:
      WriteError: if they cannot be written.
    """
    header = ("class", "images", "top1", "most_taken_for")
    written = [f"per_class{suffix}.csv"]
    _write_csv([header, *class_rows(answers, names)], folder / written[0])
    if len(names) <= _MOST_CELLS:
        matrix = answers.confusion(len(names))
        written += [f"confusion{suffix}.csv", f"confusion{suffix}.png"]
        rows = [[name, *map(int, row)] for name, row in zip(names, matrix)]
        _write_csv([["true \\ predicted", *names], *rows], folder / written[1])
        _draw_confusion(matrix, names, folder / written[2], title=title)
    return written


def draw_mistakes(
    images: np.ndarray,
    mistakes: Answers,
    names: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draws wrongly named images, the most confident mistake first.

    Args:
      images: uint8 ``[N, S, S, 3]``, N at least 1.
      mistakes: of these images.
      names: of the classes.
      path: the PNG file to write.
      title: above the picture.

    Raises:
      WriteError: if it cannot be written.
    """
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.85 * max(columns, 3), 2.35 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, label, predicted, confidence in zip(
        panels, images, mistakes.label, mistakes.predicted, mistakes.confidence
    ):
        axes.imshow(image, interpolation="antialiased")
        text = f"named {_short(names[predicted])}, {confidence:.0%}\nis {_short(names[label])}"
        axes.set_title(text, fontsize=8, loc="left")
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _draw_confusion(
    matrix: np.ndarray, names: Sequence[str], path: pathlib.Path, *, title: str
) -> None:
    count = len(names)
    side = min(11.0, 3.5 + 0.3 * count)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axes = figure.subplots()
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if count <= _NAMED:
            labels = [_short(name) for name in names]
            turned = 90 if max(map(len, labels)) > 3 else 0
            axes.set_xticks(range(count), labels=labels, rotation=turned)
            axes.set_yticks(range(count), labels=labels)
        if count <= _NUMBERED:
            for row, column in zip(*np.nonzero(matrix)):
                colour = "white" if shares[row, column] > 0.5 else "black"
                place = (column, row, str(matrix[row, column]))
                axes.text(*place, ha="center", va="center", color=colour)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.set_title(title, loc="left")
        figure.colorbar(picture, ax=axes, shrink=0.7, label="share of the true class")
        _save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _save(figure: Figure, path: pathlib.Path) -> None:
    draft = path.with_name(f"{path.stem}.tmp.png")
    with writing(path):
        figure.savefig(draft, dpi=_DPI)
        replace(draft, path)


def _write_csv(rows: Sequence[Sequence], path: pathlib.Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_text(path, text.getvalue())
