"""Reads the cells of a table: CSV, TSV, JSON lines or Parquet. No TensorFlow here.

All cells become text, so that ``7`` is the same label in each kind of file; an empty text is a
missing value, and None is what is neither text nor a number.
"""

from __future__ import annotations

import codecs
import collections
import csv
import dataclasses
import importlib.util
import io
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from efficientnetv2.data.sources.file_names import printable
from hparams.errors import DataError, listed, shown

SEPARATOR = "|"  # between the labels of an image
_DELIMITERS = (",", ";", "\t")  # a spreadsheet writes semicolons where the comma is in numbers
_PARQUET_MARK = b"PAR1"
_LONGEST_CELL = 1 << 24  # characters


@dataclasses.dataclass(frozen=True)
class TableFile:
    """The content of a table.

    Attributes:
      path: of the file.
      columns: their names.
      rows: number of each row as a spreadsheet or an editor shows it, and its cells, one a column.
    """

    path: pathlib.Path
    columns: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str | None]]]

    def error(self, message: str, *, row: int | None = None, column: str = "") -> DataError:
        """Returns the error of a cell, a row, a column or the whole table."""
        return table_error(self.path, message, row=row, column=column)


def table_error(
    path: pathlib.Path, message: str, *, row: int | None = None, column: str = ""
) -> DataError:
    """Returns an error that names the table and, if they are known, the row and the column."""
    place = f"table '{printable(path)}'"
    place += f", row {row}" if row is not None else ""
    place += f", column '{printable(column)}'" if column else ""
    return DataError(f"{place}: {message}")


def is_table(path: pathlib.Path) -> bool:
    """Returns whether a path ends like a table and is not a folder."""
    return path.suffix.lower() in TABLE_FORMATS and not path.is_dir()


def read_table(path: pathlib.Path) -> TableFile:
    """Reads a table.

    Args:
      path: of a file with an ending of ``TABLE_FORMATS``.

    Raises:
      DataError: if the file cannot be read, is damaged, has no row, or two columns of one name.
    """
    try:
        table = TABLE_FORMATS[path.suffix.lower()](path)
    except OSError as error:
        raise table_error(path, f"cannot read it: {error.strerror or error}") from None
    counts = collections.Counter(name for name in table.columns if name)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise table.error(f"two columns are called '{printable(twice[0])}'")
    if not table.rows:
        raise table.error("it has no row besides the names of the columns")
    return table


# ---------------------------------------------------------------------- CSV and TSV


def _read_csv(path: pathlib.Path) -> TableFile:
    limit = csv.field_size_limit(_LONGEST_CELL)
    row = 0
    try:
        text, delimiter = _delimited(path)
        columns: list[str] = []
        rows = []
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for row, record in enumerate(reader, start=1):
            cells = [cell.strip() for cell in record]
            if not any(cells) or (row == 1 and _excel_delimiter(text)):
                continue
            if not columns:
                columns = cells
            elif len(cells) == len(columns):
                rows.append((row, cells))
            else:
                raise table_error(
                    path,
                    f"it has {len(cells)} cells, but there are {len(columns)} columns; quote cells "
                    f"that hold {shown(delimiter)}",
                    row=row,
                )
    except csv.Error as error:
        raise table_error(path, f"it is not CSV: {error}", row=row + 1) from None
    finally:
        csv.field_size_limit(limit)
    if not columns:
        raise table_error(path, "it is empty")
    return TableFile(path, columns, rows)


def _delimited(path: pathlib.Path) -> tuple[str, str]:
    """Returns the text of a file, and what separates its cells.

    That is what Excel's first line says, or else what cuts the names of the columns into most
    pieces; the first of several, which is a comma in ``.csv`` and a tab in ``.tsv``.
    """
    text = _decoded(path)
    said = _excel_delimiter(text)
    if said:
        return text, said
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiters = _DELIMITERS if path.suffix.lower() == ".csv" else _DELIMITERS[::-1]
    return text, max(
        delimiters, key=lambda letter: len(next(csv.reader([first], delimiter=letter)))
    )


def _excel_delimiter(text: str) -> str:
    """Returns the separator in a first line such as ``sep=;``; "": there is no such line."""
    match = re.match(r"sep=([,;\t|])\r?\n", text, re.IGNORECASE)
    return match[1] if match else ""


def _decoded(path: pathlib.Path) -> str:
    content = path.read_bytes()
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeError:
                raise table_error(path, f"it begins like {encoding}, but is not") from None
    # File names may be any bytes; names of classes are checked where they are used.
    return content.decode("utf-8", errors="surrogateescape")


# ---------------------------------------------------------------------- JSON lines


def _read_json_lines(path: pathlib.Path) -> TableFile:
    records: list[tuple[int, Mapping[str, Any]]] = []
    columns: dict[str, None] = {}
    for row, line in enumerate(_decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "it is nested too deeply")
            raise table_error(path, f"it is not JSON: {reason}", row=row) from None
        if not isinstance(record, dict):
            raise table_error(path, f"it must be an object, got {shown(record)}", row=row)
        columns.update(dict.fromkeys(record))
        records.append((row, record))
    return _table(path, list(columns), records)


# ---------------------------------------------------------------------- Parquet


def _read_parquet(path: pathlib.Path) -> TableFile:
    if importlib.util.find_spec("pyarrow") is None:
        raise table_error(path, "Parquet needs pyarrow: pip install pyarrow")
    with path.open("rb") as file:
        if (
            file.read(len(_PARQUET_MARK)) != _PARQUET_MARK
        ):  # before the import, which takes a second
            raise table_error(path, "it is not Parquet: it does not begin with PAR1")
    import pyarrow
    import pyarrow.parquet

    try:
        content = pyarrow.parquet.read_table(path)
        columns = list(content.column_names)
        values = [column.to_pylist() for column in content.columns]
    except (pyarrow.ArrowException, UnicodeError) as error:  # a text may not be UTF-8
        raise table_error(path, f"it is not Parquet: {error}") from None
    records = ((row, dict(zip(columns, cells))) for row, cells in enumerate(zip(*values), start=1))
    return _table(path, columns, records)


def _table(
    path: pathlib.Path,
    columns: Sequence[str],
    records: Iterable[tuple[int, Mapping[str, Any]]],
) -> TableFile:
    rows = [(row, [_text(record.get(name)) for name in columns]) for row, record in records]
    return TableFile(path, [name.strip() for name in columns], rows)


def _text(value: Any) -> str | None:
    """Returns a value as it would stand in a CSV file; None: it cannot."""
    if isinstance(value, str):
        return value.strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas turns whole numbers into floats where one is missing
    if isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, list):
        texts = [_text(item) for item in value if not isinstance(item, list)]
        plain = [text for text in texts if text is not None]
        return SEPARATOR.join(plain) if len(plain) == len(value) else None
    return None


# Ending -> reader. To add a kind of table, add a row.
TABLE_FORMATS: Mapping[str, Callable[[pathlib.Path], TableFile]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def column_named(table: TableFile, name: str, *, key: str) -> int:
    """Returns the index of a column that a setting names; upper and lower case are the same.

    Raises:
      DataError: if there is no such column; names the nearest one.
    """
    found = find_column(table, name)
    if found is None:
        raise table.error(
            f"it has no column '{printable(name)}' ({key}); its columns: "
            f"{listed([printable(column) for column in table.columns])}"
        )
    return found


def find_column(table: TableFile, *names: str) -> int | None:
    """Returns the index of the first of some names that is a column; None: none of them is."""
    columns = [column.strip().lower() for column in table.columns]
    exact = list(table.columns)
    for name in names:
        if name in exact:
            return exact.index(name)
        if name.strip().lower() in columns:
            return columns.index(name.strip().lower())
    return None
