"""Writes ``report.html``: the result of a run, its curves, classes, mistakes and settings."""

from __future__ import annotations

import collections
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.preprocess import to_pixels
from efficientnetv2.evaluation.evaluator import AnyPredictions, EvaluationResult
from efficientnetv2.evaluation.label_scores import class_scores
from efficientnetv2.evaluation.predictions import (
    FullPredictions,
    Predictions,
    calibration_bins,
    calibration_error,
)
from efficientnetv2.reporting.calibration_report import corruption_cells, reliability_figure
from efficientnetv2.reporting.evaluation_report import class_rows
from efficientnetv2.reporting.figures import figure_bytes
from efficientnetv2.reporting.html_page import embedded, embedded_thumbnail, write_page
from efficientnetv2.reporting.number_report import number_figure, number_rows
from efficientnetv2.reporting.results import WEIGHTS, data_name, metric_cells, run_title
from efficientnetv2.runtime.environment import environment
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.channels import normalisation_of
from hparams.config import Config
from hparams.keys import KEYS
from hparams.label_kinds import NUMBERS, ONE, SEVERAL, label_kind
from hparams.overrides import overrides_text
from hparams.resolve import flat

_CLASSES = 200  # in the table of classes
_CONFUSED = 30  # classes up to which there is a confusion matrix
_MISTAKES = 24
_PAIRS = 20  # of confused classes, where there is no matrix
_MISTAKES_TITLE = {
    ONE: "Most confident mistakes",
    SEVERAL: "Most confident mistakes",
    NUMBERS: "Largest errors",
}
_THUMBNAIL = 144  # pixels
_LONGEST = 200  # characters of a setting


def write_run_page(
    config: Config,
    run: RunDirectory,
    result: EvaluationResult,
    *,
    eval_name: str | None = None,
) -> pathlib.Path:
    """Writes the page of an evaluation into the run directory; returns its path.

    Args: as ``report_evaluation``. Classes and mistakes are those of the weights that
      prediction and export use.

    Raises:
      WriteError: if it cannot be written.
    """
    suffix = f"_{eval_name}" if eval_name else ""
    path = run.path / f"report{suffix}.html"
    names, metrics, predictions = result.names, result.metrics, result.predictions
    header, rows = metric_cells(config, metrics)
    weights = list(predictions)[-1] if predictions else "raw"
    found = predictions.get(weights)
    explained = "; ".join(f"{WEIGHTS[name].title}: {WEIGHTS[name].meaning}" for name in metrics)
    split, count = config.data.eval_split, metrics["raw"]["images"]
    write_page(
        path,
        "run.html",
        title=run_title(config),
        summary=f"{data_name(config)}, split {split}, {count:,} images",
        metrics={"header": header, "rows": rows},
        explanation=f"{explained}. All below is of the {WEIGHTS[weights].text}.",
        curves=_picture(run.curves_file),
        numbers=_numbers(config, found, names),
        table=_table(config, found, names, result.thresholds),
        confusion=_confusion(found, names),
        confused=_confused(found, names),
        calibration=_calibration(found, metrics[weights], f"{run_title(config)}, {split}"),
        corruptions=corruption_cells(metrics[weights]),
        mistakes=_mistakes(config, result.images, found, names),
        mistakes_title=_MISTAKES_TITLE[label_kind(config)],
        settings=_settings(_trained_config(config, run)),
        changes=_changes(config, run),
        environment=list(environment().items()),
        command=_command(config, run) if run.config_file.exists() else "",
    )
    return path


def _picture(path: pathlib.Path) -> str:
    return embedded(path.read_bytes(), kind="png") if path.exists() else ""


def _numbers(config: Config, found: AnyPredictions | None, names: Sequence[str]) -> str:
    if label_kind(config) != NUMBERS or not isinstance(found, FullPredictions):
        return ""
    figure = number_figure(found, names, title=f"{run_title(config)}, {config.data.eval_split}")
    return embedded(figure_bytes(figure), kind="png")


def _table(
    config: Config,
    found: AnyPredictions | None,
    names: Sequence[str],
    thresholds: np.ndarray | None,
) -> dict[str, Any] | None:
    """Returns the table of the classes, the worst first, or of the numbers."""
    if found is None or not len(found.index):
        return None
    if isinstance(found, Predictions):
        header = ["class", "images", "top-1", "most taken for"]
        cells = [
            [name, f"{count:,}", f"{right:.4f}", most]
            for name, count, right, most in class_rows(found, names)
        ]
    elif label_kind(config) == NUMBERS:
        header = ["number", "R2", "MAE", "RMSE", "true mean", "true deviation"]
        numbers = number_rows(found, names)
        cells = [[name, *(f"{value:.4g}" for value in values)] for name, *values in numbers]
    elif thresholds is not None and label_kind(config) == SEVERAL:
        header = ["class", "images", "AP", "threshold", "precision", "recall", "F1"]
        scores = class_scores(found, list(names), thresholds)
        scores = sorted(scores, key=lambda score: (not score.images, score.average_precision))
        cells = [[s.name, f"{s.images:,}", *(f"{value:.4f}" for value in s[2:])] for s in scores]
    else:
        return None
    title = "Numbers" if label_kind(config) == NUMBERS else "Classes, the worst first"
    rest = max(0, len(cells) - _CLASSES)
    return {"title": title, "header": header, "rows": cells[:_CLASSES], "rest": rest}


def _confusion(found: AnyPredictions | None, names: Sequence[str]) -> dict[str, Any] | None:
    if not isinstance(found, Predictions) or not 1 < len(names) <= _CONFUSED:
        return None
    matrix = found.confusion(len(names))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    rows = [
        {"name": name, "cells": list(zip(counts.tolist(), own.round(3).tolist()))}
        for name, counts, own in zip(names, matrix, shares)
    ]
    return {"names": names, "rows": rows}


def _confused(found: AnyPredictions | None, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Returns true class, predicted class and images of the most frequent confusions.

    It is empty where the whole matrix is shown.
    """
    if not isinstance(found, Predictions) or len(names) <= _CONFUSED:
        return []
    wrong = ~found.right
    pairs = collections.Counter(zip(found.label[wrong].tolist(), found.predicted[wrong].tolist()))
    return [(names[label], names[other], n) for (label, other), n in pairs.most_common(_PAIRS)]


def _calibration(
    found: AnyPredictions | None, metrics: Mapping[str, float], title: str
) -> dict[str, Any] | None:
    """Returns a reliability diagram (arXiv 1706.04599, figure 1), and its numbers as a table."""
    if not isinstance(found, Predictions) or not len(found.index):
        return None
    rows = [
        {
            "range": f"{low:.0%} to {high:.0%}",
            "images": f"{count:,}",
            "confidence": f"{confidence:.1%}",
            "right": f"{right:.1%}",
            "width": round(100 * right, 1),
            "mark": round(100 * confidence, 1),
        }
        for low, high, count, confidence, right in calibration_bins(found)
        if count
    ]
    error = calibration_error(found)
    text = f"The probabilities are wrong by {100 * error:.1f} points on average (ECE {error:.4f})"
    calibrated = found.as_calibrated()
    if calibrated is not None:
        error = calibration_error(calibrated)
        text += (
            f"; with the temperature in calibration.json, as infer and exported files give them, "
            f"by {100 * error:.1f} points (ECE {error:.4f}). The table shows them without it"
        )
    text += "."
    if "nll_calibrated" in metrics:
        text += (
            f" The loss (NLL) is {metrics['loss']:.4f}, and {metrics['nll_calibrated']:.4f} with "
            "the temperature."
        )
    figure = reliability_figure(found, title=title)
    picture = embedded(figure_bytes(figure), kind="png")
    return {"rows": rows, "text": text, "picture": picture}


def _mistakes(
    config: Config, images: EvaluationInput, found: AnyPredictions | None, names: Sequence[str]
) -> list[dict[str, str]]:
    """Returns the wrong predictions with the highest probabilities, or the largest errors."""
    if found is None or not len(found.index):
        return []
    if isinstance(found, Predictions):
        worst = found.mistakes(_MISTAKES)
        texts = [
            (f"named {names[predicted]}", f"{confidence:.0%}, is {names[label]}")
            for predicted, confidence, label in zip(worst.predicted, worst.confidence, worst.label)
        ]
        numbers = worst.index
    elif label_kind(config) == NUMBERS:
        numbers, texts = _largest_errors(found, names)
    else:
        return []
    if not len(numbers):
        return []
    picked = images.pick([int(number) for number in numbers])
    pixels = to_pixels(picked, normalisation_of(config.model))
    return [
        {
            "picture": embedded_thumbnail(Image.fromarray(image), side=_THUMBNAIL),
            "text": text,
            "detail": detail,
        }
        for image, (text, detail) in zip(pixels, texts)
    ]


def _largest_errors(
    found: FullPredictions, names: Sequence[str]
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Returns the images whose first number is predicted worst, and what was predicted."""
    order = np.argsort(-np.abs(found.outputs[:, 0] - found.targets[:, 0]), kind="stable")
    order = order[:_MISTAKES]
    texts = [
        (f"{names[0]} predicted {output:.4g}", f"is {target:.4g}")
        for output, target in zip(found.outputs[order, 0], found.targets[order, 0])
    ]
    return found.index[order], texts


def _trained_config(config: Config, run: RunDirectory) -> Config:
    """Returns the config of the training in the run directory, or else that of the evaluation."""
    return run.config() if run.config_file.exists() else config


def _changes(config: Config, run: RunDirectory) -> list[str]:
    """Returns the settings with which a training was evaluated and that it did not have."""
    trained = flat(_trained_config(config, run))
    return [
        overrides_text({key: value}) for key, value in flat(config).items() if value != trained[key]
    ]


def _settings(config: Config) -> list[tuple[str, str]]:
    """Returns the settings that differ from their defaults."""
    changed = []
    for key, value in flat(config).items():
        if value != KEYS[key].default:
            text = str(value)
            changed.append((key, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."))
    return changed


def _command(config: Config, run: RunDirectory) -> str:
    """Returns a command that trains the same again; config.yaml has all settings."""
    model, data = config.model.model_name, config.data.ds_name
    words = ["efficientnetv2", "train", f"--model_name={model}", f"--dataset_cfg={data}"]
    words += [f"--hparam_str={run.config_file}", "--model_dir=runs/again"]
    return shlex.join(words)
