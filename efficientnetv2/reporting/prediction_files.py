"""Prints predictions as a table, and writes predictions and features to files.

Predictions are written as CSV, JSON or Parquet, features as NumPy arrays.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from efficientnetv2.reporting.tables import table, write_csv_rows
from efficientnetv2.runtime.atomic_write import (
    WriteError,
    draft_of,
    replace_text,
    require_writable_file,
    write_error_for,
)
from hparams.errors import UserError

SUFFIXES = (".csv", ".json", ".parquet")
_SHOWN = 200  # images in the table on the screen
Row = tuple[str, list[tuple[str, float]]]  # image, [(class, probability)], the likeliest first


def require_writable(path: pathlib.Path) -> None:
    """Checks, before the long work, that predictions can be written to a file.

    Raises:
      UserError: if its ending is not in ``SUFFIXES``, pyarrow is not installed for Parquet, or it
        cannot be written where it lies.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--output must end in {', '.join(SUFFIXES)}, got '{path}'")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--output={path} needs the package pyarrow: pip install pyarrow")
    if not path.parent.is_dir():
        raise UserError(f"--output={path}: the folder '{path.parent}' does not exist")
    try:
        require_writable_file(path)
    except WriteError as error:
        raise UserError(f"--output: {error}") from None


def best_classes(
    probabilities: np.ndarray, names: Sequence[str], *, top_k: int
) -> list[tuple[str, float]]:
    """Returns (class, probability) of the ``top_k`` likeliest classes, the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [(names[index], float(probabilities[index])) for index in order]


def show_predictions(rows: Sequence[Row]) -> None:
    """Prints the first 200 images and their classes as a table."""
    cells = [
        [image, *(f"{name} {probability:.1%}" for name, probability in classes)]
        for image, classes in rows[:_SHOWN]
    ]
    print(table(["image", *(str(place) for place in range(1, len(cells[0])))], cells))
    if len(rows) > _SHOWN:
        print(f"... and {len(rows) - _SHOWN:,} more; --output=all.csv writes all")


def write_predictions(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes one row per image, in the format that the file's ending names.

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
    write_csv_rows([list(columns), *zip(*columns.values())], path)


def _write_parquet(columns: dict[str, list], path: pathlib.Path) -> None:
    import pyarrow
    import pyarrow.parquet

    with draft_of(path) as draft:
        pyarrow.parquet.write_table(pyarrow.table(columns), draft)


def write_features(
    images: Sequence[str], features: Sequence[np.ndarray], path: pathlib.Path
) -> None:
    """Writes an .npz file with the arrays ``images`` (N names) and ``features`` ``[N, F]``.

    Raises:
      WriteError: if it cannot be written.
    """
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft, draft.open("wb") as file:
        np.savez(file, images=np.array(images), features=np.stack(features))
