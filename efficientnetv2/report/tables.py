"""Rows of text in; an aligned table for a terminal out."""

from __future__ import annotations

from collections.abc import Sequence


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
