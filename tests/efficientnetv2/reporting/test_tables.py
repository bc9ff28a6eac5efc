"""Tests tables for a terminal, character by character."""

import pytest

from efficientnetv2.reporting.tables import table


@pytest.mark.parametrize(
    ("header", "rows", "lines"),
    [
        (
            ["weights", "top-1"],
            [["raw", "0.95"], ["EMA", "0.9611"]],
            ["weights   top-1", "raw        0.95", "EMA      0.9611"],
        ),
        (
            ["a", "b", "c"],
            [["longer", "1", "333"], ["", "22", "4"]],
            ["a        b    c", "longer   1  333", "        22    4"],
        ),
        (["model", "px"], [], ["model  px"]),
        (["only"], [["one"], ["column"]], ["only", "one", "column"]),
        (["name", "note"], [["x", ""]], ["name  note", "x"]),
        (["n", "value"], [[1, 2.5], [10, None]], ["n   value", "1     2.5", "10   None"]),
    ],
)
def test_columns_are_aligned(header: list, rows: list, lines: list) -> None:
    assert table(header, rows).split("\n") == lines


def test_rows_keep_their_order() -> None:
    rows = [[name] for name in "zaqb"]
    assert table(["name"], rows).split("\n")[1:] == list("zaqb")
