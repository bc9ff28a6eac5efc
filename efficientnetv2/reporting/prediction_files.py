"""Writes predictions and features to files in parts, and shows predictions as tables.

Predictions are written as CSV, JSON, JSON lines or Parquet, features as NumPy arrays. Nothing here
holds more than a part of them in memory.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING

import numpy as np

from efficientnetv2.evaluation.image_prediction import Prediction, UnreadableImage
from efficientnetv2.reporting.row_layout import LAYOUTS, Row, RowLayout
from efficientnetv2.reporting.tables import csv_text, table
from efficientnetv2.runtime.atomic_write import (
    WriteError,
    draft_of,
    require_writable_file,
    write_error_for,
)
from hparams.errors import UserError
from hparams.label_kinds import ONE

if TYPE_CHECKING:
    import pandas

SHOWN = 200  # images in the table on the screen
_CHUNK = 20_000  # images that are converted together


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """A format of a file of predictions, which is written row by row.

    Attributes:
      head: takes the layout of the rows; returns what the file begins with.
      row: takes the layout, a row and the number of rows before it; returns its text.
      tail: takes the number of rows; returns what the file ends with.
      convert: takes the finished text file, the path to write and the layout; writes the file
        proper. None: the text is the file.
    """

    head: Callable[[RowLayout], str]
    row: Callable[[RowLayout, Row, int], str]
    tail: Callable[[int], str]
    convert: Callable[[pathlib.Path, pathlib.Path, RowLayout], None] | None = None


def _json_line(layout: RowLayout, row: Row, _: int) -> str:
    return json.dumps(layout.entry(row), ensure_ascii=False) + "\n"


def _json_item(layout: RowLayout, row: Row, before: int) -> str:
    text = json.dumps(layout.entry(row), indent=1, ensure_ascii=False).replace("\n", "\n ")
    return f"{',' if before else ''}\n {text}"


def _to_parquet(lines: pathlib.Path, path: pathlib.Path, layout: RowLayout) -> None:
    """Writes a Parquet file of the rows of a file of JSON lines; a chunk of rows is a row group."""
    import pyarrow
    import pyarrow.parquet

    names = layout.columns
    types = [
        pyarrow.string() if name in layout.text_columns else pyarrow.float64() for name in names
    ]
    schema = pyarrow.schema(list(zip(names, types)))
    with (
        lines.open(encoding="utf-8", newline="\n") as file,
        pyarrow.parquet.ParquetWriter(path, schema) as writer,
    ):
        while chunk := [json.loads(line) for line in itertools.islice(file, _CHUNK)]:
            cells = [layout.cells(layout.row_of(entry)) for entry in chunk]
            columns = [pyarrow.array(column, kind) for column, kind in zip(zip(*cells), types)]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _nothing(_: object) -> str:
    return ""


_JSON_LINES = RowFormat(_nothing, _json_line, _nothing)
ROW_FORMATS: Mapping[str, RowFormat] = {
    ".csv": RowFormat(
        lambda layout: csv_text([layout.columns]),
        lambda layout, row, _: csv_text([layout.cells(row)]),
        _nothing,
    ),
    ".json": RowFormat(lambda _: "[", _json_item, lambda count: "\n]\n" if count else "]\n"),
    ".jsonl": _JSON_LINES,
    ".parquet": dataclasses.replace(_JSON_LINES, convert=_to_parquet),
}


def row_format(path: pathlib.Path) -> RowFormat:
    """Returns the format that a file's ending names; JSON lines for any other."""
    return ROW_FORMATS.get(path.suffix, _JSON_LINES)


def require_writable(path: pathlib.Path) -> None:
    """Checks, before the long work, that predictions can be written to a file.

    Raises:
      UserError: if its ending is not in ``ROW_FORMATS``, pyarrow is not installed for Parquet, or
        it cannot be written where it lies.
    """
    if path.suffix not in ROW_FORMATS:
        raise UserError(f"--output must end in {', '.join(ROW_FORMATS)}, got '{path}'")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--output={path} needs the package pyarrow: pip install pyarrow")
    if not path.parent.is_dir():
        raise UserError(f"--output={path}: the folder '{path.parent}' does not exist")
    try:
        require_writable_file(path)
    except WriteError as error:
        raise UserError(f"--output: {error}") from None


def show_predictions(
    rows: Iterable[Row], count: int, *, layout: RowLayout, is_written: bool
) -> None:
    """Prints the first images and what is predicted for them as a table.

    Args:
      rows: the first of all, at most ``SHOWN``.
      count: number of all.
      layout: of the rows.
      is_written: whether a file will have all.
    """
    cells = [[row.image, *layout.shown(row)] for row in rows]
    print(table(layout.headings, cells))
    if count > len(cells):
        hint = "" if is_written else "; --output=all.csv writes all"
        print(f"... and {count - len(cells):,} more{hint}")


def predictions_to_frame(
    predictions: Iterable[Prediction | UnreadableImage],
    *,
    top_k: int = 5,
    allow_unknown: bool = False,
) -> pandas.DataFrame:
    """Returns a pandas DataFrame with a row for each image, and the columns of a CSV file.

    The columns are ``image``, ``class_1``, ``probability_1`` (0..1), ``class_2`` ...; where images
    have several labels ``image``, ``labels`` and ``probabilities``, separated by ``|``; where they
    have numbers ``image`` and the names of these. An image that cannot be read has missing values.

    Args:
      predictions: of the images, in the order of the rows.
      top_k: number of classes to name for each image; all if there are fewer.
      allow_unknown: add the column ``answer``: the likeliest class, or ``unknown``; not of numbers.

    Raises:
      UserError: if pandas is not installed.
    """
    if importlib.util.find_spec("pandas") is None:
        raise UserError("predictions_to_frame needs the package pandas: pip install pandas")
    import pandas

    results = list(predictions)
    first = next((result for result in results if isinstance(result, Prediction)), None)
    names = first.class_names if first is not None else []
    kind = first.kind if first is not None else ONE
    layout = LAYOUTS[kind](names, min(top_k, len(names)), with_answer=allow_unknown)
    rows = [
        layout.cells(Row(str(result.path), result.row(top_k), result.answer))
        if isinstance(result, Prediction)
        else [str(result.path), *[None] * (len(layout.columns) - 1)]
        for result in results
    ]
    return pandas.DataFrame(rows, columns=layout.columns)


def write_features(
    images: Callable[[], Iterator[str]],
    values: pathlib.Path,
    path: pathlib.Path,
    *,
    shape: tuple[int, int],
) -> None:
    """Writes an .npz file with the arrays ``images`` (N names) and ``features`` ``[N, F]``.

    Args:
      images: returns an iterator over the N names; it is called twice.
      values: a file of N x F float32 numbers.
      path: of the new file.
      shape: N and F.

    Raises:
      WriteError: if it cannot be written.
    """
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    names = np.dtype(f"<U{max(map(len, images()), default=1)}")
    with draft_of(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        with _array(archive, "images", names, shape[:1]) as file:
            rest = images()
            while chunk := list(itertools.islice(rest, _CHUNK)):
                file.write(np.array(chunk, names).tobytes())
        with _array(archive, "features", np.dtype("<f4"), shape) as file, values.open("rb") as raw:
            shutil.copyfileobj(raw, file, 2**20)


def _array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]
) -> IO[bytes]:
    """Opens an array of an .npz file for writing, behind its header."""
    file = archive.open(f"{name}.npy", "w", force_zip64=True)
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file
