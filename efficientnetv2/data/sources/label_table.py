"""Reads a table of labels: which image is of which class, classes or numbers.

No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from efficientnetv2.data.sources.file_names import is_plain_text, printable
from efficientnetv2.data.sources.image_splits import Label
from efficientnetv2.data.sources.image_suffixes import is_image, readable_suffixes
from efficientnetv2.data.sources.split_names import split_of
from efficientnetv2.data.sources.table_file import (
    SEPARATOR,
    TableFile,
    column_named,
    find_column,
    read_table,
)
from hparams.channels import RGB
from hparams.config import Config
from hparams.errors import listed, shown
from hparams.label_kinds import NUMBERS, ONE, SEVERAL
from hparams.limits import LARGEST_TARGET

# What people call the columns, the usual name first.
_PATH = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
_LABEL = ("label", "class", "class_name", "category")
_LABELS = ("labels", "classes", "tags", "categories")
_TARGET = "target"
_SPLIT, _GROUP, _WEIGHT = "split", "group", "weight"
_YES_NO: Mapping[str, bool] = {
    **dict.fromkeys(("1", "true", "yes", "1.0"), True),
    **dict.fromkeys(("0", "false", "no", "0.0"), False),
}


@dataclasses.dataclass(frozen=True)
class TableColumns:
    """The columns that the config names; what is empty is found by its usual name.

    Attributes:
      path: of the image files.
      labels: of classes.
      targets: of numbers.
      split: of train, val and test.
      group: of what stays in one split.
      weight: of the images in the loss.
      multi_label: whether a single column of ``labels`` holds several names.
      arrays: whether ``.npy`` files are images.
    """

    path: str | None = None
    labels: Sequence[str] = ()
    targets: Sequence[str] = ()
    split: str | None = None
    group: str | None = None
    weight: str | None = None
    multi_label: bool = False
    arrays: bool = False

    @property
    def given(self) -> list[str]:
        """The config keys that are set."""
        return [
            f"data.{name}"
            for name, value in (
                ("path_column", self.path),
                ("label_columns", self.labels),
                ("target_columns", self.targets),
                ("split_column", self.split),
                ("group_column", self.group),
                ("weight_column", self.weight),
            )
            if value
        ]


def columns_of(config: Config) -> TableColumns:
    """Returns the columns that a config names."""
    data = config.data
    return TableColumns(
        path=data.path_column,
        labels=tuple(data.label_columns),
        targets=tuple(data.target_columns),
        split=data.split_column,
        group=data.group_column,
        weight=data.weight_column,
        multi_label=data.multi_label,
        arrays=config.model.channels != RGB,
    )


class LabelRow(NamedTuple):
    """One image of a table.

    Attributes:
      row: its number, as in ``TableFile``.
      path: of the file, relative to the table's folder or absolute.
      label: as in ``ImageFile``.
      split: ``train``, ``minival`` or ``test``; "": the table does not say.
      group: images of the same one stay in one split; "": it has none.
      weight: in the loss, at least 0.
    """

    row: int
    path: str
    label: Label
    split: str
    group: str
    weight: float


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The images of a table.

    Attributes:
      table: the file.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      class_names: in the order of the labels; of numbers, their columns.
      label_columns: names of the columns that the labels stand in.
      rows: the images, in the order of the table.
      columns: ``path``, ``split``, ``group`` and ``weight`` -> name of the column, if there is one.
      unlabelled: number of rows that the column of splits marks as to be predicted.
    """

    table: TableFile
    kind: str
    class_names: Sequence[str]
    label_columns: Sequence[str]
    rows: Sequence[LabelRow]
    columns: Mapping[str, str]
    unlabelled: int


def read_label_table(path: pathlib.Path, columns: TableColumns) -> LabelTable:
    """Reads a table of labels and checks every cell; whether the images exist is not checked.

    Args:
      path: of the table, see ``read_table``.
      columns: those that the config names.

    Raises:
      DataError: if the table cannot be read, has no such columns, or a cell is wrong; the message
        names the row and the column.
    """
    return _Reader(read_table(path), columns).read()


class _Reader:
    """Reads the rows of one table."""

    def __init__(self, table: TableFile, columns: TableColumns) -> None:
        self._table = table
        self._arrays = columns.arrays
        self._labels: list[int] = []
        path = self._column("path_column", columns.path, *_PATH)
        if path is None:
            raise table.error(
                f"it has no column '{_PATH[0]}' with the image files, only "
                f"{self._names(range(len(table.columns)))}; the first row must name the columns, "
                "and data.path_column may say which it is"
            )
        self._path = path
        self.kind, self._labels = self._label_columns(columns)
        self._split = self._column("split_column", columns.split, _SPLIT)
        self._group = self._column("group_column", columns.group, _GROUP)
        self._weight = self._column("weight_column", columns.weight, _WEIGHT)
        self._checked: set[str] = set()  # names of classes

    def read(self) -> LabelTable:
        rows: list[LabelRow] = []
        labels: list[tuple[str, ...]] = []  # names of the classes of each row
        first_row: dict[str, int] = {}  # of each path
        unlabelled = 0
        for row, cells in self._table.rows:
            path = self._path_of(row, cells)
            self._check_new(path, row, first_row)
            split = self._split_of(row, cells)
            if split == "predict":
                unlabelled += 1
                continue
            numbers = self._targets(row, cells) if self.kind == NUMBERS else ()
            labels.append(() if self.kind == NUMBERS else self._names_of(row, cells))
            group = "" if self._group is None else self._cell(row, cells, self._group)
            weight = self._weight_of(row, cells)
            rows.append(LabelRow(row, path, numbers, split, group, weight))
        if not rows:
            raise self._table.error("all its rows are images without labels, to be predicted")
        class_names = self._class_names(labels)
        if self.kind != NUMBERS:
            rows = _with_labels(rows, labels, class_names, is_one=self.kind == ONE)
        named = {"path": self._path, "split": self._split, "group": self._group}
        return LabelTable(
            table=self._table,
            kind=self.kind,
            class_names=class_names,
            label_columns=[self._table.columns[index] for index in self._labels],
            rows=rows,
            columns={
                name: self._table.columns[index]
                for name, index in {**named, "weight": self._weight}.items()
                if index is not None
            },
            unlabelled=unlabelled,
        )

    def _check_new(self, path: str, row: int, first_row: dict[str, int]) -> None:
        before = first_row.setdefault(path, row)
        if before != row:
            hint = "; an image of several labels has one row: cat|dog in a column 'labels'"
            raise self._error(
                f"'{printable(path)}' stands in row {before}, too{hint * (self.kind == ONE)}",
                row,
                self._path,
            )

    # ------------------------------------------------------------------ columns

    def _column(self, key: str, name: str | None, *usual: str) -> int | None:
        if name is not None:
            return column_named(self._table, name, key=f"data.{key}")
        found = find_column(self._table, *usual)
        return None if found in self._labels else found  # a weight in kilograms, for example

    def _label_columns(self, columns: TableColumns) -> tuple[str, list[int]]:
        """Returns the kind of the labels and the indices of their columns."""
        table = self._table
        if columns.targets and columns.labels:
            raise table.error("data.label_columns and data.target_columns are both given")
        if columns.targets:
            named = functools.partial(column_named, table, key="data.target_columns")
            return NUMBERS, self._distinct(named(name) for name in columns.targets)
        if columns.labels:
            named = functools.partial(column_named, table, key="data.label_columns")
            found = self._distinct(named(name) for name in columns.labels)
            return (SEVERAL if columns.multi_label or len(found) > 1 else ONE), found
        targets = [
            index
            for index, name in enumerate(table.columns)
            if name.lower() == _TARGET or name.lower().startswith(f"{_TARGET}_")
        ]
        usual = {
            ONE: [index for index in (find_column(table, *_LABEL),) if index is not None],
            SEVERAL: [index for index in (find_column(table, *_LABELS),) if index is not None],
            NUMBERS: targets,
        }
        kinds = [kind for kind, found in usual.items() if found]
        if not kinds:
            raise table.error(
                f"it has no column 'label', 'labels' or 'target', only "
                f"{self._names(range(len(table.columns)))}; data.label_columns or "
                "data.target_columns may say which it is"
            )
        if len(kinds) > 1:
            raise table.error(
                f"its columns {self._names([usual[kind][0] for kind in kinds])} all look like "
                "labels; say with data.label_columns or data.target_columns which are meant"
            )
        return kinds[0], usual[kinds[0]]

    def _distinct(self, indices: Iterable[int]) -> list[int]:
        found = list(indices)
        if len(set(found)) < len(found):
            raise self._table.error(f"a column is named twice: {self._names(found)}")
        return found

    def _names(self, indices: Iterable[int]) -> str:
        return listed([f"'{printable(self._table.columns[index])}'" for index in indices])

    # ------------------------------------------------------------------ cells

    def _error(self, message: str, row: int, column: int) -> Exception:
        return self._table.error(message, row=row, column=self._table.columns[column])

    def _cell(self, row: int, cells: Sequence[str | None], column: int) -> str:
        text = cells[column]
        if text is None:
            raise self._error("it must hold text or a number", row, column)
        return text

    def _path_of(self, row: int, cells: Sequence[str | None]) -> str:
        path = self._cell(row, cells, self._path)
        if not path:
            raise self._error("it is empty; it must name an image file", row, self._path)
        if "\0" in path:
            raise self._error(f"{shown(path)} holds a NUL character", row, self._path)
        if "\\" in path and not (self._table.path.parent / path).exists():
            path = path.replace("\\", "/")  # written on Windows
        path = os.path.normpath(path)
        if not is_image(path, arrays=self._arrays):
            known = ", ".join(readable_suffixes(arrays=self._arrays))
            raise self._error(
                f"'{printable(path)}' is no image file ({known})",
                row,
                self._path,
            )
        return path

    def _split_of(self, row: int, cells: Sequence[str | None]) -> str:
        if self._split is None:
            return ""
        text = self._cell(row, cells, self._split)
        split = split_of(text) if text else None
        if split is None:
            what = f"is {shown(text)}" if text else "is empty"
            raise self._error(
                f"it {what}; give train, val or test, or predict for an image without a label",
                row,
                self._split,
            )
        return split

    def _weight_of(self, row: int, cells: Sequence[str | None]) -> float:
        if self._weight is None:
            return 1.0
        weight = self._number(row, cells, self._weight)
        if weight < 0:
            raise self._error(f"a weight must be at least 0, got {weight:g}", row, self._weight)
        return weight

    def _number(self, row: int, cells: Sequence[str | None], column: int) -> float:
        text = self._cell(row, cells, column)
        try:
            number = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST_TARGET:  # nan neither
            what = shown(text) if text else "nothing"
            raise self._error(
                f"it must be a number such as 1.5 (up to {LARGEST_TARGET:g}), got {what}",
                row,
                column,
            )
        return number

    # ------------------------------------------------------------------ labels

    def _names_of(self, row: int, cells: Sequence[str | None]) -> tuple[str, ...]:
        """Returns the names of the classes of a row, each once."""
        if len(self._labels) > 1:
            return self._flagged(row, cells)
        column = self._labels[0]
        text = self._cell(row, cells, column)
        if self.kind == ONE:
            if not text:
                raise self._error("it is empty; it must name the class", row, column)
            names = [text]
        else:
            names = [name.strip() for name in text.split(SEPARATOR)] if text else []
            if "" in names:
                raise self._error(f"a name is missing in {shown(text)}", row, column)
        for name in names:
            if name not in self._checked and not is_plain_text(name):
                raise self._error(
                    f"'{printable(name)}' is no name of a class: it must be UTF-8 without line "
                    "breaks",
                    row,
                    column,
                )
            self._checked.add(name)
        return tuple(dict.fromkeys(names))

    def _flagged(self, row: int, cells: Sequence[str | None]) -> tuple[str, ...]:
        names = []
        for column in self._labels:
            text = self._cell(row, cells, column)
            flag = _YES_NO.get(text.lower())
            if flag is None:
                what = shown(text) if text else "nothing"
                raise self._error(f"it must be 0 or 1, got {what}", row, column)
            if flag:
                names.append(self._table.columns[column])
        return tuple(names)

    def _targets(self, row: int, cells: Sequence[str | None]) -> tuple[float, ...]:
        return tuple(self._number(row, cells, column) for column in self._labels)

    def _class_names(self, labels: Iterable[Iterable[str]]) -> list[str]:
        """Returns the classes in the order of their labels; of numbers, their columns."""
        if self.kind != NUMBERS and len(self._labels) == 1:
            return _sorted_names({name for names in labels for name in names})
        columns = [self._table.columns[index] for index in self._labels]
        odd = next((c for c in columns if not is_plain_text(c) or SEPARATOR in c), None)
        if odd is not None:
            raise self._table.error(
                f"rename the column '{printable(odd)}': the name of a class must be UTF-8 without "
                f"line breaks and '{SEPARATOR}'"
            )
        return columns


def _sorted_names(names: set[str]) -> list[str]:
    """Returns names in their order: as numbers if all of them are."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _with_labels(
    rows: Iterable[LabelRow],
    labels: Iterable[Sequence[str]],
    class_names: Iterable[str],
    *,
    is_one: bool,
) -> list[LabelRow]:
    """Returns the rows with the numbers of their classes, rising."""
    place = {name: number for number, name in enumerate(class_names)}
    return [
        row._replace(label=place[names[0]] if is_one else tuple(sorted(place[n] for n in names)))
        for row, names in zip(rows, labels)
    ]
