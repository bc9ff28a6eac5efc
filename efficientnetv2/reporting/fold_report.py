"""Reports a cross-validation: folds.json, folds.csv, out_of_fold.csv, and a table of the folds."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from efficientnetv2.data.sources.table_file import SEPARATOR
from efficientnetv2.evaluation.held_out_scores import (
    HeldOutScores,
    WeightsMetrics,
    pooled_metrics,
)
from efficientnetv2.reporting.results import WEIGHTS, data_name, metric_columns
from efficientnetv2.reporting.tables import csv_text, table, write_csv_rows
from efficientnetv2.runtime.atomic_write import draft_of, replace_text
from hparams.config import Config
from hparams.label_kinds import NUMBERS, ONE, label_kind

RESULT_FILE, TABLE_FILE, SCORES_FILE = "folds.json", "folds.csv", "out_of_fold.csv"
_CHUNK = 10_000  # images that are converted together


def report_folds(
    config: Config,
    scores: Sequence[HeldOutScores],
    class_names: Sequence[str],
    folder: pathlib.Path,
) -> None:
    """Writes the results of all folds, and prints them as a table.

    Args:
      config: of the first fold.
      scores: of the folds, in their order.
      class_names: K names, of the classes or the numbers.
      folder: an existing folder.

    Raises:
      WriteError: if a file cannot be written.
    """
    kind = label_kind(config)
    result = summary(config, scores)
    write_out_of_fold(scores, class_names, folder / SCORES_FILE, kind=kind)
    write_csv_rows(_rows(result), folder / TABLE_FILE)
    # Last: whoever finds it finds the others.
    replace_text(folder / RESULT_FILE, json.dumps(result, indent=2) + "\n")
    _show(result, kind, config, images=sum(len(one.paths) for one in scores))
    files = [RESULT_FILE, TABLE_FILE, SCORES_FILE, "fold1/ ..."]
    print(f"\nwritten to {folder}: {', '.join(files)}", flush=True)


def summary(config: Config, scores: Sequence[HeldOutScores]) -> dict[str, Any]:
    """Returns what folds.json holds: the metrics of each fold, and of all images together.

    With their mean and standard deviation over the folds, that of a sample (n - 1).
    """
    tests = [one.test for one in scores if one.test]
    result: dict[str, Any] = {
        "data_set": config.data.ds_name,
        "folds": [{"fold": n, **one.metrics} for n, one in enumerate(scores, start=1)],
        **_spread([one.metrics for one in scores]),
        "out_of_fold": {
            "weights": list(scores[0].metrics)[-1],
            **pooled_metrics(scores, label_kind(config)),
        },
    }
    if tests:
        folds = [{"fold": n, **one} for n, one in enumerate(tests, start=1)]
        result["test"] = {"folds": folds, **_spread(tests)}
    return result


def _spread(folds: Sequence[WeightsMetrics]) -> dict[str, WeightsMetrics]:
    """Returns mean and standard deviation over the folds: weights -> metric -> number."""
    mean: WeightsMetrics = {}
    deviation: WeightsMetrics = {}
    for weights, metrics in folds[0].items():
        mean[weights], deviation[weights] = {}, {}
        for name in metrics:
            if name == "images":
                continue
            values = np.array([fold[weights][name] for fold in folds], np.float64)
            mean[weights][name] = float(values.mean())
            deviation[weights][name] = float(values.std(ddof=1))
    return {"mean": mean, "deviation": deviation}


def _rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """Returns the rows of folds.csv: those of the folds, then mean and deviation."""
    first = result["folds"][0]
    weights = [name for name in first if name != "fold"]
    names = [name for name in first[weights[0]] if name != "images"]
    rows: list[list[Any]] = [["fold", "weights", "images", *names]]
    for fold in result["folds"]:
        for name in weights:
            numbers = [fold[name][metric] for metric in names]
            rows.append([fold["fold"], name, fold[name]["images"], *numbers])
    for what in ("mean", "deviation"):
        rows += [[what, name, "", *(result[what][name][m] for m in names)] for name in weights]
    return rows


def _show(result: Mapping[str, Any], kind: str, config: Config, *, images: int) -> None:
    """Prints the folds, and the test images if there are any, by the weights that count."""
    weights = result["out_of_fold"]["weights"]
    what = WEIGHTS[weights].text
    count = len(result["folds"])
    parts = [(f"{count} folds, {images:,} images held out once each ({what})", result)]
    if "test" in result:
        parts.append((f"test images, by the network of each fold ({what})", result["test"]))
    for title, part in parts:
        columns = metric_columns(kind, part["mean"][weights])
        lines = [(str(fold["fold"]), fold[weights]) for fold in part["folds"]]
        lines += [(name, part[name][weights]) for name in ("mean", "deviation")]
        if part is result:
            lines.append(("together", result["out_of_fold"]))
        cells = [
            [name, *(f"{values[m]:.4f}" if m in values else "" for m in columns.values())]
            for name, values in lines
        ]
        print(f"\n{data_name(config)}: {title}")
        print(table(["fold", *columns], cells))


def write_out_of_fold(
    scores: Sequence[HeldOutScores],
    class_names: Sequence[str],
    path: pathlib.Path,
    *,
    kind: str,
) -> None:
    """Writes one row for each image that a fold held out, atomically.

    The columns are ``path``, ``fold``, ``label``, ``predicted``, and ``score <class>`` a class; of
    several classes ``labels``, whose names are separated by a bar, as are those predicted; of
    numbers ``target <name>`` and ``predicted <name>``.

    Raises:
      WriteError: if it cannot be written.
    """
    with draft_of(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_text([_header(class_names, kind)]))
        for number, fold in enumerate(scores, start=1):
            for start in range(0, len(fold.paths), _CHUNK):
                part = slice(start, start + _CHUNK)
                file.write(csv_text(list(_cells(fold, part, number, class_names, kind))))


def _header(names: Sequence[str], kind: str) -> list[str]:
    if kind == NUMBERS:
        columns = [f"{what} {name}" for what in ("target", "predicted") for name in names]
        return ["path", "fold", *columns]
    label = "label" if kind == ONE else "labels"
    return ["path", "fold", label, "predicted", *(f"score {name}" for name in names)]


def _cells(
    fold: HeldOutScores, part: slice, number: int, names: Sequence[str], kind: str
) -> Iterator[list[Any]]:
    rows = zip(fold.paths[part], fold.outputs[part].tolist(), fold.targets[part].tolist())
    for path, outputs, targets in rows:
        if kind == NUMBERS:
            yield [path, number, *targets, *outputs]
        elif kind == ONE:
            label, predicted = (int(np.argmax(values)) for values in (targets, outputs))
            yield [path, number, names[label], names[predicted], *outputs]
        else:
            true = [name for name, value in zip(names, targets) if value > 0]
            found = [n for n, v, low in zip(names, outputs, fold.thresholds) if v >= low]
            yield [path, number, SEPARATOR.join(true), SEPARATOR.join(found), *outputs]
