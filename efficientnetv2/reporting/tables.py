"""Formats aligned tables for a terminal, and writes CSV files."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.runtime.atomic_write import replace_text
from hparams.errors import visible


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats rows under a header; the first column is aligned left, the others right.

    >>> print(table(["weights", "top-1"], [["raw", "0.95"], ["EMA", "0.9611"]]))
    weights   top-1
    raw        0.95
    EMA      0.9611
    """
    header = [visible(str(cell)) for cell in header]
    rows = [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = row
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in [header, *rows])


def write_csv(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Writes a CSV file with a row per mapping; the header is the keys of the first one.

    Raises:
      WriteError: if it cannot be written.
    """
    write_csv_rows([list(rows[0]), *(list(row.values()) for row in rows)], path)


def write_csv_rows(rows: Sequence[Sequence[Any]], path: pathlib.Path) -> None:
    """Writes a CSV file; the first row is the header.

    Raises:
      WriteError: if they cannot be written.
    """
    replace_text(path, csv_text(rows))


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """Returns rows as lines of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue()


def _inert(cell: Any) -> Any:
    """Returns a cell that no spreadsheet takes for a formula: names of files and classes may be."""
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return cell
