"""Rows in; an aligned table for a terminal, or a CSV file, out."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.train.durable import replace_text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns the rows under their header, columns aligned: the first left, the others right.

    >>> print(table(["weights", "top-1"], [["raw", "0.95"], ["EMA", "0.9611"]]))
    weights   top-1
    raw        0.95
    EMA      0.9611
    """
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = row
        cells = [str(first).ljust(widths[0])]
        cells += [str(cell).rjust(width) for cell, width in zip(others, widths[1:])]
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in [header, *rows])


def write_csv(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Writes rows under the names of the first one's columns.

    Raises:
      WriteError: if it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())
