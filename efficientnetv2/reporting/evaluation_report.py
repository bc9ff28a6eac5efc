"""Reports an evaluation: metrics, per-class accuracy, confusions and the worst mistakes."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.preprocess import to_pixels
from efficientnetv2.evaluation.evaluator import EvaluationResult
from efficientnetv2.evaluation.label_scores import class_scores
from efficientnetv2.evaluation.predictions import Predictions
from efficientnetv2.reporting.calibration_report import corruption_cells
from efficientnetv2.reporting.figures import fitted, plain, save_figure
from efficientnetv2.reporting.label_report import report_labels
from efficientnetv2.reporting.number_report import report_numbers
from efficientnetv2.reporting.results import WEIGHTS, data_name, report_result
from efficientnetv2.reporting.tables import table, write_csv_rows
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.channels import normalisation_of
from hparams.config import Config
from hparams.label_kinds import NUMBERS, label_kind

WORST = 10  # classes in the table on the screen
# Numbers of classes up to which there is a confusion matrix (of 1000 classes, its file has 2 MB),
# with the names of the classes in its picture, and with the counts.
_MAX_CLASSES = 1000
_MAX_CLASSES_NAMED = 40
_MAX_CLASSES_COUNTED = 20
# Images in the picture of mistakes.
_COLUMNS = 6
_MAX_MISTAKES = 24


def report_evaluation(
    config: Config,
    run: RunDirectory,
    result: EvaluationResult,
    *,
    eval_name: str | None,
) -> None:
    """Reports the metrics of all weights, and the classes and mistakes of those that export uses.

    These are the best ones on minival, or else the moving average, or else the raw weights. Where
    images have several classes or numbers, there is a table of these instead, and no picture of
    mistakes.

    Args:
      config: the config of the evaluation.
      run: the run directory that the files are written to.
      result: of the evaluation.
      eval_name: part of the file names; None: not used.

    Raises:
      WriteError: if a file cannot be written.
    """
    report_result(config, run, result.metrics, eval_name=eval_name)
    header, rows = corruption_cells(list(result.metrics.values())[-1])
    if rows:
        print(f"\n{table(header, rows)}")
    images, names, predictions = result.images, result.names, result.predictions
    files = [run.result_file(eval_name).name]
    if predictions:
        weights = list(predictions)[-1]
        network = f"{config.model.model_name} ({WEIGHTS[weights].text})"
        title = f"{network} on {data_name(config)}, {config.data.eval_split}"
        suffix = f"_{eval_name}" if eval_name else ""
        found = predictions[weights]
        if isinstance(found, Predictions):
            files += _report_classes(config, run, images, found, names, suffix=suffix, title=title)
        elif label_kind(config) == NUMBERS:
            files += report_numbers(found, names, run.path, suffix=suffix, title=title)
        elif result.thresholds is not None:
            files.append(f"per_class{suffix}.csv")
            scores = class_scores(found, list(names), result.thresholds)
            report_labels(scores, run.path / files[-1])
    print(f"\nwritten to {run.path}: {', '.join(files)}")


def _report_classes(
    config: Config,
    run: RunDirectory,
    images: EvaluationInput,
    predictions: Predictions,
    names: Sequence[str],
    *,
    suffix: str,
    title: str,
) -> list[str]:
    """Prints the worst classes, writes tables and pictures, and returns the file names."""
    if not len(predictions.index):
        return []
    show_classes(class_rows(predictions, names))
    written = write_class_tables(predictions, names, run.path, suffix=suffix, title=title)
    mistakes = predictions.mistakes(_MAX_MISTAKES)
    picture = run.path / f"mistakes{suffix}.png"
    picture.unlink(missing_ok=True)  # from an earlier evaluation; there may be no mistakes now
    if len(mistakes.index):
        chosen = images.pick([int(index) for index in mistakes.index])
        draw_mistakes(
            to_pixels(chosen, normalisation_of(config.model)),
            mistakes,
            names,
            picture,
            title=f"{title}: most confident mistakes of {len(predictions.index):,} images",
        )
        written.append(picture.name)
    return written


def class_rows(predictions: Predictions, names: Sequence[str]) -> list[tuple[str, int, float, str]]:
    """Returns (class, images, accuracy, most frequent wrong prediction) per class, the worst first.

    Classes without images are left out.
    """
    counts = np.bincount(predictions.label, minlength=len(names))
    right = np.bincount(predictions.label[predictions.right], minlength=len(names))
    wrong: dict[int, dict[int, int]] = {}
    for label, predicted in zip(
        predictions.label[~predictions.right], predictions.predicted[~predictions.right]
    ):
        confusions = wrong.setdefault(int(label), {})
        confusions[int(predicted)] = confusions.get(int(predicted), 0) + 1
    rows = []
    for label in map(int, np.flatnonzero(counts)):
        confusions = wrong.get(label, {})
        most = names[max(confusions, key=lambda other: confusions[other])] if confusions else ""
        rows.append((names[label], int(counts[label]), right[label] / counts[label], most))
    return sorted(rows, key=lambda row: (row[2], row[0]))


def show_classes(rows: Sequence[tuple[str, int, float, str]]) -> None:
    """Prints the first, worst rows of ``class_rows`` as a table."""
    cells = [[name, str(count), f"{right:.4f}", most] for name, count, right, most in rows[:WORST]]
    print(f"\n{table(['class', 'images', 'top-1', 'most taken for'], cells)}")
    if len(rows) > WORST:
        print(f"... and {len(rows) - WORST:,} classes that are better")


def write_class_tables(
    predictions: Predictions, names: Sequence[str], folder: pathlib.Path, *, suffix: str, title: str
) -> list[str]:
    """Writes per_class.csv, and for up to 1000 classes confusion.csv and confusion.png.

    Args:
      predictions: the predictions for at least one image.
      names: the class names.
      folder: an existing folder.
      suffix: stands before the dot in each file's name.
      title: stands above the picture.

    Returns:
      The names of the files.

    Raises:
      WriteError: if they cannot be written.
    """
    header = ("class", "images", "top1", "most_taken_for")
    written = [f"per_class{suffix}.csv"]
    write_csv_rows([header, *class_rows(predictions, names)], folder / written[0])
    if len(names) <= _MAX_CLASSES:
        matrix = predictions.confusion(len(names))
        written += [f"confusion{suffix}.csv", f"confusion{suffix}.png"]
        rows = [[name, *map(int, row)] for name, row in zip(names, matrix)]
        write_csv_rows([["true \\ predicted", *names], *rows], folder / written[1])
        _draw_confusion(matrix, names, folder / written[2], title=title)
    return written


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
        if count <= _MAX_CLASSES_NAMED:
            labels = [_short(name) for name in names]
            rotation = 90 if max(map(len, labels)) > 3 else 0
            labels = list(map(plain, labels))
            axes.set_xticks(range(count), labels=labels, rotation=rotation)
            axes.set_yticks(range(count), labels=labels)
        if count <= _MAX_CLASSES_COUNTED:
            for row, column in zip(*np.nonzero(matrix)):
                colour = "white" if shares[row, column] > 0.5 else "black"
                place = (column, row, str(matrix[row, column]))
                axes.text(*place, ha="center", va="center", color=colour)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.set_title(fitted(title, figure), loc="left")
        figure.colorbar(picture, ax=axes, shrink=0.7, label="share of the true class")
        save_figure(figure, path)


def draw_mistakes(
    images: np.ndarray,
    mistakes: Predictions,
    names: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draws wrongly classified images with the predicted and the true class.

    Args:
      images: uint8 ``[N, S, S, 3]``, N at least 1.
      mistakes: the predictions for these images.
      names: the class names.
      path: the PNG file to write.
      title: stands above the images.

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
        axes.set_title(plain(text), fontsize=8, loc="left")
    figure.suptitle(fitted(title, figure, size=10), fontsize=10)
    save_figure(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
