"""Tests tables for a terminal, character by character."""

import csv

import pytest

from efficientnetv2.reporting.tables import table, write_csv_rows


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


def test_a_spreadsheet_runs_no_name(tmp_path):
    names = ["=1+1", "+1", "-1", "@sum", "\tx", "cat", "a=b"]
    write_csv_rows([["class", "share"], *([name, -0.5] for name in names)], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert [row[0] for row in rows] == ["'=1+1", "'+1", "'-1", "'@sum", "'\tx", "cat", "a=b"]
    assert {row[1] for row in rows} == {"-0.5"}


def test_a_table_shows_line_breaks():
    assert table(["a\nb", "c"], [["x\x1b", "1"]]).splitlines() == ["a\\nb   c", "x\\x1b  1"]
