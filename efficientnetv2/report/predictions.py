"""Rows of predictions or features in; CSV, JSON, Parquet or NumPy files of them out."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from efficientnetv2.train.durable import replace, replace_text, writing
from hparams.errors import UserError

FORMATS = (".csv", ".json", ".parquet")
Row = tuple[str, list[tuple[str, float]]]  # image, (class, probability), the likeliest first


def require_writable(path: pathlib.Path) -> None:
    """Checks the ending of a file of predictions, and what it needs.

    Raises:
      UserError: if it is none of ``FORMATS``, or Parquet's library is not installed.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--output must end in {', '.join(FORMATS)}, got '{path}'")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--output={path} needs the package pyarrow: pip install pyarrow")
    if not path.parent.is_dir():
        raise UserError(f"--output={path}: there is no folder '{path.parent}'")


def write_predictions(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes one row an image.

    Raises:
      WriteError: if it cannot be written.
    """
    if path.suffix == ".json":
        content = [
            {"image": image, "classes": [{"name": n, "probability": p} for n, p in classes]}
            for image, classes in rows
        ]
        replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    places = range(1, len(rows[0][1]) + 1) if rows else range(0)
    columns: dict[str, list] = {"image": [image for image, _ in rows]}
    for place in places:
        columns[f"class_{place}"] = [classes[place - 1][0] for _, classes in rows]
        columns[f"probability_{place}"] = [classes[place - 1][1] for _, classes in rows]
    if path.suffix == ".parquet":
        _write_parquet(columns, path)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    replace_text(path, text.getvalue())


def _write_parquet(columns: dict[str, list], path: pathlib.Path) -> None:
    import pyarrow
    import pyarrow.parquet

    draft = path.with_name(f"{path.name}.tmp")
    with writing(path):
        pyarrow.parquet.write_table(pyarrow.table(columns), draft)
        replace(draft, path)


def write_features(images: Sequence[str], features: np.ndarray, path: pathlib.Path) -> None:
    """Writes ``images`` (names) and ``features`` (float32 ``[N, F]``) as an .npz file.

    Raises:
      WriteError: if it cannot be written.
    """
    draft = path.with_name(f"{path.name}.tmp.npz")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(draft, images=np.array(images), features=features)
        replace(draft, path)
